"use strict";
{
  const found = JSON.parse(document.getElementById("sweep").textContent);
  const svg = (name, attributes, parent, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const path = points => "M" + points.map(([x, y]) => x.toFixed(1) + " " + y.toFixed(1)).join("L");
  const shown = v => typeof v === "number" ? brief(v) : String(v);
  const short = (text, room) => text.length > room ? text.slice(0, Math.max(1, room - 1)) + "…" : text;

  /* Round values within a range, about as many as asked for. */
  const ticks = (low, high, count) => {
    const raw = (high - low) / count || 1, size = 10 ** Math.floor(Math.log10(raw));
    const by = [1, 2, 5, 10].map(n => n * size).find(n => n >= raw), out = [];
    for (let v = Math.ceil(low / by) * by; v <= high + by * 1e-9; v += by) out.push(+v.toPrecision(12));
    return out;
  };
  const decimal = (v, all) => v.toFixed(Math.min(6, Math.max(0, ...all.map(t => (String(t).split(".")[1] || "").length))));

  /* One axis for each changed field and one for the result; one line for each run, in a colour by its rank. */
  function parallel(box) {
    const wide = box.clientWidth, high = 310, top = 44, bottom = 18;
    const results = found.runs.map(run => run.result), low = Math.min(...results), most = Math.max(...results);
    const room = (most - low || Math.abs(low) || 1) * .04;
    const scale = ticks(low - room, most + room, 5);
    const axes = [...found.axes.filter(axis => axis.ticks.length > 1), { key: null, flag: found.objective, ticks: scale, log: false, words: false }];
    const left = 16, right = wide < 500 ? 46 : 60, step = (wide - left - right) / Math.max(1, axes.length - 1);
    box.replaceChildren();
    box.setAttribute("height", high);
    const place = (axis, value) => {
      const span = high - top - bottom;
      if (axis.key === null) return top + span * (1 - (value - low + room) / (most - low + 2 * room));
      const at = axis.words ? axis.ticks.indexOf(String(value)) : value, all = axis.words ? axis.ticks.map((t, i) => i) : axis.ticks;
      const f = axis.log ? Math.log : v => v, first = f(Math.min(...all)), last = f(Math.max(...all));
      return top + span * (last === first ? .5 : 1 - (.04 + .92 * (f(at) - first) / (last - first)));
    };
    const letters = Math.floor(step / 7.2);
    const lines = svg("g", {}, box);
    axes.forEach((axis, i) => {
      const x = left + i * step, end = i === axes.length - 1;
      svg("line", { x1: x, x2: x, y1: top, y2: high - bottom, class: "rule" }, box);
      /* Names are longer than axes are apart: every other one is on a second line. */
      svg("text", { x: end ? wide - 2 : x - (i ? 0 : left), y: i % 2 ? 30 : 14, class: "strong", "text-anchor": end ? "end" : i ? "middle" : "start" }, box,
        short(axis.flag, Math.floor(letters * 1.5)));
      for (const tick of axis.ticks) {
        if (axis.ticks.length > 12 && axis.key !== null && tick !== axis.ticks[0] && tick !== axis.ticks[axis.ticks.length - 1]) continue;
        svg("text", { x: x + 6, y: place(axis, tick) + 4 }, box,
          end ? decimal(tick, axis.ticks) : short(shown(tick), Math.max(4, letters - 2)));
      }
    });
    const order = [...found.runs].sort((a, b) => b.result - a.result);
    order.forEach((run, i) => {
      const points = axes.map((axis, a) => [left + a * step, place(axis, axis.key === null ? run.result : run.values[axis.key])]);
      const best = run.name === found.best, share = order.length > 1 ? i / (order.length - 1) : 1;
      const line = svg("path", { d: path(points), class: best ? "run best" : "run", "stroke-width": 1.8 }, lines);
      line.style.stroke = `color-mix(in oklab, var(--c0) ${Math.round(100 * share)}%, var(--c1))`;
      svg("title", {}, line, run.name + ": " + number(run.result));
      line.addEventListener("pointerenter", () => tell(run));
      line.addEventListener("click", () => tell(run));
    });
  }
  const tell = run => { document.getElementById("named").textContent = run.name + ": " + number(run.result); };

  /* The law over the weights on a logarithmic axis, with its interval, the runs and the predictions. */
  function scaling(box) {
    const wide = box.clientWidth, high = wide < 500 ? 260 : 340, top = 24, left = 46, right = 14, bottom = 26, c = found.curve;
    const xs = c.lines[0].x, some = v => v !== null && v !== undefined;
    const seen = [...c.runs.map(r => r.y), ...c.predictions.flatMap(p => [p.y, p.low, p.high, p.reached])].filter(some);
    const spread = Math.max(...seen) - Math.min(...seen) || 1;
    const low = Math.min(...seen) - .1 * spread, most = Math.max(...seen) + .15 * spread;
    const first = Math.log(xs[0]), last = Math.log(xs[xs.length - 1]);
    const x = v => left + (wide - left - right) * (Math.log(v) - first) / (last - first);
    const y = v => Math.min(high - bottom, Math.max(top, top + (high - top - bottom) * (1 - (v - low) / (most - low))));
    box.replaceChildren();
    box.setAttribute("height", high);
    const levels = ticks(low, most, 5);
    for (const level of levels) {
      svg("line", { x1: left, x2: wide - right, y1: y(level), y2: y(level), class: "grid" }, box);
      svg("text", { x: left - 7, y: y(level) + 4, "text-anchor": "end" }, box, decimal(level, levels));
    }
    let after = -Infinity;
    for (let size = 10 ** Math.floor(Math.log10(xs[0])); size <= xs[xs.length - 1]; size *= 10)
      for (const n of [1, 2, 5]) {
        const at = x(n * size);
        if (at < left || at > wide - right || at < after) continue;
        svg("text", { x: at, y: high - 8, "text-anchor": "middle" }, box, brief(n * size));
        after = at + 44;
      }
    c.lines.forEach((line, i) => {
      const colour = `var(--c${i % 10})`, points = key => line[key].map((v, j) => [x(xs[j]), y(v)]);
      if (some(line.low[0])) svg("path", { d: path([...points("high"), ...points("low").reverse()]) + "Z", class: "band" }, box).style.fill = colour;
      svg("path", { d: path(points("y")), "stroke-width": 1.8 }, box).style.stroke = colour;
      if (c.lines.length > 1) svg("text", { x: wide - right, y: top - 8 + 15 * i, "text-anchor": "end" }, box, line.label).style.fill = colour;
    });
    for (const run of c.runs) svg("title", {}, svg("circle", { cx: x(run.x), cy: y(run.y), r: 4, fill: "var(--c0)" }, box), run.name + ": " + number(run.y));
    for (const p of c.predictions) {
      if (some(p.low)) svg("line", { x1: x(p.x), x2: x(p.x), y1: y(p.low), y2: y(p.high), stroke: "var(--c1)", "stroke-width": 2 }, box);
      const mark = svg("circle", { cx: x(p.x), cy: y(p.y), r: 5, fill: "var(--card)", stroke: "var(--c1)", "stroke-width": 2 }, box);
      svg("title", {}, mark, "predicted for " + p.name + ": " + number(p.y));
      svg("text", { x: x(p.x) - 10, y: y(p.y) - 10, "text-anchor": "end" }, box, "predicted").style.fill = "var(--c1)";
      if (!some(p.reached)) continue;
      const d = 5, [a, b] = [x(p.x), y(p.reached)];
      svg("title", {}, svg("path", { d: `M${a - d} ${b - d}L${a + d} ${b + d}M${a - d} ${b + d}L${a + d} ${b - d}`, stroke: "var(--ink)", "stroke-width": 2 }, box), p.name + " reached " + number(p.reached));
    }
  }

  const drawings = [["parallel", parallel], ["scaling", scaling]].map(([id, draw]) => [document.getElementById(id), draw]).filter(([box]) => box);
  const redraw = () => drawings.forEach(([box, draw]) => draw(box));
  redraw();
  let waiting = 0;
  addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(redraw); });
}

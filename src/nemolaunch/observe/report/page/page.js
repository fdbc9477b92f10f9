"use strict";
const data = JSON.parse(document.getElementById("figures").textContent);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = i => css("--c" + (i % 10));
const several = data.runs.length > 1;
const shown = data.runs.map(() => true);
const SEVERE = ["failed", "not finite", "no progress"], PLAIN = ["restart", "left", "migrated"];
const severity = kind => SEVERE.includes(kind) ? "bad" : PLAIN.includes(kind) ? "plain" : "warn";
let axis = "step";

const number = v => {
  if (v === null || v === undefined) return "–";
  const size = Math.abs(v);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return v.toExponential(2);
  return v.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 6 : 4 });
};
const brief = v => {
  const size = Math.abs(v);
  for (const [unit, name] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
    if (size >= unit) return +(v / unit).toPrecision(4) + name;
  return size !== 0 && size < 1e-3 ? v.toExponential(0) : String(+v.toPrecision(4));
};
const element = (name, text, parent) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (parent) parent.append(made);
  return made;
};

/* Convert the steps of a series to the unit of the x axis: steps, tokens or hours of training. */
function along(run, steps) {
  if (axis === "tokens" && run.tokens) return between(run.tokens, steps);
  if (axis !== "hours") return steps;
  return between(run.elapsed, steps).map(seconds => seconds / 3600);
}
/* The values of a series at other steps, in ascending order. */
function between([at, values], steps) {
  let i = 0;
  return steps.map(s => {
    while (i < at.length - 1 && at[i + 1] <= s) i++;
    if (i === at.length - 1 || s <= at[i]) return values[i];
    const part = (s - at[i]) / (at[i + 1] - at[i]);
    return values[i] + part * (values[i + 1] - values[i]);
  });
}
const place = at => axis === "step" ? "step " + number(Math.round(at))
  : axis === "hours" ? number(at) + " hours of training" : brief(at) + " tokens";

/* The lines of a chart: x, y and style for every run and kind of line. */
function lines(chart) {
  const out = [];
  const solid = chart.lines.filter(line => line.look !== "faint");
  data.runs.forEach((run, r) => chart.lines.forEach((line, l) => {
    const found = run.series[line.key];
    if (!found) return;
    const own = several ? r : Math.max(0, solid.indexOf(line));
    out.push({
      run: r, kind: l, look: line.look, x: along(run, found[0]), y: found[1],
      points: line.look === "points" || found[0].length < 3,
      label: several ? run.name + (chart.lines.length > 1 ? " · " + line.label : "") : line.label,
      stroke: () => colour(own) + (line.look === "faint" ? "70" : ""),
      dash: dashes(solid, line),
    });
  }));
  return out;
}

/* With several runs, colours distinguish runs and dashes distinguish lines. */
const dashes = (solid, line) => several && line.look === "line" ? [undefined, [6, 4], [2, 3]][solid.indexOf(line)] : undefined;

const visible = (chart, line) => shown[line.run] && !chart.hidden.has(line.kind);

/* Restarts and other events: dashed lines with a flag at the top. */
const marks = () => ({ hooks: { draw: [u => {
  const { ctx, bbox: { left, top, width, height } } = u, dpr = devicePixelRatio;
  ctx.save();
  data.runs.forEach((run, r) => shown[r] && run.marks.forEach(mark => {
    const x = Math.round(u.valToPos(along(run, [mark.step])[0], "x", true));
    if (x < left || x > left + width) return;
    ctx.strokeStyle = ctx.fillStyle = several ? colour(r) : css({ bad: "--bad", warn: "--warn", plain: "--quiet" }[severity(mark.kind)]);
    ctx.globalAlpha = .75;
    ctx.setLineDash([3 * dpr, 4 * dpr]);
    ctx.lineWidth = dpr;
    ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, top + height); ctx.stroke();
    ctx.beginPath(); ctx.moveTo(x - 4 * dpr, top); ctx.lineTo(x + 4 * dpr, top); ctx.lineTo(x, top + 6 * dpr); ctx.fill();
  }));
  ctx.restore();
}] } });

/* The tooltip: the position of the pointer, the value of each line, and nearby events. */
const tips = (chart, all) => {
  const tip = element("div");
  tip.className = "tip"; tip.hidden = true;
  let over = false;
  const fill = (u, left) => {
    const at = u.posToVal(left, "x");
    tip.replaceChildren();
    element("b", place(at), tip);
    for (const line of all) {
      if (!visible(chart, line) || (several && line.look === "faint")) continue;
      const row = element("div", "", tip), name = element("span", line.label, row);
      name.style.setProperty("--own", line.stroke());
      element("span", number(line.y[nearest(line.x, at)]), row).style.cssText = "--own: none";
      row.lastChild.className = "num";
    }
    data.runs.forEach((run, r) => shown[r] && run.marks.forEach(mark => {
      if (Math.abs(u.valToPos(along(run, [mark.step])[0], "x") - left) > 6) return;
      element("p", (several ? run.name + ", " : "") + "step " + number(mark.step) + ", " + mark.kind + ": " + mark.text, tip)
        .className = severity(mark.kind);
    }));
  };
  return { hooks: {
    init: [u => {
      u.over.append(tip);
      u.over.addEventListener("mouseenter", () => { over = true; });
      u.over.addEventListener("mouseleave", () => { over = false; tip.hidden = true; });
    }],
    setCursor: [u => {
      const { left } = u.cursor;
      if (!over || left === undefined || left < 0) { tip.hidden = true; return; }
      fill(u, left);
      tip.hidden = false;
      const wide = u.over.clientWidth, own = tip.offsetWidth;
      tip.style.left = (left + 16 + own > wide ? Math.max(-50, left - own - 16) : left + 16) + "px";
    }],
  } };
};

function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) { const mid = (low + high) >> 1; if (xs[mid] <= x) low = mid; else high = mid; }
  return x - xs[low] <= xs[high] - x ? low : high;
}

function options(chart, all, width) {
  const range = chart.log ? undefined : (u, low, high) => {
    if (low === null) return [0, 1];
    const room = .06 * (high - low || Math.abs(high) || 1);
    return [chart.zero && low >= 0 ? 0 : low - room, high + room];
  };
  const side = { stroke: () => css("--quiet"), grid: { stroke: () => css("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const words = (u, vs) => vs.map(v => v === null ? "" : brief(v));
  return {
    width, height: chart.wide ? 340 : 220,
    plugins: [marks(), tips(chart, all)],
    cursor: { sync: { key: "run", scales: ["x", null] }, points: { show: false }, y: false, drag: { x: true, y: false } },
    legend: { show: false },
    scales: { x: { time: false }, y: { distr: chart.log ? 3 : 1, range } },
    axes: [
      { ...side, size: 28, values: words, incrs: axis === "step" ? wholes() : undefined },
      { ...side, size: 54, values: words },
    ],
    hooks: { setSelect: [() => { whole.disabled = false; }] },
    series: [{}, ...all.map(line => ({
      stroke: line.stroke, width: line.look === "faint" ? 1 : line.look === "points" ? 1.2 : 1.8, dash: line.dash,
      spanGaps: true, show: visible(chart, line), points: { show: line.points, size: 6, fill: line.stroke },
    }))],
  };
}

/* Integer ticks for an axis that counts steps. */
function wholes() {
  const out = [];
  for (let size = 1; size < 1e10; size *= 10) out.push(size, 2 * size, 5 * size);
  return out;
}

/* Buttons that toggle kinds of lines. */
function legend(chart, box) {
  const holder = box.parentElement.querySelector(".legend");
  holder.replaceChildren();
  if (chart.lines.length < 2) return;
  const solid = chart.lines.filter(line => line.look !== "faint");
  chart.lines.forEach((line, l) => {
    const button = element("button", "", holder);
    const stroke = several ? "currentColor" : `var(--c${Math.max(0, solid.indexOf(line))})`;
    const faint = line.look === "faint", dots = line.look === "points";
    const dash = (dashes(solid, line) || ["none"]).join(" ");
    button.innerHTML = `<svg viewBox="0 0 18 8" aria-hidden="true"><path d="M0 4H18" stroke="${stroke}" stroke-width="${faint ? 1.2 : 2.2}"` +
      ` stroke-dasharray="${dash}" opacity="${faint ? .5 : 1}"/>${dots ? `<circle cx="9" cy="4" r="3" fill="${stroke}"/>` : ""}</svg>`;
    button.append(line.label);
    button.type = "button";
    button.setAttribute("aria-pressed", !chart.hidden.has(l));
    button.addEventListener("click", () => {
      if (!chart.hidden.delete(l)) chart.hidden.add(l);
      button.setAttribute("aria-pressed", !chart.hidden.has(l));
      show(chart);
    });
  });
}

function show(chart) {
  chart.plot.batch(() => chart.all.forEach((line, i) => {
    if (chart.plot.series[i + 1].show !== visible(chart, line)) chart.plot.setSeries(i + 1, { show: visible(chart, line) });
  }));
}

function draw(chart) {
  const box = document.getElementById("chart-" + chart.id);
  if (chart.plot) chart.plot.destroy();
  chart.all = lines(chart);
  const table = uPlot.join(chart.all.map(line => [line.x, line.y]));
  chart.plot = new uPlot(options(chart, chart.all, box.clientWidth), table, box);
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", chart.title + ": " + chart.all.filter(line => line.look !== "faint")
    .map(line => `${line.label} from ${number(line.y[0])} to ${number(line.y[line.y.length - 1])}`).join("; "));
  legend(chart, box);
}

function resize(width) {
  for (const chart of data.charts) {
    const box = document.getElementById("chart-" + chart.id);
    const alone = chart.wide || box.parentElement.matches(":last-child:nth-child(even)");
    const own = width ? (alone ? width : (width - 14) / 2) - 30 : box.clientWidth;
    chart.plot.setSize({ width: own, height: chart.plot.height });
  }
}

const control = id => document.getElementById(id);
const whole = control("whole");
for (const chart of data.charts) {
  chart.hidden = new Set(data.runs.length > 3 ? chart.lines.flatMap((line, l) => line.look === "faint" && chart.lines.length > 1 ? [l] : []) : []);
  draw(chart);
}
if (data.charts.length) {
  control("axis").addEventListener("change", event => { axis = event.target.value; data.charts.forEach(draw); whole.disabled = true; });
  control("log").addEventListener("change", event => {
    for (const chart of data.charts) if (chart.id === "loss") { chart.log = event.target.checked; draw(chart); }
  });
  whole.addEventListener("click", () => { data.charts.forEach(draw); whole.disabled = true; });
}
for (const button of document.querySelectorAll("[data-run]")) button.addEventListener("click", () => {
  const run = +button.dataset.run;
  shown[run] = !shown[run];
  button.setAttribute("aria-pressed", shown[run]);
  data.charts.forEach(show);
});
let pending = 0;
addEventListener("resize", () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(() => resize()); });
for (const query of ["(prefers-color-scheme: dark)", "print"])
  matchMedia(query).addEventListener("change", () => data.charts.forEach(chart => chart.plot.redraw(false)));
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach(folded => { folded.open = true; });
  resize(680);
});
addEventListener("afterprint", () => { opened.forEach(folded => { folded.open = false; }); resize(); });
document.documentElement.dataset.drawn = data.charts.length;

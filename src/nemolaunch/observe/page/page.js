"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = i => css("--c" + (i % 10));
const charts = [];
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

/* The steps of a series in the unit of the x axis: steps, tokens, or hours in training. */
function along(run, steps) {
  if (axis === "tokens" && run.tokens_per_step) return steps.map(s => s * run.tokens_per_step);
  if (axis !== "hours") return steps;
  const [at, seconds] = run.elapsed;
  let i = 0;
  return steps.map(s => {
    while (i < at.length - 1 && at[i + 1] <= s) i++;
    if (i === at.length - 1 || s <= at[i]) return seconds[i] / 3600;
    const part = (s - at[i]) / (at[i + 1] - at[i]);
    return (seconds[i] + part * (seconds[i + 1] - seconds[i])) / 3600;
  });
}

/* One chart's lines: for every run and key, x values, y values and the look. */
function lines(chart) {
  const out = [];
  data.runs.forEach((run, r) => chart.lines.forEach((line, l) => {
    const found = run.series[line.key];
    if (!found) return;
    const own = data.runs.length > 1;
    out.push({
      x: along(run, found[0]), y: found[1], points: line.look === "points" || found[0].length < 3,
      label: own ? run.name + (chart.lines.length > 1 ? " · " + line.label : "") : line.label,
      stroke: () => colour(own ? r : l && chart.lines[0].look === "faint" ? l - 1 : l) + (line.look === "faint" ? "66" : ""),
      thin: line.look === "faint",
    });
  }));
  return out;
}

const marks = () => ({ hooks: { drawAxes: [u => {
  const ctx = u.ctx, { left, top, width, height } = u.bbox;
  ctx.save();
  data.runs.forEach(run => run.marks.forEach(mark => {
    const x = u.valToPos(along(run, [mark.step])[0], "x", true);
    if (x < left || x > left + width) return;
    ctx.strokeStyle = css(mark.kind === "restart" ? "--quiet" : "--bad");
    ctx.setLineDash([4, 4]);
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, top + height); ctx.stroke();
  }));
  ctx.restore();
}] } });

const tips = all => {
  const tip = document.createElement("div");
  tip.className = "tip"; tip.hidden = true;
  return { hooks: {
    init: [u => u.over.appendChild(tip)],
    setCursor: [u => {
      const { left, idx } = u.cursor;
      if (idx === null || idx === undefined || left < 0) { tip.hidden = true; return; }
      const at = u.posToVal(left, "x");
      tip.replaceChildren();
      const head = document.createElement("b");
      head.textContent = axis === "step" ? "step " + number(Math.round(at)) : number(at) + " " + axis;
      tip.append(head);
      all.forEach((line, i) => {
        if (!u.series[i + 1].show) return;
        const near = nearest(line.x, at), row = document.createElement("div"), dot = document.createElement("span");
        dot.style.background = line.stroke();
        row.append(dot, line.label + "  " + number(line.y[near]));
        tip.append(row);
      });
      tip.hidden = false;
      const wide = u.over.clientWidth, own = tip.offsetWidth;
      tip.style.left = Math.max(0, left + 16 + own > wide ? left - own - 16 : left + 16) + "px";
      tip.style.top = "8px";
    }],
  } };
};

function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) { const mid = (low + high) >> 1; if (xs[mid] <= x) low = mid; else high = mid; }
  return x - xs[low] <= xs[high] - x ? low : high;
}

function options(chart, all, width) {
  const scaleLabel = { step: "optimizer steps", tokens: "tokens", hours: "hours in training" }[axis];
  return {
    width, height: chart.wide ? 340 : 250,
    plugins: [marks(), tips(all)],
    cursor: { sync: { key: "run" }, points: { show: false }, y: false },
    legend: { live: false, show: all.length > 1, markers: { fill: (u, i) => all[i - 1].stroke() } },
    scales: { x: { time: false }, y: { distr: chart.log ? 3 : 1, range: chart.log ? undefined : { min: { pad: .08, soft: chart.zero ? 0 : undefined, mode: chart.zero ? 1 : 0 }, max: { pad: .08 } } } },
    axes: [
      { stroke: () => css("--quiet"), grid: { stroke: () => css("--grid"), width: 1 }, ticks: { show: false }, label: scaleLabel, labelSize: 18, labelFont: "12px system-ui", font: "12px system-ui", size: 30, values: (u, vs) => vs.map(v => v === null ? "" : brief(v)), incrs: axis === "step" ? steps() : undefined },
      { stroke: () => css("--quiet"), grid: { stroke: () => css("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui", size: 58, values: (u, vs) => vs.map(v => v === null ? "" : brief(v)) },
    ],
    series: [{}, ...all.map(line => ({
      label: line.label, stroke: line.stroke, width: line.thin ? 1 : 1.8, spanGaps: true,
      points: { show: line.points, size: 6, fill: line.stroke },
    }))],
  };
}

/* Whole numbers only on an axis that counts steps. */
function steps() {
  const out = [];
  for (let size = 1; size < 1e10; size *= 10) out.push(size, 2 * size, 5 * size);
  return out;
}

function draw(chart) {
  const all = lines(chart);
  const box = document.getElementById("chart-" + chart.id);
  if (chart.plot) chart.plot.destroy();
  box.replaceChildren();
  const table = uPlot.join(all.map(line => [line.x, line.y]));
  chart.plot = new uPlot(options(chart, all, box.clientWidth), table, box);
}

function resize(width) {
  for (const chart of charts) {
    const box = document.getElementById("chart-" + chart.id);
    chart.plot.setSize({ width: width ? (chart.wide ? width : (width - 14) / 2 - 30) : box.clientWidth, height: chart.plot.height });
  }
}

for (const chart of data.charts) { charts.push(chart); draw(chart); }
document.getElementById("axis").addEventListener("change", event => { axis = event.target.value; charts.forEach(draw); });
document.getElementById("log").addEventListener("change", event => {
  for (const chart of charts) if (chart.id === "loss") { chart.log = event.target.checked; draw(chart); }
});
document.getElementById("whole").addEventListener("click", () => charts.forEach(draw));
let pending = 0;
addEventListener("resize", () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(() => resize()); });
for (const query of ["(prefers-color-scheme: dark)", "print"])
  matchMedia(query).addEventListener("change", () => charts.forEach(chart => chart.plot.redraw(false)));
addEventListener("beforeprint", () => resize(640));
addEventListener("afterprint", () => resize());
document.documentElement.dataset.drawn = charts.length;

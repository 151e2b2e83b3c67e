// SPDX-License-Identifier: MIT
// Failures on the time line, and how long calls of the slow path took: as a histogram, and over time.
"use strict";

const LEAST_CELL = 5;
const HAPPENED = {
  none: ["neither reclaim nor compaction", "var(--series-6)"],
  compaction: ["compaction", "var(--series-3)"],
  direct_reclaim: ["direct reclaim", "var(--series-0)"],
  oom: ["the OOM killer", "var(--bad)"],
};

const moments = () => data.slow?.moments ?? null;

/** Returns the failed calls over time: the time in ns since the clock began, and how many. */
function failuresOverTime() {
  const sums = new Map();
  const put = (at, number) => sums.set(at, (sums.get(at) ?? 0) + number);
  if (data.returns === "all" || !moments()) {
    const { time } = data;
    for (const i of selected.time) {
      if (valueOf("outcome", time.row[i]) !== "failed") continue;
      put(data.clock.first + ((time.x[i] + 0.5) * time.span) / time.buckets, time.count[i] * data.sample);
    }
  } else {
    const { x, failed, count: counts, span, buckets } = moments();
    x.forEach((part, i) => failed[i] && put(((part + 0.5) * span) / buckets, counts[i]));
  }
  return [...sums].map(([at, number]) => ({ at, number }));
}

/** Says how many failures the triangles stand for; those of the slow path are not rows, so filters do not apply. */
function failureText(failures) {
  if (!failures.length) return "";
  const free = data.returns === "all" || !moments() ? "" : " of the slow path (filters do not apply to them)";
  return ` Triangles mark ${several(d3.sum(failures, ({ number }) => number), "failed call")}${free}.`;
}

/** Draws the calls of the slow path of an aggregate, where no other call has a time. */
function drawSlowTime(figure) {
  const without = "This trace is an aggregate without times. Record with --mode stream to see calls over time.";
  if (!moments()?.count.length) {
    figure.replaceChildren(note(without));
    return;
  }
  const { x, failed, count: counts, span, buckets } = moments();
  const sums = new Map();
  x.forEach((part, i) => sums.set(2 * part + failed[i], (sums.get(2 * part + failed[i]) ?? 0) + counts[i]));
  barChart(figure, {
    bars: [...sums].map(([where, number]) => ({ part: where >> 1, series: where % 2, weight: number })),
    from: 0,
    span,
    buckets,
    series: [
      ["got a page", "var(--series-0)"],
      ["failed", "var(--bad)"],
    ],
    unit: "calls",
    about: "calls of the slow path over time",
    sign: "",
    failures: failuresOverTime(),
  });
  figure.append(note("This trace is an aggregate: only calls of the slow path have times. Record with --mode stream to see all."));
}

/** The charts about durations; filters do not apply to them. */
function drawDurations() {
  const box = find("#durations");
  if (!box) return;
  const found = moments();
  if (!found.count.length) {
    box.replaceChildren(note("No duration is known, because no return was captured."));
    return;
  }
  const calls = found.kinds.map((_, kind) => d3.sum(found.count, (number, i) => (found.what[i] === kind ? number : 0)));
  const present = d3.range(found.kinds.length).filter((kind) => calls[kind]);
  const edge = (y) => 10 ** (y / found.per_decade - 6);
  const [least, most] = [edge(d3.min(found.y)), edge(d3.max(found.y) + 1)];
  const scale = {
    type: "log",
    domain: [least, most],
    ticks: d3.range(-6, 9).map((power) => 10 ** power).filter((tick) => least <= tick && tick <= most),
    tickFormat: milliOf,
  };
  box.replaceChildren(
    element(
      "ul",
      { class: "legend" },
      present.map((kind) =>
        element(
          "li",
          {},
          element("span", { class: "swatch", style: `background: ${HAPPENED[found.kinds[kind]][1]}` }),
          `${HAPPENED[found.kinds[kind]][0]}: ${several(calls[kind], "call", "")}`,
        ),
      ),
    ),
    histogram(found, present, edge, scale, box.clientWidth),
    heatMap(found, edge, scale, box.clientWidth),
  );
}

const milliOf = (number) => (number >= 1000 ? `${number / 1000} s` : number >= 1 ? `${number} ms` : `${whole.format(number * 1000)} µs`);
const colorOf = (found) => (one) => HAPPENED[found.kinds[one.what]][1];

function histogram(found, present, edge, scale, width) {
  const bars = d3
    .rollups(d3.range(found.count.length), (some) => d3.sum(some, (i) => found.count[i]), (i) => found.what[i], (i) => found.y[i])
    .flatMap(([what, parts]) => parts.map(([y, number]) => ({ what, x1: edge(y), x2: edge(y + 1), number })));
  const tallest = d3.max(bars, ({ number }) => number);
  const chart = Plot.plot({
    ...plain(width, "How many calls of the slow path took how long, by what happened"),
    height: 60 + 64 * present.length,
    x: { ...scale, label: "duration of a call" },
    y: { type: "sqrt", label: "calls", ticks: [0, 10 ** Math.floor(Math.log10(tallest))], tickFormat: (number) => short.format(number), grid: true },
    fy: { domain: present, axis: null },
    marks: [
      Plot.rectY(bars, { x1: "x1", x2: "x2", y: "number", fy: "what", fill: colorOf(found), insetLeft: 0.5, insetRight: 0.5 }),
      Plot.ruleY([0], { stroke: "var(--line)" }),
    ],
  });
  return element("figure", {}, quiet(chart), element("figcaption", {}, "How long the calls took, by the gravest of what happened meanwhile. The height grows with the square root, so that rare calls show."));
}

function heatMap(found, edge, scale, width) {
  const merged = Math.ceil((LEAST_CELL * found.buckets) / width);
  const [unitName, unitLength] = unitOf(found.span);
  const step = (found.span / found.buckets / unitLength) * merged;
  const groups = d3.rollup(
    d3.range(found.count.length),
    (some) => ({
      number: d3.sum(some, (i) => found.count[i]),
      failed: d3.sum(some, (i) => found.count[i] * found.failed[i]),
      what: d3.max(some, (i) => found.what[i]),
    }),
    (i) => Math.floor(found.x[i] / merged),
    (i) => found.y[i],
  );
  const cells = [...groups].flatMap(([x, of]) =>
    [...of].map(([y, sum]) => ({ ...sum, x1: x * step, x2: (x + 1) * step, y1: edge(y), y2: edge(y + 1) })),
  );
  const most = d3.max(cells, ({ number }) => number);
  const failed = cells.filter((cell) => cell.failed);
  const chart = Plot.plot({
    ...plain(width, "Duration of calls of the slow path over time"),
    height: 280,
    x: { label: `${unitName} since ${data.clock.event}`, domain: [0, found.span / unitLength], ticks: width / 90 },
    y: { ...scale, label: "duration of a call", grid: true },
    marks: [
      Plot.rect(cells, {
        x1: "x1", x2: "x2", y1: "y1", y2: "y2", inset: 0,
        fill: colorOf(found),
        fillOpacity: ({ number }) => 0.35 + (0.65 * Math.log1p(number)) / Math.log1p(most),
        title: ({ number, failed: lost }) => `${several(number, "call", "")}, ${whole.format(lost)} failed`,
      }),
      Plot.dot(failed, { x: (cell) => (cell.x1 + cell.x2) / 2, y: (cell) => Math.sqrt(cell.y1 * cell.y2), r: 2, fill: "var(--text)" }),
    ],
  });
  return element(
    "figure",
    {},
    quiet(chart),
    element("figcaption", {}, `When calls took how long. Darker cells of ${significant(step)} ${unitName} have more calls; a dot marks those with failed calls.`),
  );
}

const plain = (width, ariaLabel) => ({
  width,
  marginLeft: 56,
  marginRight: 28,
  marginBottom: 40,
  style: { fontSize: `${FONT_SIZE}px`, background: "none", color: "var(--text)", overflow: "visible" },
  ariaLabel,
});

/** Screen readers get one image with its caption; the labels of the marks would only say "rect". */
function quiet(chart) {
  chart.setAttribute("role", "img");
  for (const group of chart.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
  return chart;
}

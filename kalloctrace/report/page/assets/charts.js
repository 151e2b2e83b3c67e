// SPDX-License-Identifier: MIT
// Calls over time, and callers as an icicle. Colours come from the style sheet, so a new theme needs no redrawing.
"use strict";

const SERIES = 7;
const FONT_SIZE = 12;
const LETTER = 7.25;
const FRAME = 24;
const NARROWEST = 2;

function drawTime() {
  const figure = find("#time figure");
  if (data.aggregate) {
    drawSlowTime(figure);
    return;
  }
  if (!selected.time.length) {
    figure.replaceChildren(nothing());
    return;
  }
  const { time } = data;
  const nameOf =
    state.split === "comm"
      ? (i) => data.values.comm[time.comm[i]]
      : (i) => label(valueOf(state.split, time.row[i]));
  const names = ranked(sumCells(time, selected.time, nameOf)).map(([name]) => name);
  const rest = names.length > SERIES;
  const shown = names.slice(0, SERIES).map((name, i) => [rest && i === SERIES - 1 ? "other" : seriesName(name), `var(--series-${i})`]);
  const place = new Map(names.map((name, i) => [name, Math.min(i, shown.length - 1)]));
  const sums = sumCells(time, selected.time, (i) => time.x[i] * SERIES + place.get(nameOf(i)));
  barChart(figure, {
    bars: [...sums].map(([where, sum]) => ({ part: Math.floor(where / SERIES), series: where % SERIES, weight: weightOf(sum) })),
    from: data.clock.first,
    span: time.span,
    buckets: time.buckets,
    series: shown,
    unit: state.weight,
    about: `${state.weight} over time, split by ${state.split}`,
    failures: failuresOverTime(),
  });
}

/**
 * Draws bars over time, with a mark for each part of the time in which calls failed. 'bars' have the part of the time,
 * the index of their series and a weight; 'from' and 'span' are in ns; a series has a name and a colour.
 */
function barChart(figure, { bars, from, span, buckets, series, unit, about, failures, sign = mark }) {
  const [unitName, unitLength] = unitOf(from + span);
  const [start, step] = [from / unitLength, span / buckets / unitLength];
  const places = d3.range(series.length);
  const drawn = bars.map((bar) => ({ ...bar, from: start + bar.part * step, to: start + (bar.part + 1) * step }));
  const end = d3.max([start + span / unitLength, ...failures.map(({ at }) => at / unitLength)]);
  const chart = Plot.plot({
    ...plain(figure.clientWidth, about),
    height: 260,
    x: { label: `${unitName} since ${data.clock.event}`, domain: [start, end], ticks: figure.clientWidth / 90 },
    y: { label: unit, grid: true, tickFormat: (number) => short.format(number), ticks: 5 },
    color: { type: "ordinal", domain: places, range: series.map(([, colour]) => colour) },
    marks: [
      Plot.rectY(
        drawn,
        Plot.stackY({
          x1: "from",
          x2: "to",
          y: "weight",
          fill: "series",
          order: places,
          inset: 0,
          insetRight: figure.clientWidth > 4 * buckets ? 1 : 0,
        }),
      ),
      Plot.ruleY([0], { stroke: "var(--line)" }),
      Plot.dot(failures, {
        x: ({ at }) => at / unitLength,
        frameAnchor: "top",
        dy: -8,
        symbol: "triangle",
        rotate: 180,
        r: 4,
        fill: "var(--bad)",
        className: "failure",
        title: ({ number }) => several(number, "failed call"),
      }),
    ],
  });
  const busiest = busiestPart(drawn);
  figure.replaceChildren(
    element(
      "ul",
      { class: "legend" },
      series.map(([name, colour]) => element("li", {}, element("span", { class: "swatch", style: `background: ${colour}` }), name)),
    ),
    quiet(chart),
    element(
      "figcaption",
      {},
      `Each bar is ${significant(step)} ${unitName}. The busiest, ${significant(busiest.from)} ${unitName} after ${data.clock.event}, has ${sign}${whole.format(busiest.weight)} ${unit}.${failureText(failures)}`,
    ),
  );
}

const seriesName = (name) => (state.split === "comm" ? name : `${state.split} ${name}`);

function busiestPart(bars) {
  const parts = d3.rollups(bars, (part) => d3.sum(part, (bar) => bar.weight), (bar) => bar.from);
  const [from, weight] = d3.greatest(parts, ([, sum]) => sum);
  return { from, weight };
}

/** Returns the unit for a span of nanoseconds, and its length. */
function unitOf(span) {
  if (span >= 1e9) return ["seconds", 1e9];
  if (span >= 1e6) return ["milliseconds", 1e6];
  return span >= 1e3 ? ["microseconds", 1e3] : ["nanoseconds", 1];
}

const significant = (number) => new Intl.NumberFormat("en", { maximumSignificantDigits: 4 }).format(number);

/** The functions that the icicle is zoomed to, from its first level. */
let zoom = [];

function drawCallers() {
  const [figure, table, controls] = [find("#callers figure"), find("#callers .table"), find("#callers .controls")];
  controls.hidden = !data.callers;
  if (!data.callers) {
    figure.replaceChildren(
      note(
        data.aggregate
          ? "This trace is an aggregate without stacks. Record with --mode stream --stack to see callers."
          : data.events
            ? "This trace was imported from events without call chains. Record them with perf record -g to see callers."
            : "This trace has no kernel stacks. Record with --stack to see callers.",
      ),
    );
    table.replaceChildren();
    return;
  }
  const sums = sumCells(data.callers, selected.callers, (i) => data.callers.x[i]);
  drawIcicle(figure, callTree(sums));
  table.replaceChildren(functionTable(sums));
}

/** Returns a tree of functions; the weight of each is the sum of all stacks through it. */
function callTree(sums) {
  const root = { name: "all calls", children: new Map(), own: 0, calls: 0, pages: 0 };
  for (const [stack, sum] of sums) {
    const frames = data.callers.stacks[stack];
    let node = root;
    enter(node, sum);
    for (let i = 0; i < frames.length; i++) {
      const frame = frames[state.from === "outermost" ? frames.length - 1 - i : i];
      if (!node.children.has(frame)) {
        const name = data.callers.frames[frame];
        node.children.set(frame, { name, children: new Map(), own: 0, calls: 0, pages: 0 });
      }
      node = node.children.get(frame);
      enter(node, sum);
    }
    node.own += weightOf(sum);
  }
  return root;
}

function enter(node, sum) {
  node.calls += sum.calls;
  node.pages += sum.pages;
}

function drawIcicle(figure, tree) {
  const hadFocus = figure.contains(document.activeElement);
  const path = [tree];
  for (const name of zoom) {
    const next = [...path[path.length - 1].children.values()].find((child) => child.name === name);
    if (!next) break;
    path.push(next);
  }
  zoom = path.slice(1).map((node) => node.name);
  const top = path[path.length - 1];
  const width = figure.clientWidth;
  const root = d3
    .hierarchy(top, (node) => [...node.children.values()])
    .sum((node) => node.own)
    .sort((a, b) => b.value - a.value);
  if (!root.value) {
    figure.replaceChildren(tree.calls ? note("The allocations that pass the filters got no pages: weigh by allocations to see their callers.") : nothing());
    return;
  }
  d3.partition().size([width, (root.height + 1) * FRAME])(root);
  const frames = root.descendants().filter((node) => node.x1 - node.x0 >= NARROWEST);
  const depth = d3.max(frames, (node) => node.depth) + 1;
  const details = element("output", { class: "details" }, describeFrame(root, tree));
  const svg = d3
    .create("svg")
    .attr("width", width)
    .attr("height", depth * FRAME)
    .attr("viewBox", [0, 0, width, depth * FRAME])
    .attr("role", "group")
    .attr("aria-label", `Callers, weighted by ${state.weight}`)
    .attr("class", "icicle");
  const cell = svg
    .selectAll("g")
    .data(frames)
    .join("g")
    .attr("transform", (node) => `translate(${node.x0},${node.depth * FRAME})`)
    .attr("role", "button")
    .attr("tabindex", (node) => (node.depth ? -1 : 0))
    .attr("aria-label", (node) => describeFrame(node, tree))
    .on("click", (_, node) => zoomTo(node))
    .on("keydown", (event, node) => {
      const zooms = event.key === "Enter" || event.key === " ";
      const next = neighbour(node, event.key);
      if (!zooms && !next) return;
      event.preventDefault();
      if (zooms) zoomTo(node);
      else cell.filter((one) => one === next).node()?.focus();
    })
    .on("pointerenter focus", (_, node) => (details.textContent = describeFrame(node, tree)));
  cell
    .append("rect")
    .attr("width", (node) => Math.max(1, node.x1 - node.x0 - 1))
    .attr("height", FRAME - 1)
    .attr("rx", 2)
    .attr("class", (node) => (node.depth || path.length > 1 ? `frame tint-${tint(node.data.name)}` : "frame root"));
  cell
    .filter((node) => fitting(node).length > 2)
    .append("text")
    .attr("x", 5)
    .attr("y", FRAME / 2)
    .attr("dy", "0.32em")
    .text(fitting);
  cell.append("title").text((node) => describeFrame(node, tree));
  figure.replaceChildren(crumbs(path), svg.node(), details);
  if (hadFocus) figure.querySelector(".icicle g")?.focus();
}

/** Returns the frame that an arrow key moves to; the icicle is one tab stop, because it may have hundreds of frames. */
function neighbour(node, pressed) {
  const siblings = node.parent?.children ?? [];
  const place = siblings.indexOf(node);
  return {
    ArrowDown: node.children?.[0],
    ArrowUp: node.parent,
    ArrowLeft: siblings[place - 1],
    ArrowRight: siblings[place + 1],
  }[pressed];
}

function fitting(node) {
  const room = Math.floor((node.x1 - node.x0 - 10) / LETTER);
  const { name } = node.data;
  return name.length <= room ? name : room > 3 ? `${name.slice(0, room - 1)}…` : "";
}

function describeFrame(node, tree) {
  const { name, calls, pages } = node.data;
  return `${name}: ${amountText(calls, pages)} (${memory(pages)}), ${share(weightOf(node.data), weightOf(tree))} of the filtered calls`;
}

function tint(name) {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return hash % 5;
}

function zoomTo(node) {
  const below = node
    .ancestors()
    .reverse()
    .slice(1)
    .map(({ data: { name } }) => name);
  // A frame that already fills the width zooms out again.
  zoom = below.length ? [...zoom, ...below] : zoom.slice(0, -1);
  drawCallers();
}

function crumbs(path) {
  const buttons = path.slice(0, -1).map((node, i) =>
    element("li", {}, element("button", { type: "button", onclick: () => ((zoom = zoom.slice(0, i)), drawCallers()) }, breakable(node.name))),
  );
  return element("ol", { class: "crumbs", "aria-label": "Zoomed to", hidden: path.length < 2 }, buttons, element("li", {}, breakable(path[path.length - 1].name)));
}

/** All functions with their callees; a recursive function counts once. */
function functionTable(sums) {
  const functions = new Map();
  for (const [stack, { calls, pages }] of sums) {
    for (const frame of new Set(data.callers.stacks[stack])) add(functions, data.callers.frames[frame], calls, pages);
  }
  return table({ caption: "Functions, including callees", heading: "function", entries: ranked(functions) });
}

// SPDX-License-Identifier: MIT
// Failures in logs: what failed and why, each zone against its watermarks, and the tasks.
"use strict";

const data = JSON.parse(find("#data").textContent);
const FIRST_GROUPS = 20;
/** A bar ends at this multiple of what is needed, so that the marks stay apart. */
const LONGEST_BAR = 4;
const WIDTH = 1000;
const HEIGHT = 26;

function drawing(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.flat());
  return made;
}

const KINDS = [
  { name: "count" },
  { name: "logs" },
  { name: "what", words: true },
  { name: "order", shown: String },
  { name: "caller", words: true },
  { name: "kernel", words: true },
  { name: "first", words: true },
  { name: "last", words: true },
];
const TASKS = [
  { name: "pid", shown: String },
  { name: "name", words: true },
  { name: "resident, kB" },
  { name: "swapped, kB" },
  { name: "page tables, kB" },
  { name: "address space, kB" },
  { name: "oom_score_adj" },
];
const BY_SIZE = 2;

/** One zone: its free memory in parts, and the watermarks as lines across it. */
function zoneBar(zone) {
  const needed = zone.needed?.[1] ?? 0;
  const all = Math.max(zone.free, ...zone.marks, needed, 1);
  const most = Math.min(all, LONGEST_BAR * Math.max(...zone.marks, needed, 1));
  const at = (kb) => (Math.min(kb, most) / most) * (WIDTH - 4) + 2;
  const parts = [];
  let from = 0;
  const part = (name, kb) => {
    if (kb > 0) parts.push(drawing("rect", { class: name, x: at(from), y: 6, height: HEIGHT - 12, width: Math.max(1, at(from + kb) - at(from)) }));
    from += Math.max(0, kb);
  };
  if (zone.usable) {
    part("usable", zone.usable[0]);
    part("maybe", zone.usable[1] - zone.usable[0]);
    part("highatomic", Math.min(zone.highatomic, zone.free - from));
    part("cma", Math.min(zone.cma, zone.free - from));
  }
  part("unusable", zone.free - from);
  const line = (kb, name) => drawing("line", { class: name, x1: at(kb), x2: at(kb), y1: name === "mark" ? 3 : 0, y2: name === "mark" ? HEIGHT - 3 : HEIGHT });
  const numbers = [
    `${kilobytes(zone.free)} free`,
    ...(zone.usable ? [zone.usable[0] === zone.usable[1] ? `${whole.format(zone.usable[0])} usable` : `${whole.format(zone.usable[0])} to ${whole.format(zone.usable[1])} usable`] : []),
    ...["min", "low", "high"].map((name, i) => `${name} ${whole.format(zone.marks[i])}`),
    ...(zone.needed ? [`more than ${whole.format(needed)} needed`] : []),
    ...(most < all ? [`the bar ends at ${kilobytes(Math.round(most))}`] : []),
  ].join(" · ");
  return element(
    "div",
    { class: `zone ${zone.kind}` },
    element("p", {}, zone.zone, " ", element("span", { class: `badge ${zone.kind}` }, `${zone.verdict}${zone.certain ? "" : " ?"}`)),
    drawing(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${zone.zone}: ${numbers}` },
      drawing("rect", { class: "bar-whole", x: 0, y: 11, width: WIDTH, height: 4 }),
      parts,
      zone.marks.map((kb) => line(kb, "mark")),
      zone.needed ? [line(needed, "needed")] : [],
    ),
    element("p", { class: "numbers" }, numbers),
  );
}

function zoneBars(zones) {
  const shown = [
    ["usable", "free, usable for this request"],
    ["maybe", "perhaps usable"],
    ["highatomic", "kept for high-order atomic requests"],
    ["cma", "CMA areas"],
    ["unusable", "free, not usable for it"],
    ["mark", "min, low and high watermark"],
    ["needed", "needed: more than this"],
  ];
  return [
    element("h3", {}, "zones against watermarks, each on its own scale"),
    element("ul", { class: "legend" }, shown.map(([name, text]) => element("li", {}, element("span", { class: `swatch ${name}` }), text))),
    ...zones.map(zoneBar),
  ];
}

const listed = (heading, items) =>
  items.length ? [element("h3", {}, heading), element("ul", { class: "steps" }, items.map((text) => element("li", {}, breakable(text))))] : [];

function fillGroup(details, group) {
  if (!details.open || details.children.length > 1) return;
  const [first, last] = group.times;
  details.append(
    fields([
      ["log", group.count === 1 ? `${group.log}, line ${group.line}` : `${group.log}, ${many(group.count, "failure")} in lines ${group.lines[0]} to ${group.lines.at(-1)}`],
      ...(first ? [["time", first === last ? first : `${first} to ${last}`]] : []),
      ["kernel", group.kernel ?? "unknown"],
      ["task", group.comm || "unknown"],
      ["certainty", group.sure],
    ]),
    element("h3", {}, "answers"),
    fields(group.answers.map(([question, text], i) => [question === group.answers[i - 1]?.[0] ? "" : question, text])),
    ...(group.picture.length ? zoneBars(group.picture) : []),
    ...listed(
      "why, zone by zone",
      group.zones.map((zone) => `node ${zone.node} ${zone.zone}: ${zone.why}`),
    ),
    ...listed(
      "any one of these would have let it pass (this is no advice)",
      group.remedies.map((remedy) => remedy.text),
    ),
    ...tasksOf(group),
    ...listed("what the log shows besides", group.further),
    ...listed("what the log does not show", group.unless),
    ...listed("what the log lacks", group.missing),
    ...listed("the log contradicts itself", group.contradictions),
  );
}

function tasksOf(group) {
  if (!group.tasks.length) return [];
  const more = group.more_tasks ? `, the largest of ${whole.format(group.tasks.length + group.more_tasks)}` : "";
  return [
    element("h3", {}, "tasks"),
    element("div", { class: "scrolled bounded", tabindex: 0, role: "region", "aria-label": `Tasks of ${group.comm || "unknown"} in line ${group.line} of ${group.log}` }, sortable(`${many(group.tasks.length, "task")}${more}; a heading sorts them`, TASKS, group.tasks, BY_SIZE)),
  ];
}

function groupItem(group, open = false) {
  return element(
    "li",
    { class: "request" },
    element(
      "details",
      { open, ontoggle: (event) => fillGroup(event.currentTarget, group) },
      element(
        "summary",
        {},
        element("span", { class: "what" }, breakable(group.summary)),
        element("span", { class: "many" }, group.count === 1 ? group.log : `${whole.format(group.count)} × ${group.log}`),
        element("span", { class: "badge failed" }, group.what),
      ),
    ),
  );
}

const kernels = [...new Set(data.groups.map((group) => group.kernel).filter(Boolean))];
find("#kernel").textContent =
  `${many(data.failures, "failure")} in ${many(data.logs, "log")}` +
  (kernels.length ? `; Linux ${kernels.slice(0, 3).join(", ")}${kernels.length > 3 ? ` and ${kernels.length - 3} more` : ""}` : "");
find("#kinds .scrolled").replaceChildren(sortable("by kind, order, caller and kernel; a heading sorts them", KINDS, data.kinds, 0));
if (data.beyond) {
  find("#notices").replaceChildren(
    element("p", { class: "notice" }, `Not on this page: ${many(data.beyond, "failure")} of further groups. kalloctrace explain --json has them all.`),
  );
}
const only = data.groups.length === 1;
find("#failures .list").replaceChildren(...growing(data.groups, (group) => groupItem(group, only), FIRST_GROUPS, "groups"));
document.documentElement.dataset.ready = "";

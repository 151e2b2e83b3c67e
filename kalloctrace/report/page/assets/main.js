// SPDX-License-Identifier: MIT
// Creates the controls and draws the page.
"use strict";

const MOST_OPTIONS = 1000;

/** Sets one filter or choice, from a row of a table, a chip or a control. */
function choose(name, value) {
  state[name] = value;
  writeHash();
  draw();
}

function draw() {
  const at = focused();
  selected = select();
  syncControls();
  drawSelected();
  drawFindings();
  drawFailures();
  drawTime();
  drawTables();
  drawCallers();
  drawRequests();
  refocus(at);
}

/** Returns which button has the focus, because redrawing replaces tables. */
function focused() {
  const button = document.activeElement?.closest("button.pick, button.chip");
  const section = button?.closest("section");
  return section ? { section, text: button.textContent, caption: button.closest("table")?.caption.textContent } : null;
}

function refocus(at) {
  if (!at || document.contains(document.activeElement?.closest("button.pick"))) return;
  const buttons = [...at.section.querySelectorAll("button.pick")].filter((one) => one.textContent === at.text);
  const same = buttons.find((one) => one.closest("table")?.caption.textContent === at.caption);
  (same ?? buttons[0])?.focus({ preventScroll: true });
}

function optionsOf(name) {
  const option = (value, text) => element("option", { value }, text);
  const values = data.values[name];
  const sums =
    name === "comm"
      ? sumCells(data.time, selected.time, (i) => data.time.comm[i])
      : sumRows((row) => data.rows[name][row]);
  const listed = ranked(sums).slice(0, MOST_OPTIONS);
  const numeric = ["order", "node", "zone"].includes(name);
  if (numeric) listed.sort(([a], [b]) => compareValues(values[a], values[b]));
  const made = listed.map(([index, { calls }]) => option(key(values[index]), `${label(values[index])} (${short.format(calls)})`));
  const left = sums.size - listed.length;
  if (left > 0) made.push(element("option", { disabled: true }, `… and ${whole.format(left)} rarer ones`));
  if (!values[0]?.bits) return made;
  const flags = ranked(sumRows((row) => valueOf(name, row).bits));
  return [
    element("optgroup", { label: "with the flag" }, flags.map(([flag, { calls }]) => option(flag, `${flag} (${short.format(calls)})`))),
    element("optgroup", { label: "exactly" }, made),
  ];
}

function makeControls() {
  const box = find("#filters .fields");
  for (const { name, label: text } of FILTERS) {
    box.append(
      element(
        "label",
        {},
        text,
        element(
          "select",
          { id: `filter-${name}`, onchange: (event) => choose(name, event.currentTarget.value) },
          element("option", { value: "" }, "any"),
          optionsOf(name),
        ),
      ),
    );
  }
  box.append(choice("weight", "weight", { allocations: "allocations", pages: "pages" }));
  const splits = Object.fromEntries(CHOICES.split.map((name) => [name, FILTERS.find((filter) => filter.name === name).label]));
  if (!data.aggregate) find("#time .controls").append(choice("split", "split by", splits));
  find("#callers .controls").append(
    choice("from", "read", { outermost: "from the kernel entry", innermost: "from the page allocator" }),
  );
  find("#filters").addEventListener("reset", (event) => {
    event.preventDefault();
    for (const { name } of FILTERS) state[name] = "";
    writeHash();
    draw();
  });
  find("#filters").addEventListener("submit", (event) => event.preventDefault());
  find("#filters details").open = matchMedia("(min-width: 60rem)").matches;
  find("#theme").addEventListener("click", () => {
    choose("theme", CHOICES.theme[(CHOICES.theme.indexOf(state.theme) + 1) % CHOICES.theme.length]);
  });
  find("#download").addEventListener("click", download);
  for (const heading of document.querySelectorAll("section > h2")) {
    find("nav").append(element("a", { href: `#${heading.parentElement.id}` }, heading.textContent));
  }
}

function choice(name, text, options) {
  return element(
    "label",
    {},
    text,
    element(
      "select",
      { id: `choice-${name}`, onchange: (event) => choose(name, event.currentTarget.value) },
      Object.entries(options).map(([value, shown]) => element("option", { value }, shown)),
    ),
  );
}

/** Shows the state in each control; a value without an option, as in a link from another trace, gets one. */
function syncControls() {
  for (const { name } of FILTERS) {
    const control = find(`#filter-${name}`);
    control.value = state[name];
    if (control.selectedIndex < 0) {
      control.append(element("option", { value: state[name] }, state[name]));
      control.value = state[name];
    }
  }
  for (const name of ["weight", "split", "from"]) {
    const control = find(`#choice-${name}`);
    if (control) control.value = state[name];
  }
  find("#theme").textContent = `Theme: ${state.theme}`;
  if (state.theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = state.theme;
}

function download() {
  const file = URL.createObjectURL(new Blob([find("#data").textContent], { type: "application/json" }));
  const link = element("a", { href: file, download: `${data.trace.split("/").pop()}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(file), 1000);
}

/** Redraws what depends on the width, after resizing ends. */
function followWidth() {
  let width = window.innerWidth;
  let waiting = null;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      drawTime();
      drawCallers();
      drawDurations();
    }, 100);
  });
}

/** Keeps the headings that links lead to below the filters, which stay on top and change their height. */
function keepHeadingsVisible() {
  const filters = find("#filters");
  new ResizeObserver(() => {
    document.documentElement.style.setProperty("--filters-height", `${filters.offsetHeight}px`);
  }).observe(filters);
}

readHash();
const fact = (name) => data.header.find(([one]) => one === name)?.[1] ?? "";
const filtersOfHash = { ...state };
for (const { name } of FILTERS) state[name] = "";
selected = select();
const wholeTotal = total();
find("#trace").textContent = data.trace.split("/").pop();
find("#kernel").textContent = `Page allocations on Linux ${data.kernel}; ${fact("recorded")}`;
if (fact("command")) find("#command").append("while ", element("code", {}, fact("command")), " ran");
// Where there are stacks, who allocates is the main question.
if (data.callers) find("#time").before(find("#callers"));
makeControls();
Object.assign(state, filtersOfHash);
drawOverview();
drawSlowMismatches();
drawSlowPath();
drawDurations();
drawLegend();
draw();
followWidth();
keepHeadingsVisible();
window.addEventListener("hashchange", () => {
  // A link to a section contains no choices; keep the present ones.
  if (location.hash.includes("=") || location.hash.length < 2) {
    readHash();
    draw();
  } else writeHash();
});
document.documentElement.dataset.ready = "";

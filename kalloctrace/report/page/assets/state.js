// SPDX-License-Identifier: MIT
// The data, the filters, and the sums of the rows that pass them. The filters are stored in the URL's hash.
"use strict";

const data = JSON.parse(find("#data").textContent);
const rowCount = data.rows.pages.length;
const mark = data.sample > 1 ? "~" : "";

const FILTERS = [
  { name: "comm", label: "task" },
  { name: "gfp", label: "gfp mask or flag" },
  { name: "order", label: "order" },
  { name: "node", label: "preferred node" },
  { name: "zone", label: "preferred zone" },
  { name: "migratetype", label: "migratetype" },
  { name: "alloc_flags", label: "alloc_flags" },
  { name: "context", label: "context" },
  { name: "outcome", label: "outcome" },
  { name: "verdict", label: "verdict" },
].filter(({ name }) => !(name === "comm" && data.aggregate));

const CHOICES = {
  weight: ["allocations", "pages"],
  split: ["order", "migratetype", "zone", "node", "outcome", "verdict", "comm"].filter(
    (name) => !(name === "comm" && data.aggregate),
  ),
  from: ["outermost", "innermost"],
  theme: ["auto", "light", "dark"],
};

/** The present choices: a text for each filter ("" for any), and one of CHOICES for the others. */
const state = {};

function readHash() {
  const hash = new URLSearchParams(location.hash.slice(1));
  for (const { name } of FILTERS) state[name] = hash.get(name) ?? "";
  for (const [name, choices] of Object.entries(CHOICES)) {
    state[name] = choices.includes(hash.get(name)) ? hash.get(name) : choices[0];
  }
}

function writeHash() {
  const hash = new URLSearchParams();
  for (const { name } of FILTERS) if (state[name]) hash.set(name, state[name]);
  for (const [name, choices] of Object.entries(CHOICES)) if (state[name] !== choices[0]) hash.set(name, state[name]);
  history.replaceState(null, "", `#${hash}`);
}

/** Returns the name of a value in filters and in the hash; masks use their number. */
function key(value) {
  if (value === null || typeof value !== "object") return String(value);
  return value.value === null ? value.text : `0x${value.value.toString(16)}`;
}

const label = (value) => (value !== null && typeof value === "object" ? value.text : String(value));

/** Returns, for each value of a column, whether it passes the column's filter. A mask also passes by one of its flags. */
function passing(name) {
  const chosen = state[name];
  return data.values[name].map((value) => !chosen || key(value) === chosen || (value?.bits?.includes(chosen) ?? false));
}

/** Applies the filters: returns the calls of each row, and the cells that pass. */
function select() {
  const passes = new Uint8Array(rowCount).fill(1);
  for (const { name } of FILTERS) {
    if (name === "comm" || !state[name]) continue;
    const good = passing(name);
    const column = data.rows[name];
    for (let i = 0; i < rowCount; i++) if (!good[column[i]]) passes[i] = 0;
  }
  const comms = passing("comm");
  const cells = (of) => {
    const chosen = [];
    if (of) for (let i = 0; i < of.row.length; i++) if (passes[of.row[i]] && comms[of.comm[i]]) chosen.push(i);
    return chosen;
  };
  const calls = new Float64Array(rowCount);
  const time = cells(data.time);
  for (const i of time) calls[data.time.row[i]] += data.time.count[i] * data.sample;
  return { calls, time, callers: cells(data.callers), groups: cells(data.groups) };
}

let selected = null;

const amount = (calls = 0, pages = 0) => ({ calls, pages });
const weightOf = (one) => (state.weight === "pages" ? one.pages : one.calls);

/** Adds up calls by the key that 'keyOf' returns for a row; a list of keys counts for each. */
function sumRows(keyOf) {
  const sums = new Map();
  for (let row = 0; row < rowCount; row++) {
    const calls = selected.calls[row];
    if (!calls) continue;
    for (const one of [keyOf(row)].flat()) add(sums, one, calls, calls * data.rows.pages[row]);
  }
  return sums;
}

/** Does the same for cells of the time or the callers. */
function sumCells(of, chosen, keyOf) {
  const sums = new Map();
  for (const i of chosen) {
    const calls = of.count[i] * data.sample;
    add(sums, keyOf(i), calls, calls * data.rows.pages[of.row[i]]);
  }
  return sums;
}

function add(sums, name, calls, pages) {
  const sum = sums.get(name);
  if (sum) {
    sum.calls += calls;
    sum.pages += pages;
  } else sums.set(name, amount(calls, pages));
}

function total() {
  const all = amount();
  for (let row = 0; row < rowCount; row++) {
    all.calls += selected.calls[row];
    all.pages += selected.calls[row] * data.rows.pages[row];
  }
  return all;
}

/** Returns the largest first. */
function ranked(sums) {
  return [...sums].sort(([, a], [, b]) => weightOf(b) - weightOf(a) || b.calls - a.calls);
}

const valueOf = (name, row) => data.values[name][data.rows[name][row]];
const count = (number) => mark + whole.format(number);
const memory = (pages) => `${mark}${kilobytes((pages * data.page_size) / 2 ** 10)}`;
/** Says why a list of allocations is empty. */
const nothing = () => note(rowCount ? "No allocation passes the filters." : "No allocations were recorded.");
const amountText = (calls, pages) => `${several(calls, "allocation")}, ${several(pages, "page")}`;
const several = (number, name, sampled = mark) => `${sampled}${whole.format(number)} ${name}${number === 1 ? "" : "s"}`;
const share = (part, all) => (all ? `${oneDigit.format((100 * part) / all)}%` : "0.0%");

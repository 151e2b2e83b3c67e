// SPDX-License-Identifier: MIT
// The page's tables and lists. The filters apply to all of them.
"use strict";

const FIRST_ROWS = 12;
const FIRST_ITEMS = 10;
const FIRST_OF_MISMATCH = 3;

/** A table with a bar in each row; where 'filter' names a filter, each row has a button that sets it. */
function table({ caption, heading, entries, filter, name = String, value = name }) {
  const all = total();
  const largest = entries.length ? Math.max(...entries.slice(0, FIRST_ROWS).map(([, sum]) => weightOf(sum))) : 0;
  const body = element("tbody");
  const row = ([one, sum]) =>
    element(
      "tr",
      {},
      element(
        "th",
        { scope: "row" },
        filter
          ? element(
              "button",
              {
                type: "button",
                class: "pick",
                "aria-pressed": String(state[filter] === value(one)),
                onclick: () => choose(filter, state[filter] === value(one) ? "" : value(one)),
              },
              breakable(name(one)),
            )
          : breakable(name(one)),
        element("span", { class: "meter", style: `width: ${largest ? (100 * weightOf(sum)) / largest : 0}%` }),
      ),
      element("td", {}, count(sum.calls)),
      element("td", {}, count(sum.pages)),
      element("td", { class: "wide" }, memory(sum.pages)),
      element("td", { class: "wide" }, share(weightOf(sum), weightOf(all))),
    );
  body.append(...entries.slice(0, FIRST_ROWS).map(row));
  const hidden = entries.length - FIRST_ROWS;
  const more = element(
    "button",
    {
      type: "button",
      onclick: () => {
        const next = entries.slice(body.children.length, body.children.length + 200);
        body.append(...next.map(row));
        more.hidden = body.children.length === entries.length;
        more.textContent = `Show more (${whole.format(entries.length - body.children.length)})`;
      },
      hidden: hidden <= 0,
    },
    `Show more (${whole.format(hidden)})`,
  );
  return element(
    "div",
    { class: "tabled" },
    element(
      "table",
      {},
      element("caption", {}, caption),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          element("th", { scope: "col" }, heading),
          element("th", { scope: "col" }, "allocations"),
          element("th", { scope: "col" }, "pages"),
          element("th", { scope: "col", class: "wide" }, "kB"),
          element("th", { scope: "col", class: "wide" }, "share"),
        ),
      ),
      body,
    ),
    entries.length ? null : all.calls ? note(`None of these allocations has a ${heading}.`) : nothing(),
    more,
  );
}

/** Allocations by one column. */
function breakdown(name, caption, heading) {
  const sums = sumRows((row) => data.rows[name][row]);
  return table({
    caption,
    heading,
    entries: ranked(sums),
    filter: FILTERS.some((filter) => filter.name === name) ? name : undefined,
    name: (index) => label(data.values[name][index]),
    value: (index) => key(data.values[name][index]),
  });
}

/** Allocations by flag; an allocation counts for each flag of its mask. */
function flagTable(name, caption) {
  const sums = sumRows((row) => valueOf(name, row).bits);
  return table({ caption, heading: "flag", entries: ranked(sums), filter: name });
}

/** Two columns against each other; cells are shaded relative to the largest. */
function matrix(down, across, caption, names) {
  const sums = sumRows((row) => `${data.rows[down][row]} ${data.rows[across][row]}`);
  const largest = d3.max([...sums.values()], weightOf) ?? 0;
  const present = (name, place) => {
    const indices = new Set([...sums.keys()].map((pair) => Number(pair.split(" ")[place])));
    return [...indices].sort((a, b) => compareValues(data.values[name][a], data.values[name][b]));
  };
  const [downs, acrosses] = [present(down, 0), present(across, 1)];
  const pick = (name, index) => {
    const value = key(data.values[name][index]);
    return element(
      "button",
      {
        type: "button",
        class: "pick",
        "aria-pressed": String(state[name] === value),
        onclick: () => choose(name, state[name] === value ? "" : value),
      },
      breakable(label(data.values[name][index])),
    );
  };
  const cell = (i, j) => {
    const sum = sums.get(`${i} ${j}`);
    if (!sum) return element("td", { class: "nothing" }, "·");
    const depth = largest ? Math.sqrt(weightOf(sum) / largest) : 0;
    const title = `${amountText(sum.calls, sum.pages)}, ${memory(sum.pages)}`;
    return element("td", { style: `--depth: ${Math.round(100 * depth)}%`, title }, mark + short.format(weightOf(sum)));
  };
  return element(
    "div",
    { class: "tabled" },
    element(
      "table",
      { class: "matrix" },
      element("caption", {}, `${caption}, ${state.weight}`),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          element("th", { scope: "col" }, `${names[0]} \\ ${names[1]}`),
          acrosses.map((j) => element("th", { scope: "col" }, pick(across, j))),
        ),
      ),
      element(
        "tbody",
        {},
        downs.map((i) => element("tr", {}, element("th", { scope: "row" }, pick(down, i)), acrosses.map((j) => cell(i, j)))),
      ),
    ),
    downs.length ? null : nothing(),
  );
}

const ZONES = ["DMA", "DMA32", "Normal", "HighMem", "Movable", "Device"];

/** Numbers in numeric order, zones in order of address, a missing value last. */
function compareValues(a, b) {
  const place = (value) => {
    if (value === data.missing) return [2, 0];
    const zone = ZONES.indexOf(value);
    return [0, typeof value === "number" ? value : zone >= 0 ? zone : Number.NaN];
  };
  const [[groupA, placeA], [groupB, placeB]] = [place(a), place(b)];
  if (groupA !== groupB) return groupA - groupB;
  return Number.isNaN(placeA) || Number.isNaN(placeB) ? label(a).localeCompare(label(b)) : placeA - placeB;
}

/** One distinct request: a line that expands to its explanation. */
function request(row) {
  const calls = selected.calls[row];
  const pages = calls * data.rows.pages[row];
  const [verdict, outcome, entry] = [valueOf("verdict", row), valueOf("outcome", row), valueOf("entry", row)];
  const badges = [
    verdict === "matched" ? null : verdict,
    outcome === "failed" || outcome === "rejected" ? outcome : null,
    entry === "normal" ? null : entry,
  ].filter(Boolean);
  return element(
    "li",
    { class: "request" },
    element(
      "details",
      { ontoggle: (event) => explain(event.currentTarget, row) },
      element(
        "summary",
        {},
        element(
          "span",
          { class: "what" },
          element("code", {}, breakable(valueOf("gfp", row).text)),
          ` order ${valueOf("order", row)}, node ${valueOf("nid", row)}`,
          data.apart[row] === undefined ? null : element("span", { class: "apart" }, breakable(data.texts[data.apart[row]])),
        ),
        element("span", { class: "many" }, amountText(calls, pages)),
        badges.map((badge) => element("span", { class: `badge ${badge}` }, badge)),
      ),
    ),
  );
}

/** All requests with the same differences, which are shown without expanding a request. */
function mismatch([kind, rows]) {
  const calls = d3.sum(rows, (row) => selected.calls[row]);
  const pages = d3.sum(rows, (row) => selected.calls[row] * data.rows.pages[row]);
  return element(
    "li",
    { class: "mismatch" },
    data.differences[kind].map(difference),
    element("p", {}, `${amountText(calls, pages)} in ${several(rows.length, "distinct request", "")}:`),
    growing(rows, request, FIRST_OF_MISMATCH, "requests"),
  );
}

/** Returns the distinct lists of differences with their rows, most allocations first. */
function alike(rows) {
  const kinds = d3.groups(rows, (row) => data.differs[row]);
  return d3.sort(kinds, ([, of]) => -d3.sum(of, (row) => selected.calls[row]));
}

function difference(numbers) {
  const [field, expected, observed, rule, effect] = numbers.map((number) => data.texts[number]);
  return element(
    "div",
    { class: "difference" },
    element("h3", {}, `${field} differs`),
    fields([
      ["expected", expected],
      ["observed", observed],
      ["rule", effect ? `${rule}: ${effect}` : rule],
    ]),
  );
}

/** Fills a request's details when they are first expanded. */
function explain(details, row) {
  if (!details.open || details.children.length > 1) return;
  const sections = data.explained[row];
  const known = data.unknown[row];
  // In the list of mismatches the differences are already shown.
  const shown = details.closest(".mismatch");
  details.append(
    element("h3", {}, "what the kernel did"),
    ...(shown || data.differs[row] === undefined ? [] : data.differences[data.differs[row]].map(difference)),
    fields([
      ["alloc_flags", valueOf("alloc_flags", row).text],
      ["preferred zone", zoneText(row)],
      ["migratetype", valueOf("migratetype", row)],
      ["outcome", OUTCOMES[valueOf("outcome", row)]],
      ...(known === undefined ? [] : [["unknown", data.texts[known]]]),
    ]),
    ...(sections ?? []).map(([heading, pairs], i) =>
      element(
        "div",
        {},
        element("h3", {}, data.texts[heading]),
        i === 1 ? steps(pairs) : fields(pairs.map((pair) => pair.map((number) => data.texts[number]))),
      ),
    ),
  );
  if (!sections) details.append(note(notExplained(row)));
}

const OUTCOMES = {
  page: "returned a page",
  failed: "returned NULL",
  rejected: "rejected: get_page_from_freelist was not called",
  "not traced": "the return was not traced",
};

function zoneText(row) {
  const [node, zone] = [valueOf("node", row), valueOf("zone", row)];
  return typeof node === "number" ? `${zone} of node ${node}` : node;
}

const steps = (pairs) =>
  element(
    "ol",
    { class: "steps" },
    pairs.map(([name, text]) => element("li", {}, element("code", {}, data.texts[name]), " ", breakable(data.texts[text]))),
  );

function notExplained(row) {
  const [gfp, order, nid] = [valueOf("gfp", row).value, valueOf("order", row), valueOf("nid", row)];
  return (
    `This page explains ${whole.format(data.limits.explained)} requests: the first and the most frequent ones. For this one, run kalloctrace explain ` +
    `--kernel TRACE --gfp 0x${gfp.toString(16)} --order ${order} --nid ${nid}`
  );
}

/** Rows that pass the filters, in the order of the data: mismatches, failures, then the most frequent. */
function rowsWhere(good) {
  const rows = [];
  for (let row = 0; row < rowCount; row++) if (selected.calls[row] && good(row)) rows.push(row);
  return rows;
}

function drawOverview() {
  const judged = data.verification;
  const verdict = find("#verdict");
  const slow = judged.slow ?? { mismatches: [], unknown: 0, calls_unknown: 0 };
  const wrong = judged.mismatched || judged.zonelists.mismatches.length || slow.mismatches.length;
  const open = judged.unknown || slow.unknown || slow.calls_unknown;
  const count = (name, number) =>
    number === null
      ? element("span", { class: "zero" }, `${name} not known`)
      : element("span", { class: number ? name : "zero" }, element("strong", {}, whole.format(number)), ` ${name}`);
  verdict.className = `verdict ${wrong ? "mismatched" : open ? "unknown" : "matched"}`;
  verdict.replaceChildren(
    ...["matched", "mismatched", "unknown"].map((name) => count(name, judged[name])),
    // The recorder's counts are at the end of the recording.
    ...["lost", "missed"].map((name) => count(name, data.truncated ? null : judged[name])),
  );
  find("#headline").replaceChildren(...data.headline.map(([tone, text]) => element("li", { class: tone }, text)));
  find("#notices").replaceChildren(...notices().map((text) => element("p", { class: "notice" }, text)));
  find("#recording .two").replaceChildren(
    element("dl", { class: "fields" }, data.header.map(([name, text]) => [element("dt", {}, name), element("dd", {}, text)])),
    element(
      "table",
      {},
      element("caption", {}, "Totals"),
      element(
        "tbody",
        {},
        data.totals.map(([name, number, about]) =>
          element(
            "tr",
            {},
            element("th", { scope: "row" }, name),
            element("td", {}, number === null ? "not known" : whole.format(number)),
            element("td", { class: "about" }, about),
          ),
        ),
      ),
    ),
  );
}

function notices() {
  const { rest, limits, sample } = data;
  const texts = [];
  const left = ({ count: calls, pages }) => amountText(calls * sample, pages * sample);
  if (data.truncated) {
    const why = data.damage ? ` (${data.damage})` : "";
    texts.push(`The end of the recording is missing${why}: this page covers all complete batches.`);
  }
  if (sample > 1) {
    texts.push(
      `1 call in ${whole.format(sample)} was recorded. Numbers with ~ are estimates: the recorded number times ` +
        `${whole.format(sample)}. The verdict above counts only the recorded calls.`,
    );
  }
  if (rest.rows.rows) {
    texts.push(
      `This page holds the first ${whole.format(limits.rows)} distinct requests: mismatches, failures, then the most ` +
        `frequent. It leaves out ${whole.format(rest.rows.rows)} others (${left(rest.rows)}).`,
    );
  }
  if (rest.cells.cells) {
    texts.push(
      `Tables and charts leave out the ${whole.format(rest.cells.cells)} smallest groups of a request and a task, ` +
        `beyond the limit of this page (${left(rest.cells)}).`,
    );
  }
  if (rest.stacks.cells) {
    texts.push(
      `Callers show the stacks of the ${whole.format(rest.stacks.cells)} smallest groups of a request, a task and a ` +
        `stack as "(other stacks)" (${left(rest.stacks)}).`,
    );
  }
  if (rest.groups.cells) {
    texts.push(
      `Control groups leave out ${many(rest.groups.cells, "group")} of a request and a task (${left(rest.groups)}).`,
    );
  }
  if (rest.callers.cells) {
    texts.push(
      `Callers leave out ${many(rest.callers.cells, "group")} of a request and a task (${left(rest.callers)}).`,
    );
  }
  return texts;
}

function drawSelected() {
  const [part, all] = [total(), wholeTotal];
  find("#selected").textContent =
    part.calls === all.calls
      ? `${all.calls === 1 ? "The only allocation" : `All ${count(all.calls)} allocations`}: ${mark}${many(all.pages, "page")}, ${memory(all.pages)}`
      : `${count(part.calls)} of ${mark}${many(all.calls, "allocation")} (${share(part.calls, all.calls)}): ${mark}${many(part.pages, "page")}, ${memory(part.pages)}`;
  const active = FILTERS.filter(({ name }) => state[name]);
  find("#filters-title").textContent = active.length ? `Filters (${active.length})` : "Filters";
  find("#reset").disabled = !active.length;
  find("#chips").replaceChildren(
    ...active.map((filter) =>
      element(
        "button",
        { type: "button", class: "chip", onclick: () => choose(filter.name, ""), "aria-label": `Remove filter: ${filter.label} ${state[filter.name]}` },
        `${filter.label}: ${state[filter.name]} ×`,
      ),
    ),
  );
}

function drawFindings() {
  const wrong = rowsWhere((row) => valueOf("verdict", row) === "mismatched");
  const { verification } = data;
  find("#findings .list").replaceChildren(
    ...(wrong.length
      ? growing(alike(wrong), mismatch, FIRST_ITEMS, "mismatches")
      : [
          note(
            verification.mismatched
              ? "None pass the filters."
              : !verification.allocations
                ? "None: no allocations were recorded."
                : !verification.matched
                  ? "Not known: no allocation could be judged."
                  : `None: the kernel prepared ${whole.format(verification.matched)} of ${many(verification.allocations, "allocation")} as the model predicts.`,
          ),
        ]),
  );
  const { zonelists } = verification;
  find("#zonelists").replaceChildren(
    ...zonelists.mismatches.map((one) =>
      element(
        "div",
        { class: "difference" },
        element("h3", {}, `zonelist ${one.list} differs`),
        fields([
          ["expected", one.expected],
          ["observed", one.observed],
          ["rule", one.rule],
        ]),
      ),
    ),
    note(
      zonelists.reason
        ? `Zonelists were not predicted: ${zonelists.reason}.`
        : `Zonelists of ${whole.format(zonelists.nodes)} nodes were predicted, ${whole.format(zonelists.mismatches.length)} differ.`,
    ),
    ...verification.not_judged.map(([rule, count, part]) =>
      note(`Rule ${rule} was not judged in ${many(count, "allocation")}: ${part}. It is inferred, not captured.`),
    ),
    note(`${verification.proven[0].toUpperCase()}${verification.proven.slice(1)}.`),
  );
  const reasons = sumRows((row) => (data.unknown[row] === undefined ? [] : data.texts[data.unknown[row]]));
  find("#unknown").replaceChildren(
    ...(reasons.size ? [table({ caption: "Not judged", heading: "reason", entries: ranked(reasons) })] : []),
  );
}

function drawFailures() {
  const bad = rowsWhere((row) => ["failed", "rejected"].includes(valueOf("outcome", row)));
  const untraced = {
    none: "Returns were not traced, so failures are not known: record with --mode stream --returns. Rejections are known anyway.",
    some: "Some returns were not traced: whether those calls failed is not known.",
    slow: null,
    all: null,
  }[data.returns];
  find("#failures .list").replaceChildren(
    ...(untraced && rowCount ? [note(untraced)] : []),
    ...slowFailures(),
    ...(bad.length
      ? growing(bad, request, FIRST_ITEMS, "failures")
      : [note(noFailures())]),
  );
}

function noFailures() {
  const failed = data.values.outcome.some((outcome) => ["failed", "rejected"].includes(outcome));
  const known = data.returns === "all" || data.returns === "slow";
  if (failed) return known ? "None pass the filters." : "No known ones pass the filters.";
  if (!rowCount) return "No allocations were recorded.";
  return known && !data.verification.slow?.failed
    ? `None: ${wholeTotal.calls === 1 ? "the only allocation" : `each of ${count(wholeTotal.calls)} allocations`} got its pages.`
    : "No allocation was rejected before the page allocator looked for pages.";
}

// Slow-path calls are not rows, so filters do not apply to them.
function slowFailures() {
  const { slow } = data.verification;
  if (!slow?.failed) return [];
  const text = `${several(slow.failed, "call", "")} of the slow path failed (filters do not apply). For the causes see `;
  return [element("p", {}, text, element("a", { href: "#slowpath" }, "the slow path"), ".")];
}

function drawTables() {
  find("#shape-tables").replaceChildren(
    matrix("order", "migratetype", "order × migratetype", ["order", "type"]),
    matrix("node", "zone", "preferred node × zone", ["node", "zone"]),
    breakdown("alloc_flags", "alloc_flags of the first attempt", "alloc_flags"),
    breakdown("outcome", "Outcomes", "outcome"),
  );
  find("#flag-tables").replaceChildren(
    breakdown("gfp", data.events ? "gfp masks after the kernel changed them" : "gfp masks passed by callers", "gfp mask"),
    flagTable("gfp", "gfp flags"),
  );
  const byTask = data.aggregate
    ? note("This trace is an aggregate without tasks. Record with --mode stream to see which tasks allocate.")
    : table({
        caption: "Tasks, by name",
        heading: "task",
        entries: ranked(sumCells(data.time, selected.time, (i) => data.time.comm[i])),
        filter: "comm",
        name: (index) => data.values.comm[index],
      });
  const byGroup = data.groups
    ? [
        table({
          caption: "Control groups and containers",
          heading: "group",
          entries: ranked(sumCells(data.groups, selected.groups, (i) => data.groups.x[i])),
          name: (index) => data.groups.names[index],
        }),
      ]
    : [];
  find("#task-tables").replaceChildren(
    byTask,
    ...byGroup,
    element("div", {}, breakdown("context", "Contexts", "context"), breakdown("entry", "Entries", "entry")),
  );
}

function drawRequests() {
  const weight = (row) => selected.calls[row] * (state.weight === "pages" ? data.rows.pages[row] : 1);
  const rows = rowsWhere(() => true).sort((a, b) => weight(b) - weight(a));
  find("#requests .list").replaceChildren(
    ...(rows.length ? growing(rows, request, FIRST_ITEMS, "requests") : [nothing()]),
  );
}

function drawLegend() {
  const legend = [
    ["pages", "of 4 kB: 2^order for each allocation that succeeded, 0 for one that failed; the requested pages where the return was not traced"],
    ["gfp mask", `${data.events ? "after the kernel changed it" : "passed by the caller"}, with the names of the recorded kernel`],
    ["alloc_flags", "of the first call of get_page_from_freelist"],
    ["preferred zone", "of ac->preferred_zoneref: where the allocator looks first; the page may come from another zone"],
    [data.missing, data.events ? "the events do not show it" : "get_page_from_freelist was not called, or no zone was eligible"],
    ["context", "softirq, hardirq and nmi interrupted the task; bh_disabled is task context with bottom halves off; captured only where the preparation depends on it"],
    ["entry", "bulk is a call of the bulk allocator; its prepared context is not visible, and its pages are the ones that the probe checked"],
    ["attempt", "a call of get_page_from_freelist in the slow path; its kind is the reason for it"],
    ["slow path", `times are since ${data.clock.event}; those of the kernel log are of CLOCK_MONOTONIC or close to it; durations are from entry to return`],
    ["verdict", "matched: the kernel did what the model predicts. mismatched: it did not. unknown: could not be judged; never a pass"],
    ["callers", "the width of a frame is its function's share, including callees; Enter or a click zooms in, arrow keys move between frames"],
    ["rule", "the rule of the model that decides; kalloctrace explain shows the same on the command line"],
  ];
  find("#legend").replaceChildren(
    ...legend.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]),
  );
}

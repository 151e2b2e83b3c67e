// SPDX-License-Identifier: MIT
// Answers about a fleet: the answer in sentences, its numbers, and tables.
"use strict";

const data = JSON.parse(find("#data").textContent);
const threeDigits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
/** How a column's values are shown; times are in nanoseconds. */
const KINDS = {
  words: { words: true },
  number: {},
  milliseconds: { shown: (ns) => oneDigit.format(ns / 1e6) },
  "precise milliseconds": { shown: (ns) => threeDigits.format(ns / 1e6) },
  percent: { shown: (share) => threeDigits.format(100 * share) },
  ratio: { shown: (ratio) => ratio.toFixed(2) },
};

function section({ heading, lead, columns, rows, sorted, beyond }, number) {
  const id = `h-table-${number}`;
  return element(
    "section",
    { "aria-labelledby": id },
    element("h2", { id }, heading),
    element("p", { class: "lead" }, lead),
    beyond ? element("p", { class: "notice" }, beyond) : null,
    rows.length
      ? element(
          "div",
          { class: "scrolled", tabindex: 0, role: "region", "aria-label": `Table: ${heading}` },
          sortable(`${many(rows.length, "row")}; a heading sorts them`, columns.map(([name, kind]) => ({ name, ...KINDS[kind] })), rows, sorted),
        )
      : element("p", {}, "none"),
  );
}

find("h1").textContent = data.heading;
find("#kernel").textContent = data.about;
find("#headline").replaceChildren(...data.headline.map(([kind, text]) => element("li", { class: kind }, breakable(text))));
find("#numbers").replaceChildren(fields(data.numbers.map(([name, number]) => [name, whole.format(number)])));
find("#tables").replaceChildren(...data.tables.map(section));
document.documentElement.dataset.ready = "";

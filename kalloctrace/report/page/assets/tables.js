// SPDX-License-Identifier: MIT
// Tables whose headings sort them.
"use strict";

/** A table whose headings sort it; a column is a name, whether it holds words, and how a value is shown. Columns without any value are left out. */
function sortable(caption, everyColumn, everyRow, sortedBy) {
  const used = everyColumn.map((_, i) => i).filter((i) => everyRow.some((row) => row[i] !== null && row[i] !== ""));
  const columns = used.map((i) => everyColumn[i]);
  const rows = everyRow.map((row) => used.map((i) => row[i]));
  const body = element("tbody");
  const heads = columns.map(({ name, words }, i) =>
    element("th", { scope: "col", class: words ? "word" : null }, element("button", { type: "button", class: "sort", onclick: () => sort(i) }, name)),
  );
  let [by, down] = [used.indexOf(sortedBy), true];
  function compare(a, b) {
    // What is not known comes last.
    if (a === null || b === null) return (a === null) - (b === null);
    const difference = typeof a === "number" ? a - b : a.localeCompare(b);
    return down ? -difference : difference;
  }
  function sort(i) {
    [by, down] = [i, i === by ? !down : !columns[i].words];
    draw();
  }
  function draw() {
    heads.forEach((head, i) => {
      if (i === by) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const show = (value, { words, shown = whole.format }) => (value === null || value === "" ? "–" : words ? breakable(value) : shown(value));
    const cell = (value, column, i) =>
      i ? element("td", { class: column.words ? "word" : null }, show(value, column)) : element("th", { scope: "row" }, show(value, column));
    body.replaceChildren(
      ...[...rows].sort((a, b) => compare(a[by], b[by])).map((row) => element("tr", {}, row.map((value, i) => cell(value, columns[i], i)))),
    );
  }
  draw();
  return element("table", { class: "sortable" }, element("caption", {}, caption), element("thead", {}, element("tr", {}, heads)), body);
}

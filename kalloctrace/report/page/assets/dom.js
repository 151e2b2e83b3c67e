// SPDX-License-Identifier: MIT
// Elements and numbers. Texts become text nodes, never markup, because a trace may contain any text.
"use strict";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
/** Returns a number of things, which are named in the singular. */
const many = (number, name) => `${whole.format(number)} ${name}${number === 1 ? "" : "s"}`;
const oneDigit = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** Creates an element: attributes, "on…" listeners, then children (elements, texts, or nothing). */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

const find = (selector) => document.querySelector(selector);

/** Returns a mask that may break after a flag, but not inside one. */
function breakable(text) {
  const made = document.createElement("span");
  text.split(/(?<=[|])/).forEach((part, i) => {
    if (i) made.append(document.createElement("wbr"));
    made.append(part);
  });
  return made;
}

const note = (...children) => element("p", { class: "note" }, children);

const fields = (pairs) =>
  element(
    "dl",
    { class: "fields" },
    pairs.map(([name, text]) => [element("dt", {}, breakable(name)), element("dd", {}, breakable(text))]),
  );

const kilobytes = (number) => `${whole.format(number)} kB`;

/** Returns a list with a button that shows more items; 'make' is called for shown items only. */
function growing(items, make, first, name) {
  const list = element("ol", { class: "items" });
  let shown = 0;
  const more = element("button", { type: "button", onclick: () => grow(10 * first) });
  function grow(by) {
    const focus = shown;
    list.append(...items.slice(shown, shown + by).map(make));
    shown = Math.min(shown + by, items.length);
    more.textContent = `Show more ${name} (${whole.format(items.length - shown)})`;
    more.hidden = shown === items.length;
    if (focus) list.children[focus]?.querySelector("summary, button")?.focus();
  }
  grow(first);
  return [list, more];
}

// SPDX-License-Identifier: MIT
// The slow path, by whole calls. Filters do not apply to them.
"use strict";

const FIRST_ATTEMPTS = 10;
const threeDigits = new Intl.NumberFormat("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 });

const seconds = (time) => `${((time - data.clock.began) / 1e9).toFixed(6)} s`;
const kernelSeconds = (time) => `${(time / 1e9).toFixed(6)} s`;
/** Returns the time by the wall clock, as a journal has it, as the rest of a sentence. */
function wallTime(time) {
  if (data.clock.wall === null) return "";
  const moment = new Date(Date.parse(data.clock.wall) + (time - data.clock.began) / 1e6);
  return `, about ${moment.toISOString().slice(0, 19)}+00:00 in a journal`;
}

const milliseconds = (time) => `${threeDigits.format(time / 1e6)} ms`;
const texts = (numbers) => numbers.map((number) => data.texts[number]);

/** Shows the mismatches of the slow path among the others. */
function drawSlowMismatches() {
  const { slow } = data.verification;
  if (!slow) return;
  find("#slow").replaceChildren(
    ...slow.mismatches.map((one) =>
      element(
        "div",
        { class: "difference" },
        element("h3", {}, `slow path, ${one.step}: ${one.field} differs`),
        fields(["expected", "observed", "rule", "request"].map((name) => [name, one[name]])),
      ),
    ),
    ...(slow.hidden ? [note(`${whole.format(slow.hidden)} more mismatches: kalloctrace verify --json has all.`)] : []),
    note(
      `${whole.format(slow.mismatched)} of ${whole.format(slow.attempts)} attempts in the slow path differ (filters do not apply): `,
      element("a", { href: "#slowpath" }, "the slow path"),
      ".",
    ),
  );
}

function drawSlowPath() {
  find("#slowpath .list").replaceChildren(...slowPath());
}

function slowPath() {
  const { slow, verification } = data;
  if (!slow) return [note("The slow path was not recorded, so the causes of slow or failed allocations are not known.")];
  const damage = slow.damage ? [element("p", { class: "notice" }, `Calls are missing: ${slow.damage}.`)] : [];
  if (!verification.slow.calls) return [...damage, note(`No slow-path calls were recorded. Lost events: ${lostEvents()}.`)];
  return [
    ...damage,
    element("div", { class: "columns" }, slowNumbers(), slowKinds()),
    element("h3", {}, "How long the calls took"),
    element("div", { id: "durations" }),
    element("h3", {}, "Failed calls"),
    ...failedCalls(),
    element("h3", {}, "Slowest calls that got a page"),
    ...slowestCalls(),
  ];
}

const lostEvents = () => (data.truncated ? "not known" : whole.format(data.verification.slow.lost));

function slowNumbers() {
  const { slow } = data.verification;
  const lines = [
    ["calls", whole.format(slow.calls)],
    ["outcomes", `${whole.format(slow.failed)} failed; return not traced for ${whole.format(data.slow.unseen)}`],
    ["verdicts on calls", `${whole.format(slow.calls_mismatched)} mismatched, ${whole.format(slow.calls_unknown)} unknown`],
    ["attempts", whole.format(slow.attempts)],
    ["verdicts on attempts", ["matched", "mismatched", "unknown"].map((name) => `${whole.format(slow[name])} ${name}`).join(", ")],
    ["lost events", lostEvents()],
    ...slow.reasons.map(([reason, calls]) => ["unknown", `${whole.format(calls)} × ${reason}`]),
  ];
  return fields(lines);
}

function slowKinds() {
  if (!data.verification.slow.kinds.length) return note("No attempt was recorded: no call looked for pages again.");
  const heading = (text) => element("th", { scope: "col" }, text);
  return element(
    "table",
    { class: "kinds" },
    element("caption", {}, "Attempts by kind"),
    element("thead", {}, element("tr", {}, heading("kind"), heading("attempts"))),
    element(
      "tbody",
      {},
      data.verification.slow.kinds.map(([kind, number]) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, element("code", {}, KINDS[kind] ?? kind)),
          element("td", {}, whole.format(number)),
        ),
      ),
    ),
  );
}

const KINDS = { several: "one of several kinds; the trace does not show which", none: "not classified" };

function failedCalls() {
  const { failed, rest, limits, not_judged: left } = data.slow;
  if (!failed.length) return [note(`None of ${several(data.verification.slow.calls, "call", "")} is known to have failed.`)];
  return [
    ...growing(failed, failedGroup, FIRST_ITEMS, "groups"),
    ...(left
      ? [
          note(
            `The first ${whole.format(limits.judged)} are grouped by cause, the ${whole.format(left)} later ones only by request.`,
          ),
        ]
      : []),
    ...(rest.groups
      ? [
          note(
            `Not on this page: ${several(rest.groups, "more group", "")} of ${several(rest.calls, "call", "")}. ` +
              "kalloctrace report --failures has them all.",
          ),
        ]
      : []),
  ];
}

function failedGroup(group) {
  const many =
    group.calls === 1
      ? `1 call, ${seconds(group.first)}`
      : `${several(group.calls, "call", "")}, ${seconds(group.first)} to ${seconds(group.last)}`;
  return slowCall(group.slowest, {
    line: data.texts[group.line],
    many,
    badges: ["failed"],
    about:
      group.calls === 1
        ? null
        : `The slowest of ${whole.format(group.calls)} with the same ${group.judged ? "cause" : "request"}; kalloctrace report --failures --json has each.`,
  });
}

function slowestCalls() {
  const { slowest, limits } = data.slow;
  if (!slowest.length) return [note("None: no call is known to have got a page.")];
  const got = data.verification.slow.calls - data.verification.slow.failed - data.slow.unseen;
  return [
    ...growing(slowest, slowestCall, FIRST_ITEMS, "calls"),
    ...(got > slowest.length
      ? [
          note(
            `These are the ${whole.format(limits.slowest)} slowest of ${whole.format(got)}. ` +
              "kalloctrace report --failures --slower-than MS has the others.",
          ),
        ]
      : []),
  ];
}

function slowestCall(call) {
  const line = data.texts[call.headline];
  return slowCall(call, { line, many: `${milliseconds(call.duration)}, ${several(call.attempts.length, "attempt", "")}`, badges: [] });
}

/** One call: a line that expands to its task, its cause, and each attempt. */
function slowCall(call, { line, many, badges, about = null }) {
  const verdicts = new Set(call.attempts.map((attempt) => attempt.verdict));
  const shown = [...badges, ...["mismatched", "unknown"].filter((verdict) => verdicts.has(verdict))];
  return element(
    "li",
    { class: "request" },
    element(
      "details",
      { ontoggle: (event) => fillSlow(event.currentTarget, call, about) },
      element(
        "summary",
        {},
        element("span", { class: "what" }, breakable(line)),
        element("span", { class: "many" }, many),
        shown.map((badge) => element("span", { class: `badge ${badge}` }, badge)),
      ),
    ),
  );
}

function fillSlow(details, call, about) {
  if (!details.open || details.children.length > 1) return;
  const listed = (heading, numbers) =>
    numbers.length
      ? [element("h3", {}, heading), element("ul", { class: "steps" }, texts(numbers).map((text) => element("li", {}, breakable(text))))]
      : [];
  details.append(
    ...(about ? [note(about)] : []),
    element("h3", {}, "caller"),
    fields([
      ["task", `${data.texts[call.comm]}, pid ${call.pid}, thread ${call.tid}, cpu ${call.cpu}`],
      ["time", `${seconds(call.time)} after ${data.clock.event}; ${kernelSeconds(call.time)} in the kernel's log${wallTime(call.time)}`],
      ["request", `${data.texts[call.gfp]}, order ${call.order}`],
      ["returned", call.duration === null ? data.texts[call.ended] : `${data.texts[call.ended]}, after ${milliseconds(call.duration)}`],
      ...(call.stack.length ? [["stack", texts(call.stack).join(" ← ")]] : []),
    ]),
    element("h3", {}, `why: ${data.texts[call.certainty]}`),
    // The line of a group shows only what all its calls have in common.
    ...(call.zones.length ? [zoneTable(call.zones)] : [element("p", {}, breakable(data.texts[call.headline]))]),
    ...listed("any one of these would have let it succeed", call.remedies),
    ...listed("what the trace does not show", call.unless),
    ...listed("missing from the trace", call.missing),
    element("h3", {}, several(call.attempts.length, "attempt", "")),
    ...growing(
      call.attempts.map((attempt, i) => [attempt, i + 1]),
      slowAttempt,
      FIRST_ATTEMPTS,
      "attempts",
    ),
  );
}

function zoneTable(zones) {
  const names = ["zone", "free", "min", "verdict", "why"];
  return element(
    "table",
    { class: "zones" },
    element("thead", {}, element("tr", {}, names.map((name) => element("th", { scope: "col" }, name)))),
    element(
      "tbody",
      {},
      zones.map((zone) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, data.texts[zone.zone]),
          element("td", {}, kilobytes(zone.free)),
          element("td", {}, kilobytes(zone.min)),
          element("td", { class: "word" }, `${data.texts[zone.verdict]}${zone.certain ? "" : " ?"}`),
          element("td", { class: "about" }, data.texts[zone.why]),
        ),
      ),
    ),
  );
}

function slowAttempt([attempt, number]) {
  return element(
    "li",
    { class: "attempt" },
    element(
      "p",
      {},
      `${number}. `,
      element("code", {}, data.texts[attempt.kind]),
      ` after ${milliseconds(attempt.after)} `,
      element("span", { class: `badge ${attempt.verdict}` }, attempt.verdict),
    ),
    fields([
      ...(attempt.between.length ? [["before it", texts(attempt.between).join(", ")]] : []),
      ["gfp", data.texts[attempt.gfp]],
      ["alloc_flags", data.texts[attempt.alloc_flags]],
      ...(attempt.unknown === null ? [] : [["unknown", data.texts[attempt.unknown]]]),
    ]),
    attempt.differences.map(difference),
  );
}

// How a message looks: one element for each node of the conversation, brought up to date by `refresh`. What its buttons do is
// handed in as `act`.

import { inWords } from "./api.js";
import { button, byId, copyButton, el, grow } from "./element.js";
import { render } from "./markdown.js";

export function questionView(node, act) {
  const text = el("div", { class: "text" }, node.text);
  const turns = el("span", { class: "turns" });
  const edit = button("Edit", () => startEdit());
  const foot = el("div", { class: "foot" }, el("div", { class: "actions" }, turns, copyButton(() => node.text), edit));
  const element = el("article", { class: "question" }, el("h2", { class: "unseen" }, "You"), text, foot);

  const startEdit = () => element.replaceChildren(element.firstChild, editForm(node, act, endEdit));
  const endEdit = () => {
    element.replaceChildren(element.firstChild, text, foot);
    edit.focus();
  };
  const refresh = () => refreshTurns(turns, node, act);
  refresh();
  return { element, refresh };
}

function editForm(node, act, end) {
  const field = el("textarea", { rows: "2", "aria-label": "Edit your message", enterkeyhint: "send" });
  field.value = node.text;
  const submit = (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) return;
    end();
    act.ask(node.parent, text);
  };
  const form = el("form", { class: "edit", onsubmit: submit }, field, el("div", { class: "buttons" },
    el("span", { class: "hint" }, "Your first version is kept."),
    button("Cancel", end, { class: "second" }),
    el("button", { class: "first" }, "Send")));
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      end();
    } else if (sends(event)) submit(event);
  });
  field.addEventListener("input", () => grow(field));
  requestAnimationFrame(() => {
    grow(field);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  });
  return form;
}

/** Whether a key sends what is written: Enter, but not the one that accepts a word of an input method. */
export function sends(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}

export function answerView(node, act) {
  const heading = el("h2", { class: "unseen" }, "Answer");
  const thoughts = el("div", { class: "prose" });
  const thinking = el("details", { class: "thinking" }, el("summary", {}, "Thinking"), thoughts);
  const prose = el("div", { class: "prose" });
  const note = el("div", { class: "note" });
  const turns = el("span", { class: "turns" });
  const again = button("Regenerate", () => act.regenerate(node));
  const copy = copyButton(() => node.text);
  const actions = el("div", { class: "actions" }, turns, copy, again);
  const facts = el("p", { class: "facts" });
  const foot = el("div", { class: "foot" }, actions, facts);
  const element = el("article", { class: "answer" }, heading, thinking, prose, note, foot);
  let shownError;

  const refresh = () => {
    element.setAttribute("aria-busy", node.live ? "true" : "false");
    element.classList.toggle("waiting", node.live && !node.text && !node.reasoning);
    thinking.hidden = !node.reasoning;
    if (node.reasoning) render(thoughts, node.reasoning);
    render(prose, node.text);
    refreshTurns(turns, node, act);
    actions.hidden = node.live;
    copy.hidden = !node.text;
    again.hidden = Boolean(node.error);
    facts.replaceChildren(...factsOf(node).map((fact) => el("span", {}, fact)));
    foot.hidden = again.hidden && copy.hidden && turns.hidden;
    // The field for a key keeps what is typed in it while other things change.
    if (shownError !== node.error) note.replaceChildren(...(node.error ? [errorNote(node.error, (newKey) => act.retry(node, newKey), act.fix)] : []));
    shownError = node.error;
  };
  refresh();
  return { element, refresh };
}

function refreshTurns(turns, node, act) {
  const versions = node.parent.children;
  const at = versions.indexOf(node);
  const sign = `${at + 1}/${versions.length}`;
  // A button that has the focus must not be replaced for nothing.
  if (turns.dataset.sign === sign) return;
  turns.dataset.sign = sign;
  turns.hidden = versions.length < 2;
  const step = (name, by, arrow, disabled) => button(arrow, () => act.turn(node, by), { "aria-label": name, disabled });
  turns.replaceChildren(
    step("Previous version", -1, "‹", at === 0),
    el("span", {}, sign),
    step("Next version", 1, "›", at === versions.length - 1));
}

/** A failure where it happened, with what can be done about it: another try, a key, or another setting. */
export function errorNote(failure, retry, fix) {
  if (failure.kind === "key") return keyForm(failure, retry);
  const { title, text } = inWords(failure);
  return el("div", { class: "error", role: "alert" }, el("p", {}, el("strong", {}, title)), text && el("p", {}, text),
    button("Try again", () => retry(), { class: "second" }),
    byId(`set-${failure.field}`) && button("Open the setting", () => fix(failure.field), { class: "second" }));
}

let keyForms = 0;

function keyForm(failure, submit) {
  const id = `key-${keyForms += 1}`;
  const field = el("input", { id, type: "password", autocomplete: "off", required: true, "aria-describedby": `${id}-hint` });
  const send = (event) => {
    event.preventDefault();
    if (field.value.trim()) submit(field.value.trim());
  };
  const title = failure.tried ? "The server did not accept this key." : "This server asks for an API key.";
  return el("form", { class: "error", role: "alert", onsubmit: send },
    el("label", { for: id }, el("strong", {}, title)),
    el("div", { class: "row" }, field, el("button", { class: "first" }, "Use key")),
    el("p", { id: `${id}-hint`, class: "hint" }, "It is kept until this tab closes, and sent to this server only."));
}

const ENDS = { stopped: "stopped", length: "ended at the limit of tokens" };

/** What is known of an answer, in the order in which people ask for it. */
function factsOf({ facts, finish }) {
  const known = [];
  const say = (value, text) => { if (value !== null && value !== undefined) known.push(text(value)); };
  if (!facts) return ENDS[finish] ? [ENDS[finish]] : [];
  say(ENDS[finish], (text) => text);
  say(facts.tokens, (tokens) => `${facts.exact ? "" : "about "}${count(tokens)} ${tokens === 1 ? "token" : "tokens"}`);
  say(facts.rate, (rate) => `${short(rate)} tok/s`);
  say(facts.wait, (wait) => `first token ${seconds(wait)}`);
  say(facts.prompt, (prompt) => `prompt ${count(prompt)}${facts.cached ? ` (${count(facts.cached)} cached)` : ""}`);
  say(facts.joules, (joules) => `${short(joules)} J${joules > 0 && facts.tokens ? `, ${short(facts.tokens / joules)} tok/J` : ""}`);
  return known;
}

export const count = (value) => value.toLocaleString("en");
const short = (value) => value.toLocaleString("en", { maximumSignificantDigits: value < 1000 ? 3 : 4 });
const seconds = (ms) => (ms < 1000 ? `${Math.max(1, Math.round(ms))} ms` : `${short(ms / 1000)} s`);

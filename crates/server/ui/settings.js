// The panel beside the chat. Numbers and the theme are remembered by this browser; the system prompt, being something that one
// writes, goes with the tab.

import { byId, el } from "./element.js";
import { read, write } from "./store.js";

const whole = Number.isSafeInteger;

/** Names are those of the request; `valid` is what is sent, anything else is pointed at and left out. */
const FIELDS = [
  { name: "temperature", label: "Temperature", step: 0.1, range: "0 to 2", valid: (x) => x >= 0 && x <= 2, hint: "0 always takes the likeliest token" },
  { name: "top_p", label: "Top p", step: 0.05, range: "above 0, up to 1", valid: (x) => x > 0 && x <= 1, hint: "the likeliest that reach this share" },
  { name: "top_k", label: "Top k", step: 1, range: "a whole number from 0", valid: (x) => whole(x) && x >= 0, hint: "the likeliest k; 0 takes all" },
  { name: "min_p", label: "Min p", step: 0.01, range: "0 to 1", valid: (x) => x >= 0 && x <= 1, hint: "none below this share of the best" },
  { name: "seed", label: "Seed", step: 1, range: "a whole number from 0", valid: (x) => whole(x) && x >= 0, hint: "the same seed gives the same answer" },
  { name: "max_tokens", label: "Max tokens", step: 1, range: "a whole number from 1", valid: (x) => whole(x) && x >= 1, hint: "where an answer ends at the latest" },
];

let values = {};

/** Sampling settings that are set, by the names of the request. */
export const sampling = () => ({ ...values });
export const systemPrompt = () => byId("system").value.trim();

/** Builds the panel. `opened` is told whenever it opens, `forgot` when the key is to be forgotten. */
export function setUp({ opened, forgot }) {
  byId("sampling").append(...FIELDS.map(row));
  byId("settings").addEventListener("click", () => (byId("panel").hidden ? open(opened) : close()));
  byId("panel-close").addEventListener("click", close);
  byId("forget").addEventListener("click", forgot);
  byId("reset-all").addEventListener("click", reset);
  byId("settings-form").addEventListener("submit", (event) => event.preventDefault());
  byId("system").addEventListener("input", keepSystem);
  // A panel that lies beside the page leaves the page usable, one that covers it does not.
  NARROW.addEventListener("change", cover);
  setUpTheme();
  recall();
}

function row({ name, label, step, hint }) {
  const id = `set-${name}`;
  const field = el("input", {
    id, type: "number", step, min: "0", inputmode: Number.isInteger(step) ? "numeric" : "decimal", placeholder: "default",
    autocomplete: "off", "aria-describedby": `${id}-hint`, oninput: () => take(name),
  });
  return el("div", { class: "number" }, el("label", { for: id }, label), field, el("p", { class: "hint", id: `${id}-hint` }, hint));
}

function take(name) {
  const { valid, hint, range } = FIELDS.find((field) => field.name === name);
  const field = byId(`set-${name}`);
  const value = field.valueAsNumber;
  const empty = field.value === "" && !field.validity.badInput;
  const bad = !empty && !valid(value);
  delete values[name];
  if (!empty && !bad) values[name] = value;
  field.setAttribute("aria-invalid", bad);
  byId(`set-${name}-hint`).textContent = bad ? `Not used. Allowed: ${range}.` : hint;
  write("localStorage", "settings", values);
  mark();
}

function recall() {
  byId("system").value = read("sessionStorage", "system") ?? "";
  const known = read("localStorage", "settings") ?? {};
  for (const { name } of FIELDS) {
    byId(`set-${name}`).value = known[name] ?? "";
    take(name);
  }
  mark();
}

function keepSystem() {
  write("sessionStorage", "system", byId("system").value);
  mark();
}

function reset() {
  byId("settings-form").reset();
  for (const { name } of FIELDS) take(name);
  keepSystem();
}

/** The button tells from outside that answers are not made with the defaults. */
function mark() {
  const changed = Boolean(systemPrompt()) || Object.keys(values).length > 0;
  byId("settings").classList.toggle("changed", changed);
  byId("settings").setAttribute("aria-label", changed ? "Settings, changed" : "Settings");
}

const NARROW = matchMedia("(max-width: 64rem)");

function open(opened) {
  byId("panel").hidden = false;
  byId("settings").setAttribute("aria-expanded", "true");
  cover();
  byId("panel-title").focus();
  opened();
}

export function close() {
  byId("panel").hidden = true;
  byId("settings").setAttribute("aria-expanded", "false");
  cover();
  byId("settings").focus();
}

function cover() {
  byId("page").inert = NARROW.matches && !byId("panel").hidden;
}

/** Opens the panel at the field that a request was refused for. */
export function showField(name, opened) {
  if (byId("panel").hidden) open(opened);
  byId(`set-${name}`).focus();
  byId(`set-${name}`).select();
}

// Choosing what the system has anyway is how one goes back to following the system.
function setUpTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const shown = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const name = () => byId("theme").setAttribute("aria-label", shown() === "dark" ? "Use light colours" : "Use dark colours");
  const choose = (theme) => {
    if (theme === (dark.matches ? "dark" : "light")) delete root.dataset.theme;
    else root.dataset.theme = theme;
    write("localStorage", "theme", root.dataset.theme);
    name();
  };
  const known = read("localStorage", "theme");
  if (known) root.dataset.theme = known;
  byId("theme").addEventListener("click", () => choose(shown() === "dark" ? "light" : "dark"));
  dark.addEventListener("change", name);
  name();
}

const LABELS = { id: "Model", max_model_len: "Context", context_length: "Context" };
const LEFT_OUT = ["owned_by", "object", "created", "root", "parent"];

/** Whatever the server says, in a list; what it does not say has no line. */
export function showFacts(facts) {
  const lines = Object.entries(facts).flatMap(([key, value]) => fact(key, value));
  byId("facts").replaceChildren(...lines.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function fact(key, value) {
  if (LEFT_OUT.includes(key) || (value ?? "") === "") return [];
  if (typeof value === "object") return Array.isArray(value) ? [] : Object.entries(value).flatMap(([inner, each]) => fact(inner, each));
  const words = key.replaceAll("_", " ");
  const name = LABELS[key] ?? words[0].toUpperCase() + words.slice(1);
  if (typeof value === "number") return [[name, value.toLocaleString("en") + (name === "Context" ? " tokens" : "")]];
  return [[name, typeof value === "boolean" ? (value ? "yes" : "no") : value]];
}

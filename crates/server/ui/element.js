// Elements are made by DOM calls alone. Nothing that a model or a server wrote is ever parsed as HTML.

/** An element with attributes, listeners (`onclick`) and children. Strings become text; absent and false ones are left out. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if ((value ?? false) === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => (child ?? false) !== false));
  return element;
}

export const button = (label, onclick, attributes = {}) => el("button", { type: "button", class: "plain", onclick, ...attributes }, label);

export const byId = (id) => document.getElementById(id);

/** Has a screen reader say it when it is free. */
export function announce(text) {
  byId("status").textContent = text;
}

/** Lets a field grow with its text where style sheets cannot say so. */
export function grow(field) {
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

/** A button that copies what `text` gives, and says so for a moment. */
export function copyButton(text) {
  const made = button("Copy", async () => {
    made.textContent = await copy(text()) ? "Copied" : "Not copied";
    announce(made.textContent);
    setTimeout(() => { made.textContent = "Copy"; }, 1500);
  });
  return made;
}

// Browsers offer the clipboard on secure origins only, and a server in the local network is none.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const before = document.activeElement;
  const field = el("textarea", { class: "unseen", readonly: true });
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  before?.focus();
  return copied;
}

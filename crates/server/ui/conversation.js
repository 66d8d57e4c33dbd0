// A conversation is a tree. An edited message or another answer becomes a sibling of the first, so nothing is lost; what is shown
// and sent is the path that follows the chosen child of every node.

import { read, write } from "./store.js";

export class Conversation {
  constructor() {
    this.root = node(null, "root", "");
  }

  add(parent, role, text) {
    const child = node(parent, role, text);
    parent.children.push(child);
    parent.chosen = parent.children.length - 1;
    return child;
  }

  /** Takes out an answer of which nothing came, so that trying again leaves no empty version behind. */
  remove(child) {
    const { parent } = child;
    parent.children.splice(parent.children.indexOf(child), 1);
    parent.chosen = Math.max(0, parent.children.length - 1);
  }

  /** The neighbouring version of a message becomes the shown one. */
  turn(child, step) {
    const { parent } = child;
    const at = parent.children.indexOf(child) + step;
    parent.chosen = Math.min(Math.max(at, 0), parent.children.length - 1);
    return parent.children[parent.chosen];
  }

  path() {
    const path = [];
    for (let at = this.root.children[this.root.chosen]; at; at = at.children[at.chosen]) path.push(at);
    return path;
  }

  save() {
    write("sessionStorage", "conversation", plain(this.root));
  }

  static restore() {
    const conversation = new Conversation();
    const stored = read("sessionStorage", "conversation");
    if (stored) conversation.root = revive(stored, null);
    return conversation;
  }
}

/** What the model is sent to answer `question`: the system prompt and the path down to it. Answers of which nothing came are left out,
    and the messages around them joined, since many templates insist that roles alternate. */
export function messagesFor(question, system) {
  const messages = [];
  for (let at = question; at.parent; at = at.parent) {
    if (at.role === "assistant" && !at.text) continue;
    if (messages[0]?.role === at.role) messages[0].content = `${at.text}\n\n${messages[0].content}`;
    else messages.unshift({ role: at.role, content: at.text });
  }
  if (system) messages.unshift({ role: "system", content: system });
  return messages;
}

function node(parent, role, text) {
  return { parent, role, text, reasoning: "", children: [], chosen: 0, finish: null, error: null, facts: null, live: false };
}

function plain({ role, text, reasoning, children, chosen, finish, error, facts, live }) {
  // An answer that is still coming in is cut off by whatever makes the page load again.
  return { role, text, reasoning, chosen, finish: live ? "stopped" : finish, error, facts, children: children.map(plain) };
}

function revive(stored, parent) {
  const revived = { ...node(parent, stored.role, stored.text), ...stored, parent };
  revived.children = stored.children.map((child) => revive(child, revived));
  return revived;
}

// Markdown as models write it: headings, lists, code, quotes, tables, emphasis and links. What it does not know stays text.
// Everything is built by DOM calls, images are never loaded, and only web and mail addresses become links.

import { copyButton, el } from "./element.js";

const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( {1,4})(?=\S)|[ \t]*$)/;
const DIVIDER = /^ {0,3}\|?(?:[ \t]*:?-+:?[ \t]*\|)+(?:[ \t]*:?-+:?[ \t]*)?$/;
/** A model that repeats itself may nest without end; deeper levels are shown as text. */
const DEPTH = 8;

/** Brings `target` up to date with `source`. Blocks that did not change keep their elements, so a growing answer costs its last
    block alone and a selection further up survives. */
export function render(target, source) {
  const blocks = split(source.split(/\r?\n/));
  const known = target.sources ?? [];
  let same = 0;
  while (same < blocks.length && blocks[same].source === known[same]) same += 1;
  while (target.childNodes.length > same) target.lastChild.remove();
  for (const block of blocks.slice(same)) target.append(build(block, 0));
  target.sources = blocks.map((block) => block.source);
}

/** Cuts lines into blocks. */
function split(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length;) {
    const kind = kindAt(lines, at);
    const end = kind ? END[kind](lines, at) : at + 1;
    if (kind) blocks.push({ kind, lines: lines.slice(at, end), source: lines.slice(at, end).join("\n") });
    at = end;
  }
  return blocks;
}

function kindAt(lines, at) {
  const line = lines[at];
  if (!line.trim()) return null;
  if (FENCE.test(line)) return "fence";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (QUOTE.test(line)) return "quote";
  if (ITEM.test(line)) return "list";
  if (line.includes("|") && DIVIDER.test(lines[at + 1] ?? "")) return "table";
  return "paragraph";
}

const END = {
  fence: fenceEnd,
  heading: (_, at) => at + 1,
  rule: (_, at) => at + 1,
  quote: (lines, at) => endWhere(lines, at, (line) => !QUOTE.test(line)),
  table: (lines, at) => endWhere(lines, at, (line) => !line.includes("|")),
  list: listEnd,
  // A number other than 1 at the start of a line is more often a year or a sum than a list.
  paragraph: (lines, at) => endWhere(lines, at, (line, index) => {
    const kind = kindAt(lines, index);
    return kind !== "paragraph" && !(kind === "list" && /^ *\d/.test(line) && !/^ *1[.)]/.test(line));
  }),
};

function endWhere(lines, at, ends) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !ends(lines[end], end)) end += 1;
  return end;
}

function fenceEnd(lines, at) {
  const mark = FENCE.exec(lines[at])[2];
  const closes = (line) => line.trim().startsWith(mark) && !line.trim().replaceAll(mark[0], "");
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end += 1;
  return Math.min(end + 1, lines.length);
}

const ordered = (line) => /\d/.test(ITEM.exec(line)[2]);
const indent = (line) => line.length - line.trimStart().length;

function listEnd(lines, at) {
  const base = indent(lines[at]);
  let end = at + 1;
  for (let next = end; next < lines.length; next += 1) {
    const line = lines[next];
    if (!line.trim()) continue;
    const item = ITEM.test(line) && !RULE.test(line);
    const mine = item && (indent(line) > base + 1 || ordered(line) === ordered(lines[at]));
    const afterGap = next > end;
    const lazy = !item && !afterGap && kindAt(lines, next) === "paragraph";
    if (!(mine || lazy || (!item && indent(line) > base + 1))) break;
    end = next + 1;
  }
  return end;
}

function build(block, depth) {
  return depth > DEPTH ? el("p", {}, block.source) : BUILD[block.kind](block.lines, depth);
}

const children = (lines, depth) => split(lines).map((block) => build(block, depth + 1));

const BUILD = {
  fence: code,
  heading: ([line]) => {
    const [, marks, text] = HEADING.exec(line);
    // Messages have headings of the second level, so those of an answer begin below.
    return el(`h${Math.min(marks.length + 2, 6)}`, { class: `level-${marks.length}` }, inline(text));
  },
  rule: () => el("hr"),
  quote: (lines, depth) => el("blockquote", {}, children(lines.map((line) => line.replace(QUOTE, "")), depth)),
  list,
  table,
  paragraph: (lines) => el("p", {}, inline(lines.map((line) => line.trimStart()).join("\n"))),
};

function code(lines) {
  const [, margin, mark, language] = FENCE.exec(lines[0]);
  const closed = lines.length > 1 && lines.at(-1).trim().startsWith(mark);
  const inner = lines.slice(1, closed ? -1 : undefined);
  const text = inner.map((line) => line.slice(Math.min(indent(line), margin.length))).join("\n");
  const label = language ? `Code, ${language}` : "Code";
  return el("div", { class: "code" },
    el("div", { class: "code-head" }, el("span", {}, language || "code"), copyButton(() => text)),
    el("pre", { tabindex: "0", role: "region", "aria-label": label }, el("code", {}, text)));
}

function list(lines, depth) {
  const numbered = ordered(lines[0]);
  const items = itemsOf(lines);
  const tight = !items.some((item) => item.some((line, at) => !line.trim() && item[at + 1]?.trim()));
  const start = numbered ? Number.parseInt(ITEM.exec(lines[0])[2], 10) : 1;
  const elements = items.map((item) => {
    const parts = children(item, depth);
    return el("li", {}, tight ? parts.flatMap((part) => (part.tagName === "P" ? [...part.childNodes] : [part])) : parts);
  });
  return el(numbered ? "ol" : "ul", { start: start === 1 ? null : start }, elements);
}

/** The lines of each item, without its mark and its indentation. */
function itemsOf(lines) {
  const base = indent(lines[0]);
  const items = [];
  let margin = 0;
  for (const line of lines) {
    const mark = ITEM.exec(line);
    if (mark && indent(line) <= base + 1) {
      margin = mark[0].length;
      items.push([line.slice(margin)]);
    } else {
      items.at(-1).push(line.slice(Math.min(indent(line), margin)));
    }
  }
  return items;
}

function table(lines) {
  const [head, divider, ...rows] = lines.map(cells);
  const sides = divider.map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "middle" : "end") : null));
  const row = (texts, name) => el("tr", {}, head.map((_, at) => el(name, { class: sides[at] }, inline(texts[at] ?? ""))));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" },
    el("table", {}, el("thead", {}, row(head, "th")), el("tbody", {}, rows.map((texts) => row(texts, "td")))));
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

// The first rule that matches at a place takes it. Lengths are bounded, so that text made of unclosed marks stays cheap.
const INLINE = [
  [/(`+)(?!`)([^]{0,4000}?[^`])\1(?!`)/y, (match) => el("code", {}, match[2].replace(/^ (.*[^ ].*) $/s, "$1"))],
  [/\\([!-/:-@[-`{-~])/y, (match) => match[1]],
  [/!?\[([^[\]]{1,400})\]\(\s*<?([^\s()<>]{1,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200})?)>?(?:\s+"[^"]{0,200}")?\s*\)/y,
    (match) => link(match[2], inline(match[1])) ?? match[0]],
  [/(?<!\w)https?:\/\/[^\s<>"'`]{0,2000}[^\s<>"'`.,;:!?)\]*_~]/y, (match) => link(match[0], [match[0]])],
  [/\*\*(?=\S)([^]{0,2000}?\S)\*\*(?!\*)/y, (match) => el("strong", {}, inline(match[1]))],
  [/(?<!\w)__(?=\S)([^]{0,2000}?\S)__(?!\w)/y, (match) => el("strong", {}, inline(match[1]))],
  [/~~(?=\S)([^]{0,2000}?\S)~~/y, (match) => el("del", {}, inline(match[1]))],
  [/\*(?=[^\s*])([^]{0,2000}?[^\s*])\*(?!\*)/y, (match) => el("em", {}, inline(match[1]))],
  [/(?<!\w)_(?=[^\s_])([^]{0,2000}?[^\s_])_(?!\w)/y, (match) => el("em", {}, inline(match[1]))],
  [/(?: {2,}|\\)?\n/y, () => el("br")],
];

function inline(text) {
  const parts = [];
  let from = 0;
  for (let at = 0; at < text.length;) {
    const found = "`\\![h*_~ \n".includes(text[at]) && matchAt(text, at);
    if (!found) {
      at += 1;
      continue;
    }
    parts.push(text.slice(from, at), found.node);
    at = from = at + found.length;
  }
  return [...parts, text.slice(from)].filter((part) => part !== "");
}

function matchAt(text, at) {
  for (const [pattern, make] of INLINE) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match) return { node: make(match), length: match[0].length };
  }
  return null;
}

function link(address, children) {
  if (!/^(?:https?:\/\/|mailto:)/i.test(address)) return null;
  return el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, children);
}

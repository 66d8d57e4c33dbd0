// The chat page: ties conversation, server and elements together.

import { Failure, key, metrics, servedModel, streamChat } from "./api.js";
import { Conversation, messagesFor } from "./conversation.js";
import { announce, byId, grow } from "./element.js";
import { answerView, count, errorNote, questionView, sends } from "./message.js";
import { close as closePanel, sampling, setUp, showFacts, showField, systemPrompt } from "./settings.js";

const draft = byId("draft");
const log = byId("log");
const views = new WeakMap();

let conversation = Conversation.restore();
/** The chat that "New chat" left, until something is written in the new one. */
let previous = null;
/** The answer that is coming in, with what stops it. */
let running = null;
let model = null;
/** Whether the page scrolls along with an answer: it does until one scrolls away from its end. */
let following = true;

const act = {
  ask: (parent, text) => generate(conversation.add(parent, "user", text)),
  regenerate: (answer) => generate(answer.parent),
  retry: (answer, newKey) => {
    if (newKey) key.set(newKey);
    if (newKey && !model) loadModel();
    if (!answer.text) conversation.remove(answer);
    generate(answer.parent);
  },
  fix: (field) => showField(field, loadFacts),
  turn: (node, step) => {
    const to = conversation.turn(node, step);
    show();
    conversation.save();
    (views.get(to).element.querySelector(".turns button:not(:disabled)") ?? draft).focus();
  },
};

// Showing

function show() {
  const held = document.activeElement;
  const path = conversation.path();
  const elements = path.map((node) => viewOf(node).element);
  elements.forEach((element, at) => {
    if (log.children[at] !== element) log.insertBefore(element, log.children[at] ?? null);
  });
  while (log.children.length > elements.length) log.lastChild.remove();
  document.body.classList.toggle("empty", path.length === 0);
  byId("previous").hidden = !previous;
  showContext(path);
  if (held !== document.body && document.activeElement === document.body) focusDraft();
}

/** On a touch screen this would open the keyboard over what one reads. */
function focusDraft() {
  if (matchMedia("(hover: hover)").matches) draft.focus({ preventScroll: true });
}

function viewOf(node) {
  if (!views.has(node)) views.set(node, (node.role === "user" ? questionView : answerView)(node, act));
  views.get(node).refresh();
  return views.get(node);
}

function showContext(path) {
  const { facts } = path.findLast((node) => node.facts?.exact) ?? {};
  const used = facts ? facts.prompt + facts.tokens : 0;
  const most = contextOf(model);
  byId("context").textContent = used ? `${count(used)}${most ? ` of ${count(most)}` : ""} tokens of context` : "";
  byId("context").classList.toggle("full", used > 0.85 * most);
}

function showRunning() {
  const button = byId("send");
  document.body.classList.toggle("running", Boolean(running));
  button.setAttribute("aria-label", running ? "Stop" : "Send");
  button.querySelector("use").setAttribute("href", running ? "#icon-stop" : "#icon-send");
  button.disabled = !running && !draft.value.trim();
}

const atEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 80;

function follow() {
  if (following) scrollTo(0, document.documentElement.scrollHeight);
  byId("latest").hidden = following || atEnd();
}

// Answering

async function generate(question) {
  stop();
  const answer = conversation.add(question, "assistant", "");
  answer.live = true;
  const run = { answer, control: new AbortController(), clock: newClock(), cost: 0 };
  running = run;
  previous = null;
  following = true;
  show();
  showRunning();
  follow();
  try {
    await receive(run, requestFor(question));
  } catch (error) {
    fail(run, error);
  }
  finish(run);
}

function requestFor(question) {
  return {
    model: model?.id,
    messages: messagesFor(question, systemPrompt()),
    ...sampling(),
    stream: true,
    stream_options: { include_usage: true },
  };
}

const newClock = () => ({ sent: performance.now(), first: null, last: null, pieces: 0, usage: null });

async function receive(run, request) {
  for await (const chunk of streamChat(request, run.control.signal)) {
    take(run, chunk);
    schedule(run);
  }
}

function take({ answer, clock }, { choices, usage, system_fingerprint: fingerprint }) {
  const delta = choices?.[0]?.delta ?? {};
  const reasoning = delta.reasoning_content ?? "";
  answer.text += delta.content ?? "";
  answer.reasoning += reasoning;
  answer.finish = choices?.[0]?.finish_reason ?? answer.finish;
  if (usage) clock.usage = usage;
  if (fingerprint) served.system_fingerprint = fingerprint;
  if (!delta.content && !reasoning) return;
  clock.last = performance.now();
  clock.first ??= clock.last;
  clock.pieces += 1;
}

/** Draws once a frame at most, however fast pieces come, and no more than a quarter of the time, however long a paragraph grows. */
function schedule(run) {
  if (run.scheduled || document.hidden) return;
  run.scheduled = true;
  setTimeout(() => requestAnimationFrame(() => draw(run)), 3 * run.cost);
}

function draw(run) {
  const began = performance.now();
  run.scheduled = false;
  if (!run.answer.live) return;
  run.answer.facts = factsOf(run.clock);
  views.get(run.answer)?.refresh();
  follow();
  run.cost = performance.now() - began;
}

/** Usage says how many tokens there were; while or where it is missing, pieces stand for them. The rate leaves out the first
    token, whose time is the prompt's. */
function factsOf({ sent, first, last, pieces, usage }) {
  if (first === null && !usage) return null;
  const tokens = usage?.completion_tokens ?? pieces;
  return {
    tokens,
    exact: Boolean(usage),
    rate: tokens > 1 && last > first ? ((tokens - 1) / (last - first)) * 1000 : null,
    wait: first === null ? null : first - sent,
    prompt: usage?.prompt_tokens ?? null,
    cached: usage?.prompt_tokens_details?.cached_tokens ?? null,
    joules: usage?.energy_j ?? null,
  };
}

function fail({ answer }, error) {
  if (error.name === "AbortError") {
    answer.finish = "stopped";
    return;
  }
  const failure = error instanceof Failure ? error : new Failure("broken", "");
  const { kind, message, status, field, code, wait, request } = failure;
  // Only plain values, since the conversation is stored.
  answer.error = { kind, message, status, field, code, wait, request, tried: kind === "key" && Boolean(key.get()) };
}

function finish(run) {
  const { answer, clock } = run;
  answer.live = false;
  answer.facts = factsOf(clock);
  if (running === run) running = null;
  showRunning();
  views.get(answer)?.refresh();
  show();
  follow();
  showKeyState();
  conversation.save();
  if (answer.error?.kind === "key") log.querySelector("article:last-child .error input")?.focus();
  else if (!answer.error) announce(answer.finish === "stopped" ? "Stopped." : `Answer: ${answer.text}`);
}

function stop() {
  running?.control.abort();
}

// The server

const served = {};

async function loadModel(newKey) {
  if (newKey) key.set(newKey);
  byId("welcome-error").replaceChildren();
  try {
    model = await servedModel();
    Object.assign(served, model);
    named(model);
    if (newKey) focusDraft();
  } catch (failure) {
    failure.tried = Boolean(newKey);
    byId("welcome-error").replaceChildren(errorNote(failure, loadModel));
    byId("welcome-error").querySelector("input")?.focus();
  }
  showKeyState();
  showContext(conversation.path());
}

function named({ id }) {
  const context = contextOf(model);
  byId("model").textContent = id;
  byId("welcome-title").textContent = id;
  byId("welcome-facts").textContent = context ? `${count(context)} tokens of context` : "";
  document.title = `${id} · dualgrain`;
}

const contextOf = (from) => from?.max_model_len ?? from?.context_length;

function showKeyState() {
  byId("key-state").hidden = !key.get();
}

/** Asked for when the panel opens; a server that shows no metrics has fewer lines. */
async function loadFacts() {
  if (!model) await loadModel();
  showFacts(served);
  const metric = await metrics().catch(() => () => undefined);
  const cache = metric("vllm:kv_cache_usage_perc");
  showFacts({
    ...served,
    requests_running: metric("vllm:num_requests_running"),
    requests_waiting: metric("vllm:num_requests_waiting"),
    cache_in_use: cache && `${Math.round(cache * 100)} %`,
  });
}

// What one does

function send() {
  const text = draft.value.trim();
  if (!text || running) return;
  draft.value = "";
  grow(draft);
  act.ask(conversation.path().at(-1) ?? conversation.root, text);
}

function newChat() {
  stop();
  if (conversation.path().length) previous = conversation;
  replaceChat(new Conversation());
}

function replaceChat(next) {
  conversation = next;
  conversation.save();
  show();
  scrollTo(0, 0);
  focusDraft();
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) stop();
  else send();
});
draft.addEventListener("input", () => {
  grow(draft);
  showRunning();
});
draft.addEventListener("keydown", (event) => {
  if (sends(event)) {
    event.preventDefault();
    send();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (byId("panel").contains(event.target) || byId("page").inert) closePanel();
  else stop();
});
addEventListener("scroll", () => {
  following = atEnd();
  byId("latest").hidden = following;
}, { passive: true });
byId("latest").addEventListener("click", () => {
  following = true;
  follow();
  focusDraft();
});
byId("new").addEventListener("click", newChat);
byId("previous").addEventListener("click", () => {
  const back = previous;
  previous = null;
  replaceChat(back);
});
addEventListener("pagehide", () => conversation.save());

setUp({ opened: loadFacts, forgot: () => { key.set(null); showKeyState(); } });
show();
showRunning();
loadModel();
follow();
focusDraft();

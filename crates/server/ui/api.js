// What the page asks of the server, and the failures in words. Addresses are relative, so that the page also works behind a proxy
// that serves it under a path.

import { read, write } from "./store.js";

let held = read("sessionStorage", "key");

export const key = {
  get: () => held,
  set: (value) => write("sessionStorage", "key", held = value),
};

/** Why a request gave no whole answer. `kind` is unreachable, broken, key, busy, refused or failed. */
export class Failure extends Error {
  constructor(kind, message, more = {}) {
    super(message);
    Object.assign(this, { kind, ...more });
  }
}

/** The chunks of a streamed chat completion. Throws a Failure, also when the stream ends before it says that it is done. */
export async function* streamChat(request, signal) {
  const response = await ask("v1/chat/completions", { method: "POST", body: JSON.stringify(request), signal });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Failure("failed", chunk.error.message ?? "");
    yield chunk;
  }
  throw new Failure("broken", "");
}

/** The model that is served, with whatever else the server says about it. */
export async function servedModel() {
  const models = await (await ask("v1/models")).json();
  return models.data[0];
}

/** Reads a metric by its name; what is not there is undefined. */
export async function metrics() {
  const text = await (await ask("metrics")).text();
  return (name) => new RegExp(`^${name}(?:\\{.*\\})? (\\S+)`, "m").exec(text)?.[1];
}

async function ask(path, options = {}) {
  const headers = {};
  if (options.body) headers["content-type"] = "application/json";
  if (held) headers.authorization = `Bearer ${held}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "same-origin", cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure("unreachable", "");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const { error } = await response.json().catch(() => ({}));
  const kinds = { 401: "key", 403: "key", 429: "busy", 503: "busy" };
  const kind = kinds[response.status] ?? (response.status < 500 ? "refused" : "failed");
  return new Failure(kind, error?.message ?? "", {
    status: response.status,
    field: error?.param ?? null,
    code: error?.code ?? null,
    wait: Number(response.headers.get("retry-after")) || null,
    request: response.headers.get("x-request-id"),
  });
}

// Server-sent events: an event is its `data:` lines, ended by an empty line; a line that starts with a colon keeps the line alive.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  for (;;) {
    const { done, value } = await next(reader);
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map((each) => each.replace(/\r$/, ""))) {
      if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      else if (line === "" && data.length) {
        yield data.join("\n");
        data = [];
      }
    }
  }
}

async function next(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure("broken", "");
  }
}

const WORDS = {
  unreachable: ["The server cannot be reached.", "Is it still running? Nothing is lost: try again once it is."],
  broken: ["The answer broke off.", "The connection ended before the answer was complete."],
  busy: ["The server is busy.", "Try again in a moment."],
  refused: ["The server did not take this request.", ""],
  failed: ["The server failed at this answer.", "Trying again may help."],
};

/** A failure as a heading and a sentence or two. */
export function inWords({ kind, message, status, code, wait, request }) {
  const [title, usual] = status === 503 ? ["The server is not ready.", "Try again in a moment."] : WORDS[kind] ?? WORDS.failed;
  const said = message ? message.replace(/[^.!?]$/, "$&.") : status && `It answered with status ${status}.`;
  const hint = code === "context_length_exceeded" ? "Start a new chat, or edit an earlier message to go on from there." : usual;
  const after = wait ? `Try again in ${wait} ${wait === 1 ? "second" : "seconds"}.` : hint;
  return { title, text: [said, after, request && `Request ${request}.`].filter(Boolean).join(" ") };
}

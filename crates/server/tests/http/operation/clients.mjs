// The Node clients that people use, against a running server: `node clients.mjs FOLDER URL MODEL`, where FOLDER holds node_modules.
// Ends with `all well`.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, url, model] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)));

const question = [{ role: "user", content: "Tell me of the sea" }];
const common = { model, messages: question, max_tokens: 24 };
// No end token: an answer that runs until somebody ends it.
const endless = { model, messages: question, max_tokens: 400, logit_bias: { 0: -100 } };

function expect(condition, what) {
  if (!condition) throw new Error(`not so: ${what}`);
}

async function refusal(kind, call) {
  try {
    await call();
  } catch (error) {
    // Packages may hold a class twice: then it knows its own by a mark.
    if (error instanceof kind || kind.isInstance?.(error)) return error;
    throw error;
  }
  throw new Error(`no ${kind.name}`);
}

/** Waits until the server runs nothing. */
async function rest() {
  for (let looks = 0; looks < 1000; looks += 1) {
    const text = await (await fetch(`${url}/metrics`)).text();
    if (/^vllm:num_requests_running\{.*\} 0$/m.test(text)) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("not so: what was broken off ends");
}

async function chat(client) {
  const asked = { ...common, seed: 4, temperature: 0.8 };
  const whole = await client.chat.completions.create({ ...asked, n: 2, logprobs: true, top_logprobs: 2 });
  expect(whole.choices.length === 2 && whole.choices[0].logprobs.content[0].top_logprobs.length === 2, "choices");
  expect(whole._request_id, "the name of the request");
  const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
  let text = "";
  let last;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    last = chunk;
  }
  expect(text === whole.choices[0].message.content && last.usage.completion_tokens > 0, "a stream is the whole");
}

async function brokenOff(client) {
  const stream = await client.chat.completions.create({ ...endless, stream: true });
  for await (const _ of stream) break;
  await rest();
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 50);
  try {
    await client.chat.completions.create(endless, { signal: stop.signal });
  } catch (error) {
    expect(error.name === "Error" || /abort/i.test(`${error.name} ${error.message}`), "the request was aborted");
  }
  await rest();
}

async function openaiErrors(client, { BadRequestError, NotFoundError }) {
  const wrong = await refusal(BadRequestError, () => client.chat.completions.create({ ...common, temperature: 7 }));
  expect(wrong.param === "temperature" && wrong.message.includes("from 0 to 2"), "the field is named");
  expect(wrong.requestID, "an error has the name of its request");
  const other = await refusal(NotFoundError, () => client.chat.completions.create({ ...common, model: "other" }));
  expect(other.code === "model_not_found", "the model is named");
}

async function responses(client) {
  const asked = { model, input: "Tell me of the sea", max_output_tokens: 16, temperature: 0 };
  const whole = await client.responses.create(asked);
  expect(whole.output_text && whole.status === "incomplete", "a response");
  let text = "";
  for await (const event of await client.responses.create({ ...asked, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  expect(text === whole.output_text, "a stream is the whole");
}

async function messages(client, { BadRequestError }) {
  const asked = { ...common, system: "Be brief", temperature: 0 };
  const whole = await client.messages.create(asked);
  expect(whole.content[0].type === "text" && whole.stop_reason === "max_tokens", "a message");
  const stream = client.messages.stream(asked);
  let text = "";
  stream.on("text", (piece) => (text += piece));
  const final = await stream.finalMessage();
  expect(text === whole.content[0].text && text === final.content[0].text, "a stream is the whole");
  const count = await client.messages.countTokens({ model, messages: question, system: "Be brief" });
  expect(count.input_tokens === whole.usage.input_tokens + whole.usage.cache_read_input_tokens, "tokens are counted alike");
  const wrong = await refusal(BadRequestError, () => client.messages.create({ ...asked, temperature: 7 }));
  expect(wrong.requestID && wrong.error.error.type === "invalid_request_error", "the shape of errors");
  const broken = client.messages.stream({ ...asked, max_tokens: 400 });
  broken.on("text", () => broken.abort());
  await broken.done().catch(() => {});
  await rest();
}

async function sdk({ generateText, streamText, APICallError }, { createOpenAICompatible }) {
  const provider = createOpenAICompatible({ name: "dualgrain", baseURL: `${url}/v1`, includeUsage: true });
  const asked = { model: provider(model), prompt: "Tell me of the sea", temperature: 0, maxOutputTokens: 16, maxRetries: 0 };
  const whole = await generateText(asked);
  expect(whole.text && whole.finishReason === "length", "an answer");
  const stream = streamText(asked);
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  expect(text === whole.text && (await stream.usage).outputTokens === 16, "a stream is the whole");
  const wrong = await refusal(APICallError, () => generateText({ ...asked, temperature: 7 }));
  expect(wrong.statusCode === 400 && wrong.message.includes("from 0 to 2"), "the field is named");
  const stop = new AbortController();
  const broken = streamText({ ...asked, maxOutputTokens: 400, abortSignal: stop.signal, onError: () => {} });
  for await (const _ of broken.textStream) {
    stop.abort();
    break;
  }
  await rest();
}

const openai = await load("openai");
const anthropic = await load("@anthropic-ai/sdk");
const OpenAI = openai.OpenAI ?? openai.default.OpenAI;
const Anthropic = anthropic.Anthropic ?? anthropic.default.Anthropic;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
expect((await client.models.list()).data[0].id === model, "one model");
await chat(client);
await brokenOff(client);
await openaiErrors(client, OpenAI);
await responses(client);
await messages(new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 }), Anthropic);
await sdk(await load("ai"), await load("@ai-sdk/openai-compatible"));
console.log("all well");

"""The clients that people use, against a running server: `clients.py URL MODEL`. Ends with `all well`."""

import sys

import anthropic
import openai

URL, MODEL = sys.argv[1:3]
QUESTION = [{"role": "user", "content": "Tell me of the sea"}]
COMMON = dict(model=MODEL, messages=QUESTION, max_tokens=24)


def expect(condition, what):
    if not condition:
        raise SystemExit(f"not so: {what}")


def refusal(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise SystemExit(f"no {kind.__name__}")


def chat(client):
    asked = dict(**COMMON, seed=4, temperature=0.8)
    whole = client.chat.completions.create(**asked, n=2, logprobs=True, top_logprobs=2, stop=["zzz"])
    expect(len(whole.choices) == 2 and whole.choices[0].finish_reason in ("stop", "length"), "two choices")
    expect(len(whole.choices[0].logprobs.content[0].top_logprobs) == 2, "log-probabilities")
    expect(whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, "usage")
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    expect(text == whole.choices[0].message.content, "a stream is the whole")
    expect(chunks[-1].usage.completion_tokens > 0, "usage in the last chunk")
    answer = whole.choices[0].message
    longer = QUESTION + [answer, {"role": "user", "content": "More"}]
    client.chat.completions.create(model=MODEL, messages=longer, max_tokens=4)


def broken_off(client):
    with client.chat.completions.create(**COMMON, stream=True) as stream:
        next(iter(stream))
    expect(client.chat.completions.create(**COMMON).choices, "an answer after a stream that was broken off")


def completions(client):
    asked = dict(model=MODEL, prompt=["Once", "The sea"], max_tokens=8, temperature=0, logprobs=2)
    whole = client.completions.create(**asked)
    texts = ["", ""]
    for chunk in client.completions.create(**asked, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    expect([choice.text for choice in whole.choices] == texts, "a stream is the whole")
    expect(len(whole.choices[0].logprobs.tokens) == 8, "log-probabilities")


def openai_errors(client):
    error = refusal(openai.BadRequestError, lambda: client.chat.completions.create(**COMMON, temperature=7))
    expect(error.param == "temperature" and "from 0 to 2" in error.message, "the field is named")
    error = refusal(openai.NotFoundError, lambda: client.chat.completions.create(**{**COMMON, "model": "other"}))
    expect(error.code == "model_not_found", "the model is named")
    unknown = dict(**COMMON, extra_body={"temprature": 1})
    error = refusal(openai.BadRequestError, lambda: client.chat.completions.create(**unknown))
    expect("temperature" in error.message, "the nearest name is told")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    refusal(openai.BadRequestError, lambda: client.chat.completions.create(**COMMON, tools=tools))
    format = {"type": "json_object"}
    refusal(openai.BadRequestError, lambda: client.chat.completions.create(**COMMON, response_format=format))


def responses(client):
    asked = dict(model=MODEL, input="Tell me of the sea", max_output_tokens=16, temperature=0)
    whole = client.responses.create(**asked)
    expect(whole.output_text and whole.status == "incomplete", "a response")
    events = list(client.responses.create(**asked, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1].response
    expect(text == whole.output_text == final.output_text, "a stream is the whole")
    longer = [{"role": "user", "content": "Hi"}, *whole.output, {"role": "user", "content": "More"}]
    expect(client.responses.create(**{**asked, "input": longer}).usage.output_tokens == 16, "the answer as input")
    refusal(openai.BadRequestError, lambda: client.responses.create(**asked, previous_response_id="resp_1"))


def messages(client):
    asked = dict(**COMMON, system="Be brief", extra_body={"temperature": 0})
    whole = client.messages.create(**asked)
    expect(whole.content[0].type == "text" and whole.stop_reason == "max_tokens", "a message")
    with client.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    expect(text == whole.content[0].text == final.content[0].text, "a stream is the whole")
    expect(final.usage.output_tokens == whole.usage.output_tokens == 24, "usage")
    stop = text[5:9]
    stopped = client.messages.create(**asked, stop_sequences=[stop])
    expect((stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", stop), "the stop sequence is named")
    count = client.messages.count_tokens(model=MODEL, messages=QUESTION, system="Be brief")
    usage = whole.usage
    expect(count.input_tokens == usage.input_tokens + usage.cache_read_input_tokens, "tokens are counted alike")
    error = refusal(anthropic.BadRequestError, lambda: client.messages.create(**asked, tools=[{}]))
    expect(error.body["error"]["type"] == "invalid_request_error", "the shape of errors")
    refusal(anthropic.NotFoundError, lambda: client.messages.create(**{**asked, "model": "other"}))


def main():
    client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
    expect([model.id for model in client.models.list()] == [MODEL], "one model")
    expect(client.models.retrieve(MODEL).id == MODEL, "the model")
    chat(client)
    broken_off(client)
    completions(client)
    openai_errors(client)
    responses(client)
    messages(anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0))
    print("all well")


main()

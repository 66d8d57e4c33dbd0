"""The clients that people use, against a running server: `clients.py URL MODEL`. Ends with `all well`."""

import json
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
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}]
    refusal(openai.BadRequestError, lambda: client.chat.completions.create(**COMMON, tools=tools))
    schema = {"name": "s", "schema": {"uniqueItems": True}}
    format = {"type": "json_schema", "json_schema": schema}
    error = refusal(openai.BadRequestError, lambda: client.chat.completions.create(**COMMON, response_format=format))
    expect("#/uniqueItems" in error.message, "the path of the keyword")


SWITCH = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": False}


def openai_forms(client):
    asked = {**COMMON, "max_tokens": 100, "temperature": 0}
    format = {"type": "json_schema", "json_schema": {"name": "s", "schema": SWITCH, "strict": True}}
    whole = client.chat.completions.create(**asked, response_format=format).choices[0]
    expect(whole.finish_reason == "stop" and json.loads(whole.message.content)["on"] in (True, False), "a value of the schema")
    tools = [{"type": "function", "function": {"name": "switch", "parameters": SWITCH}}]
    asked = dict(**asked, tools=tools, tool_choice="required", parallel_tool_calls=False)
    whole = client.chat.completions.create(**asked).choices[0]
    call = whole.message.tool_calls[0]
    expect(whole.finish_reason == "tool_calls" and call.function.name == "switch", "a call")
    arguments = ""
    for chunk in client.chat.completions.create(**asked, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or []:
            arguments += delta.function.arguments or ""
    expect(arguments == call.function.arguments, "a streamed call is the whole")
    answer = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    asked["messages"] = [*QUESTION, whole.message, answer]
    expect(client.chat.completions.create(**asked).choices[0].message.tool_calls, "a call after an answer")
    tool = {"type": "function", "name": "switch", "parameters": SWITCH, "strict": True}
    asked = dict(model=MODEL, input="Switch it", tools=[tool], tool_choice="required", max_output_tokens=100, temperature=0)
    response = client.responses.create(**asked, parallel_tool_calls=False)
    expect(json.loads(response.output[0].arguments)["on"] in (True, False), "a function call item")
    with client.responses.stream(**asked, parallel_tool_calls=False) as stream:
        for _ in stream:
            pass
        expect(stream.get_final_response().output[0].arguments == response.output[0].arguments, "its stream")
    longer = [{"role": "user", "content": "Hi"}, *response.output]
    longer.append({"type": "function_call_output", "call_id": response.output[0].call_id, "output": "done"})
    expect(client.responses.create(model=MODEL, input=longer, max_output_tokens=5).output_text, "items as input")


def anthropic_forms(client):
    tool = {"name": "switch", "description": "Switch it", "input_schema": SWITCH}
    choice = {"type": "any", "disable_parallel_tool_use": True}
    asked = dict(model=MODEL, max_tokens=100, messages=QUESTION, tools=[tool], tool_choice=choice)
    asked["extra_body"] = {"temperature": 0}
    whole = client.messages.create(**asked)
    block = whole.content[0]
    expect(whole.stop_reason == "tool_use" and block.input["on"] in (True, False), "a tool_use block")
    with client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    expect(final.content[0].input == block.input, "a streamed block is the whole")
    answer = {"type": "tool_result", "tool_use_id": block.id, "content": "done"}
    asked["messages"] = [*QUESTION, {"role": "assistant", "content": whole.content}, {"role": "user", "content": [answer]}]
    expect(client.messages.create(**asked).stop_reason == "tool_use", "a call after an answer")


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
    openai_forms(client)
    responses(client)
    claude = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
    messages(claude)
    anthropic_forms(claude)
    print("all well")


main()

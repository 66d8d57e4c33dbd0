#!/usr/bin/env python3
"""Chat templates in the styles models ship, and what transformers' apply_chat_template renders from them.

    python make_chat_fixtures.py OUT MODEL

Writes OUT/expected.json. MODEL is a folder whose tokenizer_config.json has a chat_template, used as one more style;
the other templates were written for this project. Every template is rendered for every conversation with and without
the generation prompt; a case has `expected`, the text, or `error`, the message given to raise_exception.
"""

import argparse
import json
import os

import jinja2
import tokenizers
import transformers
from transformers import PreTrainedTokenizerFast

# Blocks on lines of their own and indented: the renderer must trim block lines (trim_blocks, lstrip_blocks).
CHATML = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set opening = messages[0]['content'] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set opening = 'Answer briefly.' %}
    {%- set turns = messages %}
{%- endif %}
{{- '<|im_start|>system\\n' + opening + '<|im_end|>\\n' }}
{%- for message in turns %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>' + (call.function | tojson) + '</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = false %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if loop.index0 == 0 and system %}"
    "{% set text = '<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' ~ message['content'] %}"
    "{% else %}{% set text = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + (text or '') | trim + ' ' + eos_token }}"
    "{% else %}{{ '[' ~ message['role'] | upper ~ '] ' ~ text }}{% endif %}{% endfor %}"
)

LLAMA3 = """\
{%- set counter = namespace(users=0, last_user=-1) -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {%- set counter.users = counter.users + 1 -%}
    {%- set counter.last_user = loop.index0 -%}
  {%- endif -%}
{%- endfor -%}
{{ bos_token }}
{%- for message in messages %}
  {% set body = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' %}
  {% if message['content'] is defined and message['content'] is not none %}
    {% set body = body + message['content'].strip() %}
  {% endif %}
  {% if message.get('tool_calls') %}
    {% set body = body + '\\n' + (message['tool_calls'] | tojson(indent=2)) %}
  {% endif %}
  {% if loop.first %}
{# a comment, and a line that ends a block #}
first/{{ loop.length }}:
  {% elif loop.index0 == counter.last_user %}
last question
  {% endif %}
{{ body }}<|eot_id|>
{%- endfor %}
{% if add_generation_prompt %}
<|start_header_id|>assistant<|end_header_id|>

{% endif %}
users={{ counter.users }}{{ ' odd' if counter.users % 2 else ' even' }}
"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must take turns: user, assistant, user, ...; turn ' ~ loop.index ~ ' is ' ~ message['role']) }}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" and message.content is not none %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
"""

# style: (template, bos_token, eos_token)
TEMPLATES = {
    "chatml": (CHATML, None, "<|im_end|>"),
    "llama-2": (LLAMA2, "<s>", "</s>"),
    "llama-3": (LLAMA3, "<|begin_of_text|>", "<|eot_id|>"),
    "mistral": (MISTRAL, "<s>", "</s>"),
}

CONVERSATIONS = {
    "system and three turns": [
        {"role": "system", "content": "You are a ship's cook.\nYou like short answers. "},
        {"role": "user", "content": "What is for dinner?"},
        {"role": "assistant", "content": "  Pea soup.\n"},
        {"role": "user", "content": "Again?\n"},
    ],
    "odd characters and a tool call": [
        {"role": "user", "content": '  Größe of <b>"5 & 6"</b> in 日本? \t\n'},
        {
            "role": "assistant",
            "content": "Let me look; it's {{ not }} a {% template %}.",
            "tool_calls": [
                {
                    "type": "function",
                    "function": {
                        "name": "look_up",
                        "arguments": {
                            "word": "Größe <&> 'x'",
                            "count": 2,
                            "ratio": 0.5,
                            "deep": {"z": [1, None], "a": True},
                        },
                    },
                }
            ],
        },
    ],
    "two user turns in a row": [
        {"role": "user", "content": "Hello?"},
        {"role": "user", "content": "Is anybody there?"},
    ],
}


def blank_tokenizer(bos, eos):
    vocabulary = {"<unk>": 0}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)


def render(template, bos, eos, messages, prompt):
    case = {"add_generation_prompt": prompt}
    try:
        case["expected"] = blank_tokenizer(bos, eos).apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=prompt
        )
    except jinja2.exceptions.TemplateError as error:
        case["error"] = str(error)
    return case


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("model")
    args = parser.parse_args()
    with open(os.path.join(args.model, "tokenizer_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    name = os.path.basename(os.path.normpath(args.model))
    templates = {**TEMPLATES, name: (config["chat_template"], config["bos_token"], config["eos_token"])}

    cases = [
        {"template": style, "conversation": title, **render(template, bos, eos, messages, prompt)}
        for style, (template, bos, eos) in templates.items()
        for title, messages in CONVERSATIONS.items()
        for prompt in (False, True)
    ]
    result = {
        "made_with": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
        "templates": {
            style: {"bos_token": bos, "eos_token": eos, "text": text} for style, (text, bos, eos) in templates.items()
        },
        "conversations": CONVERSATIONS,
        "cases": cases,
    }
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "expected.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main()

//! Every parameter of every interface, in one table: unknown ones are refused by it, and the manual is made of it.

use Api::{Chat, Completions, Messages, Responses};
use Rule::{Ignored, Only, Refused, Used};

/// An interface that takes parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's /v1/chat/completions.
    Chat,
    /// OpenAI's /v1/completions.
    Completions,
    /// Anthropic's /v1/messages.
    Messages,
    /// OpenAI's /v1/responses.
    Responses,
}

/// What is done with a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// It does what it says.
    Used,
    /// It may be there and changes nothing.
    Ignored,
    /// This JSON value is taken, which asks for nothing; any other is refused.
    Only(&'static str),
    /// It is known and not supported: refused also where unknown fields are passed over.
    Refused,
}

/// A parameter of some interfaces.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// The interfaces that have it.
    pub apis: &'static [Api],
    /// What is done with it.
    pub rule: Rule,
    /// What it means, its range and default.
    pub what: &'static str,
}

const ALL: &[Api] = &[Chat, Completions, Responses, Messages];
const LIMITED: &[Api] = &[Chat, Completions, Messages];
const OPENAI: &[Api] = &[Chat, Completions];
const PENALIZED: &[Api] = &[Chat, Completions, Responses];
const NEWER_TOOLS: &str = "`tools` has taken its place";
const NO_GRAMMARS: &str = "`response_format` takes JSON Schemas; other grammars are not supported";
const FORM: &str = "a text, any JSON object (`json_object`), or a value of a schema (`json_schema`), which the answer follows token by token; what of JSON Schema is followed stands below";
const NO_STATE: &str = "nothing is stored: send the whole conversation";
const NO_THINKING: &str =
    "how much a model thinks can not be set; thoughts that its template marks are set apart";

const fn used(name: &'static str, apis: &'static [Api], what: &'static str) -> Parameter {
    let rule = Used;
    Parameter {
        name,
        apis,
        rule,
        what,
    }
}

const fn only(
    name: &'static str,
    apis: &'static [Api],
    value: &'static str,
    what: &'static str,
) -> Parameter {
    let rule = Only(value);
    Parameter {
        name,
        apis,
        rule,
        what,
    }
}

const fn ignored(name: &'static str, apis: &'static [Api], what: &'static str) -> Parameter {
    let rule = Ignored;
    Parameter {
        name,
        apis,
        rule,
        what,
    }
}

const fn refused(name: &'static str, apis: &'static [Api], what: &'static str) -> Parameter {
    let rule = Refused;
    Parameter {
        name,
        apis,
        rule,
        what,
    }
}

/// Every parameter, in the order of the manual.
const PARAMETERS: &[Parameter] = &[
    used(
        "model",
        ALL,
        "the name of the model as /v1/models gives it; may be left out",
    ),
    used(
        "messages",
        &[Chat, Messages],
        "the conversation, 1 to 1,024 messages; `content` is a text or a list of text parts",
    ),
    used(
        "input",
        &[Responses],
        "the conversation: a text, or 1 to 1,024 messages whose `content` is a text or a list of text parts",
    ),
    used("instructions", &[Responses], "the system prompt"),
    used(
        "max_output_tokens",
        &[Responses],
        "end after so many tokens, at least 1; by default at the end of the context",
    ),
    used(
        "metadata",
        &[Responses],
        "up to 16 texts by name, given back with the answer and not stored",
    ),
    used(
        "system",
        &[Messages],
        "the system prompt, a text or a list of text parts",
    ),
    used(
        "prompt",
        &[Completions],
        "a text, a list of texts, a list of token ids, or a list of such lists",
    ),
    used(
        "max_tokens",
        LIMITED,
        "end after so many tokens, at least 1; chat goes on to the end of the context by default, completions to 16 tokens, messages must name it",
    ),
    used("max_completion_tokens", &[Chat], "the newer name of `max_tokens`"),
    used(
        "temperature",
        ALL,
        "0 to 2, default 1 or the model's; 0 takes the most likely token every time",
    ),
    used("top_p", ALL, "0.000001 to 1, default 1 or the model's"),
    used(
        "top_k",
        ALL,
        "only the K most likely tokens; 0 or -1 means all, the default where the model has none",
    ),
    used(
        "min_p",
        OPENAI,
        "0 to 1, default 0 or the model's: only tokens at least so many times as likely as the best",
    ),
    used("frequency_penalty", PENALIZED, "-2 to 2, default 0"),
    used("presence_penalty", PENALIZED, "-2 to 2, default 0"),
    used(
        "repetition_penalty",
        OPENAI,
        "0.001 to 100, default 1 or the model's",
    ),
    used(
        "logit_bias",
        OPENAI,
        "an object from token ids to numbers from -100 to 100, at most 1,024 of them",
    ),
    used(
        "seed",
        OPENAI,
        "a whole number: the same seed gives the same answer; choice i draws with seed + i; drawn at random by default",
    ),
    used(
        "stop",
        OPENAI,
        "a text or up to 16 texts that end the answer and do not belong to it",
    ),
    used(
        "stop_sequences",
        &[Messages],
        "up to 16 texts that end the answer and do not belong to it",
    ),
    used(
        "ignore_eos",
        OPENAI,
        "true goes on where the model would end, up to `max_tokens`: for measurements; default false",
    ),
    used(
        "n",
        OPENAI,
        "answers to each prompt, default 1; at most 128 in a request",
    ),
    used(
        "logprobs",
        OPENAI,
        "chat: true or false; completions: 0 to 20 most likely tokens. Of the model's own distribution, before temperature, penalties and biases",
    ),
    used(
        "top_logprobs",
        &[Chat],
        "0 to 20 most likely tokens at each place; needs `logprobs`",
    ),
    used(
        "stream",
        ALL,
        "send the answer as server-sent events while it grows",
    ),
    used(
        "stream_options",
        OPENAI,
        "`include_usage`: a last chunk with `usage`; needs `stream`",
    ),
    used(
        "priority",
        OPENAI,
        "a whole number, default 0: of the requests that wait, those with smaller numbers are served first; among keys it changes nothing",
    ),
    ignored("user", &[Chat, Completions, Responses], "changes nothing"),
    ignored("metadata", &[Chat, Messages], "changes nothing and is not stored"),
    ignored("safety_identifier", &[Chat, Responses], "changes nothing"),
    ignored(
        "max_tool_calls",
        &[Responses],
        "it bounds tools that a server runs, and this one runs none",
    ),
    ignored(
        "prompt_cache_key",
        &[Chat, Responses],
        "what is cached is found by its tokens",
    ),
    ignored(
        "cache_control",
        &[Messages],
        "what is cached is found by its tokens",
    ),
    ignored("prediction", &[Chat], "it could change the speed alone"),
    used("response_format", &[Chat], FORM),
    used("text", &[Responses], "`format`: as `response_format` of chat"),
    used(
        "output_config",
        &[Messages],
        "`format`: as `response_format` of chat",
    ),
    used(
        "tools",
        &[Chat, Responses, Messages],
        "up to 128 functions that the client runs; their arguments follow their schemas token by token",
    ),
    used(
        "tool_choice",
        &[Chat, Responses, Messages],
        "whether tools are called: `none`, `auto` (the default), `required` (messages: `any`), or one by its name",
    ),
    used(
        "parallel_tool_calls",
        &[Chat, Responses],
        "whether several calls may come in one answer, default true",
    ),
    only("modalities", &[Chat], r#"["text"]"#, "the model writes text"),
    used(
        "thinking",
        &[Messages],
        "`enabled`, `adaptive` or `disabled`, with `budget_tokens` below `max_tokens`: a goal that changes nothing. Models think where their template lets them, and thoughts that it marks are set apart",
    ),
    only("echo", &[Completions], "false", "the prompt is not given back"),
    only("best_of", &[Completions], "1", "every answer is given back"),
    only(
        "service_tier",
        &[Chat, Responses, Messages],
        r#""auto""#,
        "requests are served in the order they came",
    ),
    only("store", &[Chat, Responses], "false", "nothing is stored"),
    only(
        "truncation",
        &[Responses],
        r#""disabled""#,
        "a conversation that is too long is refused",
    ),
    only("background", &[Responses], "false", NO_STATE),
    only(
        "include",
        &[Responses],
        "[]",
        "answers are given back as they are",
    ),
    only("top_logprobs", &[Responses], "0", "chat has them"),
    ignored("stream_options", &[Responses], "events are not padded"),
    refused("previous_response_id", &[Responses], NO_STATE),
    refused("conversation", &[Responses], NO_STATE),
    refused("prompt", &[Responses], NO_STATE),
    refused("reasoning", &[Responses], NO_THINKING),
    refused("functions", &[Chat], NEWER_TOOLS),
    refused("function_call", &[Chat], NEWER_TOOLS),
    refused("reasoning_effort", &[Chat], NO_THINKING),
    refused(
        "web_search_options",
        &[Chat],
        "tools are functions that the client runs",
    ),
    refused("audio", &[Chat], "the model writes text"),
    refused("suffix", &[Completions], "the model writes on, not between"),
    refused("structured_outputs", OPENAI, NO_GRAMMARS),
    refused("guided_json", OPENAI, NO_GRAMMARS),
    refused("guided_regex", OPENAI, NO_GRAMMARS),
    refused("guided_choice", OPENAI, NO_GRAMMARS),
    refused("guided_grammar", OPENAI, NO_GRAMMARS),
    refused("json_schema", OPENAI, NO_GRAMMARS),
    refused("grammar", OPENAI, NO_GRAMMARS),
];

/// The parameters of an interface.
pub fn parameters(api: Api) -> impl Iterator<Item = &'static Parameter> {
    PARAMETERS
        .iter()
        .filter(move |parameter| parameter.apis.contains(&api))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_single_values_are_json() {
        for api in ALL {
            let mut names: Vec<_> = parameters(*api).map(|parameter| parameter.name).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        }
        for parameter in PARAMETERS {
            if let Only(value) = parameter.rule {
                serde_json::from_str::<serde_json::Value>(value).expect(parameter.name);
            }
        }
    }
}

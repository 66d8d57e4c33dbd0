//! All paths but those of the page: where they lead, and what is told of them.

use std::sync::Arc;

use axum::routing::{MethodRouter, delete, get, post};

use crate::app::App;
use crate::contract::{Answer, Endpoint, Errors, Verb, answers, bodies};
use crate::endpoints::{cancel, observe, texts};
use crate::{anthropic, openai};

/// A path and what answers there.
pub type Path = (Endpoint, fn() -> MethodRouter<Arc<App>>);

/// The document of all paths, which leads nowhere but to itself.
pub const DOCUMENT: Endpoint = Endpoint {
    answer: Answer::Json(answers::document),
    ..open("/openapi.json", "this interface as OpenAPI 3.1 describes it")
};

/// Every path, in the order of the manual.
pub const PATHS: [Path; 16] = [
    (CHAT, || post(openai::chat)),
    (COMPLETIONS, || post(openai::completions)),
    (RESPONSES, || post(openai::responses)),
    (DELETE_RESPONSE, || delete(cancel::delete_response)),
    (CANCEL_RESPONSE, || post(cancel::cancel_response)),
    (DELETE_CHAT, || delete(cancel::delete_chat)),
    (MESSAGES, || post(anthropic::messages)),
    (COUNT_TOKENS, || post(anthropic::count_tokens)),
    (MODELS, || get(openai::models)),
    (MODEL, || get(openai::model)),
    (TOKENIZE, || post(texts::tokenize)),
    (DETOKENIZE, || post(texts::detokenize)),
    (APPLY_TEMPLATE, || post(texts::apply_template)),
    (HEALTH, || get(observe::health)),
    (READY, || get(observe::ready)),
    (METRICS, || get(observe::metrics)),
];

const CHAT: Endpoint = Endpoint {
    verb: Verb::Post(bodies::chat),
    answer: Answer::JsonOrEvents(answers::chat),
    ..guarded(
        "/v1/chat/completions",
        "answers a conversation, whole or as server-sent events that end with `data: [DONE]`",
    )
};
const COMPLETIONS: Endpoint = Endpoint {
    verb: Verb::Post(bodies::completions),
    answer: Answer::JsonOrEvents(answers::completions),
    ..guarded("/v1/completions", "continues texts or lists of token ids")
};
const RESPONSES: Endpoint = Endpoint {
    verb: Verb::Post(bodies::responses),
    answer: Answer::JsonOrEvents(answers::responses),
    ..guarded(
        "/v1/responses",
        "answers a conversation in the shape of OpenAI's newer interface, without state",
    )
};
const DELETE_RESPONSE: Endpoint = Endpoint {
    verb: Verb::Delete,
    answer: Answer::Json(answers::deleted),
    ..guarded(
        "/v1/responses/{name}",
        "ends an answer under way, of any interface, by its id or by the `x-request-id` of its request",
    )
};
const CANCEL_RESPONSE: Endpoint = Endpoint {
    verb: Verb::Call,
    answer: Answer::Json(answers::cancelled),
    ..guarded("/v1/responses/{name}/cancel", "the same")
};
const DELETE_CHAT: Endpoint = Endpoint {
    verb: Verb::Delete,
    answer: Answer::Json(answers::deleted),
    ..guarded("/v1/chat/completions/{name}", "the same")
};
const MESSAGES: Endpoint = Endpoint {
    verb: Verb::Post(bodies::messages),
    answer: Answer::JsonOrEvents(answers::messages),
    errors: Errors::Anthropic,
    ..guarded(
        "/v1/messages",
        "answers a conversation in Anthropic's shape, whole or as its events",
    )
};
const COUNT_TOKENS: Endpoint = Endpoint {
    verb: Verb::Post(bodies::count_tokens),
    answer: Answer::Json(answers::count_tokens),
    errors: Errors::Anthropic,
    ..guarded("/v1/messages/count_tokens", "`input_tokens` of a conversation")
};
const MODELS: Endpoint = guarded(
    "/v1/models",
    "the one model there is; `max_model_len` is its context",
);
const MODEL: Endpoint = Endpoint {
    answer: Answer::Json(answers::model),
    ..guarded("/v1/models/{*name}", "the same, by its name")
};
const TOKENIZE: Endpoint = Endpoint {
    verb: Verb::Post(bodies::tokenize),
    answer: Answer::Json(answers::tokenize),
    ..guarded(
        "/tokenize",
        "`tokens` of `prompt` (with `add_special_tokens`, true by default) or of the conversation in `messages`",
    )
};
const DETOKENIZE: Endpoint = Endpoint {
    verb: Verb::Post(bodies::detokenize),
    answer: Answer::Json(answers::prompt),
    ..guarded("/detokenize", "`prompt`, the text of `tokens`")
};
const APPLY_TEMPLATE: Endpoint = Endpoint {
    verb: Verb::Post(bodies::apply_template),
    answer: Answer::Json(answers::prompt),
    ..guarded(
        "/apply-template",
        "`prompt`, the text that the chat template makes of `messages`",
    )
};
const HEALTH: Endpoint = open(
    "/health",
    "200, or 503 with the reason: a step takes longer than `--stall`, or the engine is gone",
);
const READY: Endpoint = open("/ready", "200, or 503 while the server drains or is unhealthy");
const METRICS: Endpoint = Endpoint {
    answer: Answer::Text(observe::METRICS_TYPE),
    ..open("/metrics", "counters and times in the OpenMetrics text format")
};

const fn guarded(path: &'static str, what: &'static str) -> Endpoint {
    Endpoint {
        path,
        verb: Verb::Get,
        guarded: true,
        errors: Errors::OpenAi,
        answer: Answer::Json(answers::models),
        what,
    }
}

const fn open(path: &'static str, what: &'static str) -> Endpoint {
    Endpoint {
        guarded: false,
        answer: Answer::Health(answers::health),
        ..guarded(path, what)
    }
}

//! Schemas of bodies, from the table of parameters.

use serde_json::{Map, Value, json};

use super::conversation::chat_messages;
use super::endpoint::{About, or_null, text};
use super::shapes::shape;
use crate::parameters::{Api, Rule, parameters};

/// Of /v1/chat/completions.
pub fn chat(about: &About) -> Value {
    body(Api::Chat, &["messages"], about)
}

/// Of /v1/completions.
pub fn completions(about: &About) -> Value {
    body(Api::Completions, &["prompt"], about)
}

/// Of /v1/responses.
pub fn responses(about: &About) -> Value {
    body(Api::Responses, &["input"], about)
}

/// Of /v1/messages.
pub fn messages(about: &About) -> Value {
    body(Api::Messages, &["messages", "max_tokens"], about)
}

/// Of /v1/messages/count_tokens, where what does not change the prompt is not looked at.
pub fn count_tokens(about: &About) -> Value {
    let mut body = body(Api::Messages, &["messages"], about);
    if let Some(fields) = body["properties"].as_object_mut() {
        for parameter in parameters(Api::Messages).filter(|parameter| parameter.rule == Rule::Used) {
            if !["model", "messages", "system"].contains(&parameter.name) {
                fields.insert(parameter.name.into(), json!({}));
            }
        }
    }
    body
}

/// Of /tokenize: a text or a conversation.
pub fn tokenize(about: &About) -> Value {
    let prompt = json!({"prompt": text(), "add_special_tokens": {"type": ["boolean", "null"]}});
    let conversation = json!({"messages": chat_messages(about), "prompt": {"type": "null"}});
    json!({"anyOf": [fields(prompt, &["prompt"], about), fields(conversation, &["messages"], about)]})
}

/// Of /detokenize.
pub fn detokenize(about: &About) -> Value {
    fields(json!({"tokens": about.token_ids()}), &["tokens"], about)
}

/// Of /apply-template.
pub fn apply_template(about: &About) -> Value {
    fields(json!({"messages": chat_messages(about)}), &["messages"], about)
}

fn fields(mut properties: Value, required: &[&str], about: &About) -> Value {
    properties["model"] = or_null(json!({"type": "string", "enum": [about.alias]}));
    json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": about.unknown_fields()
    })
}

fn body(api: Api, required: &[&str], about: &About) -> Value {
    let mut properties = Map::new();
    for parameter in parameters(api) {
        let is_required = required.contains(&parameter.name);
        let mut schema = match parameter.rule {
            Rule::Used => {
                let schema = shape(api, parameter.name, about).unwrap_or_else(|| json!({}));
                if is_required { schema } else { or_null(schema) }
            }
            Rule::Ignored => json!({}),
            Rule::Only(value) => {
                or_null(json!({"const": serde_json::from_str::<Value>(value).unwrap_or_default()}))
            }
            Rule::Refused => json!({"type": "null"}),
        };
        schema["description"] = parameter.what.into();
        properties.insert(parameter.name.into(), schema);
    }
    json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": about.unknown_fields()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Bounds;

    #[test]
    fn every_parameter_that_does_something_has_a_shape() {
        let about = About {
            alias: "tiny".into(),
            bounds: Bounds {
                context_tokens: 100,
                vocab_size: 50,
                defaults: Default::default(),
            },
            ignore_unknown: false,
        };
        for api in [Api::Chat, Api::Completions, Api::Responses, Api::Messages] {
            for parameter in parameters(api).filter(|parameter| parameter.rule == Rule::Used) {
                let found = shape(api, parameter.name, &about);
                assert!(
                    found.is_some(),
                    "contract/shapes.rs lacks {api:?}: {}",
                    parameter.name
                );
            }
        }
    }
}

//! Schemas of what an answer must look like and of the tools that it may call. JSON Schemas inside are described as any value: what of
//! them is followed stands in the manual.

use serde_json::{Value, json};

use super::conversation::closed;
use super::endpoint::{About, or_null, text, whole};
use crate::answers::{MAX_NAME_BYTES, MAX_TOOLS};
use crate::parameters::Api;
use crate::parameters::ranges::{MAX_TOKENS, THINKING_TYPES};

/// The schema of such a parameter, where it is one.
pub fn form_shape(api: Api, name: &str, about: &About) -> Option<Value> {
    Some(match (api, name) {
        (_, "response_format") => {
            let schema = closed(schema_fields(), &[], about);
            let fields = json!({"type": form_types(), "json_schema": or_null(schema), "schema": {}});
            closed(fields, &["type"], about)
        }
        (_, "text") => closed(
            json!({"format": or_null(format(about)), "verbosity": {}}),
            &[],
            about,
        ),
        (_, "thinking") => thinking(about),
        (_, "output_config") => closed(json!({"format": or_null(format(about))}), &[], about),
        (_, "tools") => json!({"type": "array", "items": tool(api, about), "maxItems": MAX_TOOLS}),
        (Api::Messages, "tool_choice") => {
            json!({"type": "object", "properties": {"type": {"enum": ["none", "auto", "any", "tool"]}}, "required": ["type"]})
        }
        (_, "tool_choice") => json!({"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}]}),
        (_, "parallel_tool_calls") => json!({"type": "boolean"}),
        _ => return None,
    })
}

fn thinking(about: &About) -> Value {
    let budget = or_null(whole(MAX_TOKENS));
    let fields = json!({"type": {"enum": THINKING_TYPES}, "budget_tokens": budget, "display": {}});
    closed(fields, &["type"], about)
}

fn form_types() -> Value {
    json!({"type": "string", "enum": ["text", "json_object", "json_schema"]})
}

fn schema_fields() -> Value {
    json!({"name": {}, "description": {}, "schema": {}, "strict": {}})
}

fn format(about: &About) -> Value {
    let mut fields = schema_fields();
    fields["type"] = form_types();
    closed(fields, &["type"], about)
}

fn tool(api: Api, about: &About) -> Value {
    let pattern = format!("^[A-Za-z0-9_.-]{{1,{MAX_NAME_BYTES}}}$");
    let mut fields = json!({
        "name": {"type": "string", "pattern": pattern}, "description": or_null(text()),
        "strict": {"type": ["boolean", "null"]}, "cache_control": {}
    });
    let schema = match api {
        Api::Messages => "input_schema",
        _ => "parameters",
    };
    fields[schema] = json!({});
    match api {
        Api::Messages => {
            fields["type"] = or_null(json!({"const": "custom"}));
            closed(fields, &["name"], about)
        }
        Api::Responses => {
            fields["type"] = json!({"const": "function"});
            closed(fields, &["type", "name"], about)
        }
        _ => {
            let function = closed(fields, &["name"], about);
            let fields = json!({"type": {"const": "function"}, "function": function});
            closed(fields, &["type", "function"], about)
        }
    }
}

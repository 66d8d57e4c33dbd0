//! GET /openapi.json: the endpoints as OpenAPI 3.1 has them.

use serde_json::{Map, Value, json};

use super::answers;
use super::endpoint::{About, Answer, Endpoint, Errors, Verb};

/// The document of these endpoints.
pub fn document(about: &About, has_keys: bool, endpoints: &[Endpoint]) -> Value {
    let mut paths = Map::new();
    for endpoint in endpoints {
        let path = endpoint.path.replace("{*name}", "{name}");
        let operations = paths.entry(path).or_insert_with(|| json!({}));
        operations[endpoint.method().to_ascii_lowercase()] = operation(endpoint, about, has_keys);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "dualgrain", "version": env!("CARGO_PKG_VERSION"),
            "description": "A model behind the interfaces of OpenAI and Anthropic. A field that is null counts as absent."
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Error": answers::openai_error(),
                "AnthropicError": answers::anthropic_error()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"}
            }
        }
    })
}

fn operation(endpoint: &Endpoint, about: &About, has_keys: bool) -> Value {
    let mut operation = json!({
        "summary": endpoint.what,
        "operationId": operation_id(endpoint),
        "responses": responses(endpoint)
    });
    if let Verb::Post(body) = endpoint.verb {
        let content = json!({"application/json": {"schema": body(about)}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    if endpoint.path.contains("name}") {
        let mut schema = json!({"type": "string", "minLength": 1});
        if endpoint.path.contains("{*name}") {
            schema["example"] = about.alias.clone().into();
        }
        operation["parameters"] = json!([{"name": "name", "in": "path", "required": true, "schema": schema}]);
    }
    if has_keys && endpoint.guarded {
        operation["security"] = json!([{"bearer": []}, {"header": []}]);
    }
    operation
}

/// `POST /v1/chat/completions` is `post_v1_chat_completions`.
fn operation_id(endpoint: &Endpoint) -> String {
    let words = endpoint.path.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    format!("{}_{}", endpoint.method().to_ascii_lowercase(), words.join("_"))
}

fn responses(endpoint: &Endpoint) -> Value {
    let json_of = |schema: Value| json!({"application/json": {"schema": schema}});
    let content = match endpoint.answer {
        Answer::Json(schema) | Answer::Health(schema) => json_of(schema()),
        Answer::JsonOrEvents(schema) => {
            let mut content = json_of(schema());
            // Readers of descriptions disagree on whether a schema is of the whole text or of one event.
            content["text/event-stream"] = json!({"schema": {"description": "server-sent events"}});
            content
        }
        Answer::Text(kind) => json!({kind: {"schema": {"type": "string"}}}),
    };
    let error = match endpoint.errors {
        Errors::OpenAi => json!({"$ref": "#/components/schemas/Error"}),
        Errors::Anthropic => json!({"$ref": "#/components/schemas/AnthropicError"}),
    };
    let server_error = match endpoint.answer {
        Answer::Health(schema) => schema(),
        _ => error.clone(),
    };
    json!({
        "200": {"description": "The answer", "headers": names(), "content": content},
        "4XX": {"description": "What is wrong with the request", "headers": names(), "content": json_of(error)},
        "5XX": {"description": "Why the server can not answer", "headers": names(), "content": json_of(server_error)}
    })
}

/// Every answer has the name of its request.
fn names() -> Value {
    json!({"x-request-id": {"description": "The name of the request", "schema": {"type": "string"}}})
}

//! Walks at random through the masks of grammars: whatever a walk gives must be a value of the schema.

mod fuzz;
mod suite;
mod walk;

use serde_json::{Value, json};
use walk::{Walks, accept_all};

use super::check;

/// Schemas of many kinds that are followed.
fn schemas() -> Vec<Value> {
    let person = json!({"type": "object", "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["a", "b", 3, null]}, "minItems": 1, "maxItems": 3}
    }, "required": ["name", "age"], "additionalProperties": false});
    let tree = json!({"$defs": {"node": {"type": "object", "properties": {
        "value": {"type": "number", "minimum": -10, "maximum": 10},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}
    }, "required": ["value", "next"], "additionalProperties": false}}, "$ref": "#/$defs/node"});
    let mut all = vec![
        person,
        tree,
        json!({"type": "object"}),
        json!({"type": "object", "minProperties": 1, "maxProperties": 2.0}),
        json!({"type": "object", "patternProperties": {"^x[0-9]{1,3}$": {"type": "boolean"}}, "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string", "maxLength": 4}}),
        json!({"type": ["string", "null"], "maxLength": 5}),
        json!({"enum": ["x", 1, 2.5, true, null, {"a": [1, "b"]}]}),
        json!({"const": {"nested": ["value", {"deep": false}]}}),
        json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": false, "minItems": 2}),
        json!({"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 1000}),
        json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-\\d{3}$"}),
        json!({"type": "string", "pattern": "ab+c", "maxLength": 12}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                         {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}]}),
        json!({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}]}),
        json!({"type": "object", "properties": {"k": {"const": "a"}, "\"é\\": {"type": "null"}}, "required": ["k", "\"é\\"]}),
        json!({"type": "string", "format": "date", "pattern": "^20"}),
    ];
    all.extend(super::formats::FORMATS.map_schemas());
    all
}

trait MapSchemas {
    fn map_schemas(&self) -> Vec<Value>;
}

impl MapSchemas for [&str] {
    fn map_schemas(&self) -> Vec<Value> {
        self.iter()
            .map(|format| json!({"type": "string", "format": format}))
            .collect()
    }
}

#[test]
fn whatever_follows_a_grammar_is_a_value_of_its_schema() {
    let mut walks = Walks::new(5);
    for schema in schemas() {
        let constraint = walks.grammars.schema("schema", &schema);
        let constraint = constraint.unwrap_or_else(|error| panic!("{schema}: {}", error.message));
        let ended = (0..25).filter(|_| walks.walk(&schema, &constraint, 150)).count();
        assert!(ended > 10, "{schema}: {ended} of 25 walks ended");
    }
}

#[test]
fn what_is_not_followed_is_refused_with_its_path() {
    let walks = Walks::new(1);
    let cases = [
        (
            json!({"properties": {"a": {"not": {}}}}),
            "#/properties/a/not: this keyword is not supported",
        ),
        (json!({"items": {"uniqueItems": true}}), "#/items/uniqueItems: "),
        (json!({"if": {}, "then": {}}), "#/if: "),
        (
            json!({"proprties": {}}),
            "#/proprties: this keyword is not supported (did you mean `properties`?)",
        ),
        (json!({"type": "strin"}), "#/type: expected a type"),
        (
            json!({"type": "string", "format": "iri"}),
            "#/format: formats are date-time",
        ),
        (
            json!({"$ref": "http://example.com/s"}),
            "#/$ref: only references within",
        ),
        (
            json!({"$ref": "#/$defs/a"}),
            "#/$ref: `#/$defs/a` leads to no schema",
        ),
        (
            json!({"properties": {"a/b~": {"minimum": "x"}}}),
            "#/properties/a~1b~0/minimum: expected a number",
        ),
        (
            json!({"required": ["a", "a"]}),
            "#/required: expected a list of different texts",
        ),
        (json!({"minProperties": 3}), "#/minProperties: at most 1"),
        (json!({"enum": []}), "#/enum: expected a list"),
        (json!({"const": 1e300}), "#/const: numbers up to 2^53"),
        (
            json!({"$schema": "http://json-schema.org/draft-04/schema#"}),
            "#/$schema: expected one of",
        ),
        (
            json!({"anyOf": [true, {"$id": "x"}]}),
            "#/anyOf/1/$id: taken at the root",
        ),
        (json!([1]), "#: expected a JSON Schema as an object"),
        (
            json!({"properties": {"a": {"type": "string", "pattern": "(?=a)b"}}}),
            "#/properties/a: ",
        ),
        (
            json!({"properties": {"a": {"type": "string", "pattern": "("}}}),
            "#/properties/a: ",
        ),
        (
            json!({"properties": {"a": {"oneOf": [{"type": "object"}, {"type": "object"}]}}}),
            "#/properties/a: ",
        ),
        (json!({"type": "integer", "minimum": 3, "maximum": 2}), "#: "),
    ];
    for (schema, expected) in cases {
        let error = walks.grammars.schema("f", &schema).unwrap_err();
        assert!(
            error.message.starts_with(&format!("f: {expected}")),
            "{schema}: {}",
            error.message
        );
        assert_eq!(error.status.as_u16(), 400);
    }
}

#[test]
fn annotations_change_nothing() {
    let plain = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let mut said = json!({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x", "title": "T", "type": "object",
        "description": "D", "default": {}, "examples": [1], "deprecated": true, "$comment": "C", "properties": {"a":
        {"type": "integer", "title": "A", "readOnly": true, "writeOnly": false}}});
    assert_eq!(check(&said).unwrap().at("#"), check(&plain).unwrap().at("#"));
    said["properties"]["a"]["nonsense"] = 1.into();
    assert_eq!(check(&said).unwrap_err().path, "#/properties/a/nonsense");
}

#[test]
fn bombs_end_within_their_bounds() {
    let walks = Walks::new(1);
    let mut deep = json!({"type": "integer"});
    for _ in 0..80 {
        deep = json!({"type": "array", "items": deep});
    }
    let wide: serde_json::Map<String, Value> = (0..4_000)
        .map(|i| {
            (
                format!("property_{i}"),
                json!({"type": "string", "pattern": "^(a|b|c){1,300}$"}),
            )
        })
        .collect();
    let choices: Vec<Value> = (0..60)
        .map(|i| json!({"anyOf": [{"properties": {format!("a{i}"): {"type": "integer"}}}, {"properties": {format!("b{i}"): {"type": "integer"}}}]}))
        .collect();
    let bombs = [
        deep,
        json!({"type": "object", "properties": wide}),
        json!({"type": "string", "pattern": "^(((a{1,100}){1,100}){1,100}){1,100}$"}),
        json!({"type": "string", "pattern": "^(a?){5000}a{5000}$"}),
        json!({"type": "array", "minItems": 2_000_000_000}),
        json!({"type": "string", "minLength": 4_000_000_000_u64}),
        json!({"allOf": choices}),
        json!({"$ref": "#"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"allOf": [{"$ref": "#"}, {"type": "object"}]}),
    ];
    for bomb in bombs {
        let begun = std::time::Instant::now();
        let outcome = walks.grammars.schema("f", &bomb);
        // Each part of a refused schema may take a second; nobody is kept longer than a client waits.
        assert!(begun.elapsed().as_secs() < 60);
        if let Ok(constraint) = outcome {
            accept_all(&constraint, 20);
        }
    }
    let sound = json!({"type": "boolean"});
    let mut patience = 600;
    while walks.grammars.schema("f", &sound).is_err() {
        patience -= 1;
        assert!(patience > 0, "threads that compile never ended");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

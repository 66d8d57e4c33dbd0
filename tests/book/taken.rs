//! docs/reference/taken.md is what the program says when it is asked for what it does not have: the classes of models, the methods of
//! other programs and the formats of export that it names in its refusals; and the keywords of JSON Schema that a server takes when it is tried.

use std::fs;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::committed::{assert_is, read};
use crate::program::{dualgrain, scratch, stderr, text};
use crate::server::Server;

const HEAD: &str = "# What the program takes\n\nLists that the program itself gives: it is asked for something that does not exist, \
    and names what does. Keywords of schemas are tried one by one on a running server.\n";

/// What stands between backticks, or what commas part.
fn listed(words: &str) -> Vec<String> {
    let names = words
        .split([',', ' ', '`', '[', ']'])
        .map(|word| word.trim().to_owned());
    names.filter(|word| !word.is_empty() && word != "and").collect()
}

fn in_backticks(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// What `cost` answers for a folder whose config.json is `config`.
fn asked(config: &Value) -> Output {
    static NUM_FOLDERS: AtomicUsize = AtomicUsize::new(0);
    let number = NUM_FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = scratch("book", &format!("taken-{number}"));
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    dualgrain(&["cost", text(&folder), "--device", "h200"])
}

/// How it is refused.
fn refusal(config: &Value) -> String {
    let output = asked(config);
    assert_eq!(output.status.code(), Some(1), "{config}");
    stderr(&output)
}

/// The words of a refusal between two others.
fn between<'a>(told: &'a str, begin: &str, end: &str) -> &'a str {
    let rest = told
        .split_once(begin)
        .unwrap_or_else(|| panic!("no `{begin}` in: {told}"))
        .1;
    rest.split(end).next().unwrap_or(rest).trim()
}

fn classes() -> Vec<String> {
    let told = refusal(&json!({"model_type": "none-such", "architectures": ["NoneSuch"]}));
    let names = listed(between(&told, "supported: ", "\n"));
    assert!(names.len() >= 20, "{told}");
    names
}

fn methods() -> Vec<String> {
    let mut config: Value = serde_json::from_str(&read("models/llama-tiny/config.json")).unwrap();
    config["quantization_config"] = json!({"quant_method": "none-such"});
    let told = refusal(&config);
    let names = listed(between(&told, "this program reads ", " (and"));
    assert!(names.len() >= 5, "{told}");
    names
}

fn formats() -> Vec<String> {
    let output = dualgrain(&["export", "x", "--format", "none-such", "--out", "y"]);
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    listed(between(&told, "possible values: ", "]"))
}

/// Keywords of draft 2020-12 and two older ones, each with a schema that has it at its root.
fn keywords() -> Vec<(&'static str, Value)> {
    let value = |keyword: &str| match keyword {
        "type" => json!("string"),
        "enum" | "examples" => json!(["a"]),
        "const" | "title" | "description" | "default" | "$comment" => json!("a"),
        "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
            json!({"a": {"type": "string"}})
        }
        "required" => json!([]),
        "dependentRequired" | "$vocabulary" => json!({}),
        "minimum" | "exclusiveMinimum" => json!(0),
        "maximum" | "exclusiveMaximum" | "multipleOf" => json!(3),
        "minProperties" | "minItems" | "minLength" | "minContains" => json!(0),
        "maxProperties" | "maxItems" | "maxLength" | "maxContains" => json!(2),
        "pattern" => json!("^a$"),
        "format" => json!("date"),
        "prefixItems" | "anyOf" | "allOf" | "oneOf" => json!([{"type": "string"}]),
        "$ref" | "$dynamicRef" => json!("#/$defs/a"),
        "$schema" => json!("https://json-schema.org/draft/2020-12/schema"),
        "$id" | "$anchor" | "$dynamicAnchor" | "contentEncoding" | "contentMediaType" => json!("a"),
        "deprecated" | "readOnly" | "writeOnly" | "uniqueItems" => json!(true),
        _ => json!({"type": "string"}),
    };
    let all = "type enum const properties patternProperties additionalProperties required minProperties maxProperties propertyNames dependentRequired \
        dependentSchemas unevaluatedProperties items prefixItems contains minContains maxContains minItems maxItems uniqueItems unevaluatedItems minLength maxLength \
        pattern format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf anyOf oneOf allOf not if then else $ref $defs definitions $dynamicRef $anchor \
        $dynamicAnchor $vocabulary contentEncoding contentMediaType contentSchema title description default examples deprecated readOnly writeOnly $comment $schema $id";
    let schema = |keyword: &'static str| {
        let mut schema = json!({"$defs": {"a": {"type": "string"}}});
        schema[keyword] = value(keyword);
        (keyword, schema)
    };
    all.split_whitespace().map(schema).collect()
}

/// Whether a server takes a schema; a refusal must be one of the schema.
fn is_taken(server: &Server, schema: &Value) -> bool {
    let (status, body) = server.post(
        "/v1/chat/completions",
        &json!({
            "messages": [{"role": "user", "content": "a"}],
            "max_tokens": 1,
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        }),
    );
    assert!([200, 400].contains(&status), "{schema}: {status} {body}");
    assert!(status == 200 || body.contains("schema"), "{schema}: {body}");
    status == 200
}

fn parted(server: &Server) -> (Vec<String>, Vec<String>) {
    let names =
        |wanted: &[(&'static str, Value)]| wanted.iter().map(|(name, _)| (*name).to_owned()).collect();
    let (taken, refused): (Vec<_>, Vec<_>) = keywords()
        .into_iter()
        .partition(|(_, schema)| is_taken(server, schema));
    (names(&taken), names(&refused))
}

fn text_formats(server: &Server) -> Vec<String> {
    let all = "date-time date time duration email idn-email hostname idn-hostname ipv4 ipv6 uri uri-reference iri iri-reference uuid uri-template \
        json-pointer relative-json-pointer regex";
    let schema = |format: &str| json!({"type": "string", "format": format});
    let taken = all
        .split_whitespace()
        .filter(|format| is_taken(server, &schema(format)));
    taken.map(str::to_owned).collect()
}

#[test]
fn the_page_of_what_is_taken_is_what_the_program_says() {
    let server = Server::start();
    let (taken, refused) = parted(&server);
    let sections = [
        (
            "Classes of models",
            "`architectures` in `config.json`; `model_type` alone does, too. [Models](../models.md) says what of each is followed.",
            classes(),
        ),
        (
            "Folders of other programs",
            "`quant_method` in `quantization_config`.",
            methods(),
        ),
        (
            "Formats of export",
            "`export --format`. [Export](../export.md) says what each loses.",
            formats(),
        ),
        (
            "Keywords of JSON Schema that are taken",
            "Some say nothing about values, some have limits: [schemas](../serve.md#answers-under-a-schema).",
            taken,
        ),
        (
            "Keywords of JSON Schema that are refused",
            "A schema with one of them is answered 400 with its path.",
            refused,
        ),
        (
            "Formats of texts in a schema",
            "`format` of a string.",
            text_formats(&server),
        ),
    ];
    let page = sections
        .iter()
        .fold(HEAD.to_owned(), |page, (title, words, names)| {
            page + &format!(
                "\n## {title}\n\n{words} {} of them: {}.\n",
                names.len(),
                in_backticks(names)
            )
        });
    assert_is("docs/reference/taken.md", &page);
}

/// The `model_type` of each row in the table of families.
fn types_of_the_page() -> Vec<Vec<String>> {
    let page = read("docs/models.md");
    let table = page
        .split("\n## Families\n")
        .nth(1)
        .expect("a section of families");
    let rows = table.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| listed(row.split('|').nth(2).unwrap_or_default()))
        .collect()
}

#[test]
fn the_page_of_models_has_a_row_for_every_class() {
    let types = types_of_the_page();
    assert_eq!(
        types.len(),
        classes().len(),
        "docs/models.md has rows of {types:?}"
    );
    // Further types of a row are models of several modalities, whose text model has the first one.
    for name in types.iter().filter_map(|types| types.first()) {
        let told = stderr(&asked(&json!({"model_type": name})));
        assert!(
            !told.contains("architecture `"),
            "docs/models.md names {name}: {told}"
        );
    }
}

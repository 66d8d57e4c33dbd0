//! Schemas drawn at random, sound and broken: none panics, hangs or leaves a thread, and what follows one is a value of it.

use std::time::{Duration, Instant};

use dualgrain_device::cases::Random;
use serde_json::{Map, Value, json};

use super::walk::Walks;

const NAMES: [&str; 6] = ["a", "b", "name", "\u{e9} \"x\"", "a/b~c", ""];
const PATTERNS: [&str; 12] = [
    "^a+$",
    "[a-z]{2,5}",
    "^(a|b|c)*d$",
    "^\\d{3}-\\w+$",
    "^(a?){30}a{30}$",
    "(x+x+)+y",
    "^[^\"\\\\]{0,8}$",
    "^.{0,400}$",
    "(",
    "(?=a)b",
    "\\bword\\b",
    "^\u{e9}[\u{4e00}-\u{9fff}]?$",
];
const LENGTHS: [u64; 7] = [0, 1, 2, 5, 60, 5_000, 4_000_000_000];

/// What came of many schemas.
#[derive(Debug, Default)]
struct Figures {
    followed: usize,
    refused: usize,
    late: usize,
    ended: usize,
    /// Walks that a mask ended which cost too much.
    too_costly: usize,
    longest: Duration,
}

#[test]
fn a_few_hundred_schemas_drawn_at_random_neither_panic_nor_hang() {
    draw_and_follow(300, 3);
}

#[test]
#[ignore = "takes minutes: ten thousand schemas"]
fn ten_thousand_schemas_drawn_at_random_neither_panic_nor_hang() {
    draw_and_follow(10_000, 4);
}

fn draw_and_follow(count: usize, seed: u64) {
    let (mut walks, mut random) = (Walks::new(seed), Random(seed));
    let mut figures = Figures::default();
    for _ in 0..count {
        let schema = root(&mut random);
        follow(&schema, &mut walks, &mut figures);
    }
    println!(
        "{count} schemas: {figures:?}, longest mask {:?}",
        walks.longest_mask
    );
    assert!(
        figures.followed > count / 10 && figures.refused > count / 10,
        "{figures:?}"
    );
    assert!(figures.late < count / 100, "{figures:?}");
    // Every thread that was told to be late has ended as well.
    let sound = json!({"type": "boolean"});
    let ends = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        walks.grammars.schema("schema", &sound).is_ok()
    });
    assert!(ends, "a grammar is still compiled");
}

fn follow(schema: &Value, walks: &mut Walks, figures: &mut Figures) {
    let begun = Instant::now();
    let outcome = walks.grammars.schema("schema", schema);
    figures.longest = figures.longest.max(begun.elapsed());
    match outcome {
        Ok(constraint) => {
            figures.followed += 1;
            // A pattern in a part that no value has may be none, and a validator may turn in circles of references for ever.
            let options = jsonschema::options().with_draft(jsonschema::Draft::Draft202012);
            let is_checked = !schema.to_string().contains("\"$ref\"") && options.build(schema).is_ok();
            for _ in 0..2 {
                let walked = match is_checked {
                    true => walks.try_walk(schema, &constraint, 60),
                    false => walks.text(&constraint, 60).map(|text| text.is_some()),
                };
                match walked {
                    Ok(ended) => figures.ended += usize::from(ended),
                    Err(_) => figures.too_costly += 1,
                }
            }
        }
        Err(error) if error.message.contains("takes longer") => figures.late += 1,
        Err(error) => {
            assert!(!error.message.contains("panicked"), "{schema}: {}", error.message);
            assert!(
                matches!(error.status.as_u16(), 400 | 429),
                "{schema}: {}",
                error.message
            );
            figures.refused += 1;
        }
    }
}

fn root(random: &mut Random) -> Value {
    let mut root = schema(random, 3);
    if let Value::Object(fields) = &mut root
        && random.below(3) > 0
    {
        fields.insert(
            "$defs".into(),
            json!({"d": schema(random, 2), "e": schema(random, 2)}),
        );
    }
    root
}

/// A schema with at most so many levels below it; a few keywords of different kinds may stand together.
fn schema(random: &mut Random, levels: usize) -> Value {
    let mut fields = Map::new();
    for _ in 0..[1, 1, 1, 2, 3][random.below(5)] {
        let more = match random.below(if levels == 0 { 5 } else { 10 }) {
            0 => text(random),
            1 => number(random),
            2 => json!({"enum": [value(random), value(random)]}),
            3 => json!({"const": value(random)}),
            4 => json!({"type": one(random, &["string", "null", "boolean"])}),
            5 | 6 => object(random, levels - 1),
            7 => array(random, levels - 1),
            8 => several(random, levels - 1),
            _ => json!({"$ref": one(random, &["#", "#/$defs/d", "#/$defs/e", "#/$defs/none"])}),
        };
        let Value::Object(more) = more else {
            unreachable!("keywords are objects");
        };
        fields.extend(more);
    }
    if random.below(12) == 0 {
        break_something(random, &mut fields);
    }
    Value::Object(fields)
}

fn text(random: &mut Random) -> Value {
    let mut fields = json!({"type": "string"});
    match random.below(4) {
        0 => fields["pattern"] = one(random, &PATTERNS).into(),
        1 => fields["minLength"] = length(random),
        2 => fields["maxLength"] = length(random),
        _ => {
            let formats = super::super::formats::FORMATS;
            fields["format"] = one(random, formats).into();
        }
    }
    fields
}

fn number(random: &mut Random) -> Value {
    let mut fields = json!({"type": one(random, &["integer", "number"])});
    let bounds = [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
    ];
    for _ in 0..random.below(3) {
        let number = one(random, &[0.0, 1.0, -7.0, 0.5, 1e6, 1e15, 123.25]);
        fields[one(random, &bounds)] = number.into();
    }
    fields
}

fn object(random: &mut Random, levels: usize) -> Value {
    let mut properties = Map::new();
    for _ in 0..random.below(4) {
        properties.insert(one(random, &NAMES).into(), schema(random, levels));
    }
    let required: Vec<&String> = properties.keys().filter(|name| name.len() % 2 == 1).collect();
    let mut fields = json!({"type": "object", "properties": properties, "required": required});
    match random.below(5) {
        0 => fields["additionalProperties"] = false.into(),
        1 => fields["additionalProperties"] = schema(random, levels),
        2 => fields["patternProperties"] = json!({one(random, &PATTERNS): schema(random, levels)}),
        3 => fields["maxProperties"] = length(random),
        _ => {}
    }
    fields
}

fn array(random: &mut Random, levels: usize) -> Value {
    let mut fields = json!({"type": "array"});
    match random.below(3) {
        0 => fields["items"] = schema(random, levels),
        1 => fields["prefixItems"] = json!([schema(random, levels), schema(random, levels)]),
        _ => {}
    }
    match random.below(4) {
        0 => fields["minItems"] = length(random),
        1 => fields["maxItems"] = length(random),
        _ => {}
    }
    fields
}

fn several(random: &mut Random, levels: usize) -> Value {
    let word = one(random, &["anyOf", "allOf", "oneOf"]);
    let all: Vec<Value> = (0..1 + random.below(3)).map(|_| schema(random, levels)).collect();
    json!({word: all})
}

fn one<T: Copy>(random: &mut Random, all: &[T]) -> T {
    all[random.below(all.len())]
}

fn value(random: &mut Random) -> Value {
    match random.below(7) {
        0 => Value::Null,
        1 => true.into(),
        2 => (random.below(1000) as i64 - 500).into(),
        3 => 2.5.into(),
        4 => one(random, &NAMES).into(),
        5 => json!([1, "x", {"a": null}]),
        _ => json!({"a": [true], "$ref": "#/none"}),
    }
}

fn length(random: &mut Random) -> Value {
    one(random, &LENGTHS).into()
}

/// A keyword that nobody knows, or that has a value of another kind.
fn break_something(random: &mut Random, fields: &mut Map<String, Value>) {
    let words = [
        "not",
        "type",
        "items",
        "properties",
        "required",
        "pattern",
        "minLength",
        "allOf",
        "$ref",
        "x",
    ];
    fields.insert(one(random, &words).into(), value(random));
}

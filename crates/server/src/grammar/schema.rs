//! Refuses what of a JSON Schema is not followed, with its path, and writes the rest as the grammar's library reads it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::bounds::{EXACT, counts_common_multiple, with_safe_bounds};
use super::formats;
use super::keywords::{DRAFTS, KEYWORDS, Kind, kind};
use super::limits::{MAX_DEPTH, MAX_SCHEMA_BYTES};

const TYPES: [&str; 7] = [
    "null", "boolean", "integer", "number", "string", "array", "object",
];

/// A schema that is not followed.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("{path}: {problem}")]
pub struct SchemaError {
    /// JSON Pointer to what is wrong, as a fragment: `#/properties/a/not`.
    pub path: String,
    /// What is wrong and what is possible.
    pub problem: String,
}

/// A schema of which every keyword is followed.
#[derive(Debug, Clone)]
pub struct Checked(Value);

/// Checks a whole schema.
///
/// # Errors
/// The first keyword that is not followed, or whose value is none.
pub fn check(schema: &Value) -> Result<Checked, SchemaError> {
    let root = "#".to_owned();
    if !schema.is_object() {
        let problem = format!("expected a JSON Schema as an object, got {}", short(schema));
        return Err(SchemaError { path: root, problem });
    }
    let size_bytes = schema.to_string().len();
    if size_bytes > MAX_SCHEMA_BYTES {
        let problem =
            format!("the schema has {size_bytes} bytes of JSON, at most {MAX_SCHEMA_BYTES} are taken");
        return Err(SchemaError { path: root, problem });
    }
    let mut walk = Walk::default();
    let checked = walk.schema(&root, schema, 0)?;
    match walk.references.iter().find(|(_, to)| !walk.places.contains(to)) {
        None => Checked(checked).with_common_multiples(!walk.references.is_empty()),
        Some((path, to)) => Err(SchemaError {
            path: path.clone(),
            problem: format!("`{to}` leads to no schema of this document"),
        }),
    }
}

impl Checked {
    /// The schema, as the grammar's library reads it, with references that count from the `root` of a larger one: `#/properties/a`.
    pub fn at(&self, root: &str) -> Value {
        let mut schema = self.0.clone();
        if root != "#" {
            move_references(&mut schema, root);
        }
        schema
    }
}

impl Checked {
    /// Itself, where what its divisors have in common can be counted. Which schemas meet in one value is not told apart, and with
    /// references a schema may meet itself.
    fn with_common_multiples(self, has_references: bool) -> Result<Self, SchemaError> {
        let divisor = |(path, schema): (String, Value)| Some((path, schema.get("multipleOf")?.to_string()));
        let (paths, divisors): (Vec<String>, Vec<String>) =
            self.parts().into_iter().filter_map(divisor).unzip();
        let meets = divisors.len() > 1 || has_references;
        match paths.last() {
            Some(path) if meets && !counts_common_multiple(&divisors) => Err(wrong(
                &format!("{path}/multipleOf"),
                format!(
                    "several `multipleOf` ({}) whose common multiple times the largest of them is beyond 32 bits are not followed: \
                     take smaller ones, or one alone without `$ref`",
                    divisors.join(", ")
                ),
            )),
            _ => Ok(self),
        }
    }

    /// Every schema in it, each with its path.
    pub fn parts(&self) -> Vec<(String, Value)> {
        let mut parts = Vec::new();
        collect_parts("#", &self.0, &mut parts);
        parts
    }
}

fn collect_parts(path: &str, schema: &Value, parts: &mut Vec<(String, Value)>) {
    let Value::Object(fields) = schema else {
        return;
    };
    parts.push((path.to_owned(), schema.clone()));
    for (name, value) in fields {
        let at = format!("{path}/{}", escaped(name));
        match (kind(name), value) {
            (Some(Kind::Schema), value) => collect_parts(&at, value, parts),
            (Some(Kind::Schemas), Value::Array(list)) => {
                let list = list.iter().enumerate();
                list.for_each(|(index, schema)| collect_parts(&format!("{at}/{index}"), schema, parts));
            }
            (Some(Kind::Map), Value::Object(map)) => {
                let map = map.iter();
                map.for_each(|(name, schema)| {
                    collect_parts(&format!("{at}/{}", escaped(name)), schema, parts)
                });
            }
            _ => {}
        }
    }
}

/// Lets references count from another root. Constants hold no references: a value there that looks like one stays.
fn move_references(schema: &mut Value, root: &str) {
    let Value::Object(fields) = schema else {
        return;
    };
    for (name, value) in fields {
        match (kind(name), value) {
            (Some(Kind::Reference), Value::String(reference)) => {
                *reference = format!("{root}{}", reference.trim_start_matches('#'));
            }
            (Some(Kind::Schema), value) => move_references(value, root),
            (Some(Kind::Schemas), Value::Array(list)) => {
                list.iter_mut().for_each(|schema| move_references(schema, root));
            }
            (Some(Kind::Map), Value::Object(map)) => {
                map.values_mut().for_each(|schema| move_references(schema, root));
            }
            _ => {}
        }
    }
}

/// Where schemas stand, and where references stand and lead to.
#[derive(Default)]
struct Walk {
    places: BTreeSet<String>,
    references: Vec<(String, String)>,
}

impl Walk {
    /// The schema at `path`, without what says nothing about values.
    fn schema(&mut self, path: &str, schema: &Value, depth: usize) -> Result<Value, SchemaError> {
        if depth > MAX_DEPTH {
            return Err(wrong(
                path,
                format!("more than {MAX_DEPTH} schemas inside each other"),
            ));
        }
        self.places.insert(path.to_owned());
        let fields = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(fields) => fields,
            other => return Err(wrong(path, format!("expected a schema, got {}", short(other)))),
        };
        let mut kept = Map::new();
        for (name, value) in fields {
            let at = format!("{path}/{}", escaped(name));
            if let Some(value) = self.keyword(&at, name, value, depth)? {
                kept.insert(name.clone(), value);
            }
        }
        check_together(path, fields)?;
        Ok(with_format(with_safe_bounds(kept)))
    }

    /// What of a keyword says something about values.
    fn keyword(
        &mut self,
        at: &str,
        name: &str,
        value: &Value,
        depth: usize,
    ) -> Result<Option<Value>, SchemaError> {
        let Some(kind) = kind(name) else {
            return Err(unknown(at, name));
        };
        let expected = match kind {
            Kind::Schema => return self.schema(at, value, depth + 1).map(Some),
            Kind::Schemas => return self.list(at, value, depth).map(Some),
            Kind::Map => return self.map(at, value, depth).map(Some),
            Kind::Annotation => return Ok(None),
            Kind::RootAnnotation => return check_root_annotation(at, name, value, depth).map(|()| None),
            Kind::Reference => return self.reference(at, value).map(Some),
            Kind::Constant => return check_constant(at, value).map(|()| Some(value.clone())),
            Kind::Constants => {
                let list = value.as_array().filter(|list| !list.is_empty());
                for (index, value) in list.into_iter().flatten().enumerate() {
                    check_constant(&format!("{at}/{index}"), value)?;
                }
                list.is_none().then_some("a list of at least one value")
            }
            Kind::Type => (!is_type(value)).then_some("a type of JSON, or a list of different ones"),
            Kind::Count => {
                let count = count(value).ok_or_else(|| expected_count(at, value))?;
                return Ok(Some(count.into()));
            }
            Kind::Number => value.as_f64().is_none().then_some("a number"),
            Kind::Divisor => {
                let is_divisor = value.as_f64().is_some_and(|number| number > 0.0);
                (!is_divisor).then_some("a number above 0")
            }
            Kind::Pattern => value.as_str().is_none().then_some("a regular expression"),
            Kind::Format => return check_format(at, value).map(|()| Some(value.clone())),
            Kind::Names => (!is_names(value)).then_some("a list of different texts"),
        };
        match expected {
            None => Ok(Some(value.clone())),
            Some(expected) => Err(wrong(at, format!("expected {expected}, got {}", short(value)))),
        }
    }

    fn list(&mut self, path: &str, value: &Value, depth: usize) -> Result<Value, SchemaError> {
        let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
            let problem = format!("expected a list of at least one schema, got {}", short(value));
            return Err(wrong(path, problem));
        };
        let schemas = list.iter().enumerate();
        let schemas =
            schemas.map(|(index, schema)| self.schema(&format!("{path}/{index}"), schema, depth + 1));
        schemas.collect::<Result<Vec<_>, _>>().map(Value::Array)
    }

    fn map(&mut self, path: &str, value: &Value, depth: usize) -> Result<Value, SchemaError> {
        let Some(map) = value.as_object() else {
            return Err(wrong(
                path,
                format!("expected an object of schemas, got {}", short(value)),
            ));
        };
        let mut checked = Map::new();
        for (name, schema) in map {
            let at = format!("{path}/{}", escaped(name));
            checked.insert(name.clone(), self.schema(&at, schema, depth + 1)?);
        }
        Ok(Value::Object(checked))
    }

    fn reference(&mut self, path: &str, value: &Value) -> Result<Value, SchemaError> {
        let to = value.as_str().filter(|to| *to == "#" || to.starts_with("#/"));
        // The library takes the parts of a reference as they are written.
        let Some(to) = to.filter(|to| !to.contains(['~', '%'])) else {
            let problem = format!(
                "only references within the schema are followed, `#` or `#/...` without escaped characters, got {}",
                short(value)
            );
            return Err(wrong(path, problem));
        };
        self.references.push((path.to_owned(), to.to_owned()));
        Ok(value.clone())
    }
}

/// What keywords of one schema mean for each other.
fn check_together(path: &str, fields: &Map<String, Value>) -> Result<(), SchemaError> {
    // A name may come twice where names are free; it counts once then.
    let least = fields.get("minProperties").and_then(count).unwrap_or(0);
    let required = fields
        .get("required")
        .and_then(Value::as_array)
        .map_or(0, Vec::len) as u64;
    if least > required.max(1) {
        let problem = format!(
            "at most 1, or the {required} properties that are `required`, can be counted for certain, got {least}: name \
             the properties in `required`"
        );
        return Err(wrong(&format!("{path}/minProperties"), problem));
    }
    Ok(())
}

/// A format becomes its pattern, beside another pattern where there is one.
fn with_format(mut fields: Map<String, Value>) -> Value {
    let format = fields.shift_remove("format");
    let Some(pattern) = format.as_ref().and_then(Value::as_str).and_then(formats::pattern) else {
        return Value::Object(fields);
    };
    if !fields.contains_key("pattern") {
        fields.insert("pattern".to_owned(), pattern.into());
        return Value::Object(fields);
    }
    let own = json!({"pattern": pattern});
    match fields.get_mut("allOf") {
        Some(Value::Array(all)) => all.push(own),
        _ => _ = fields.insert("allOf".to_owned(), json!([own])),
    }
    Value::Object(fields)
}

fn check_root_annotation(path: &str, name: &str, value: &Value, depth: usize) -> Result<(), SchemaError> {
    if depth > 0 {
        return Err(wrong(path, "taken at the root of a schema alone".to_owned()));
    }
    let draft = value.as_str().map(|draft| draft.trim_end_matches('#'));
    if name == "$schema" && !draft.is_some_and(|draft| DRAFTS.contains(&draft)) {
        let problem = format!("expected one of {}, got {}", DRAFTS.join(", "), short(value));
        return Err(wrong(path, problem));
    }
    Ok(())
}

fn check_format(path: &str, value: &Value) -> Result<(), SchemaError> {
    if value
        .as_str()
        .is_some_and(|format| formats::FORMATS.contains(&format))
    {
        return Ok(());
    }
    let problem = format!(
        "formats are {}, got {}",
        formats::FORMATS.join(", "),
        short(value)
    );
    Err(wrong(path, problem))
}

/// Numbers of a constant must be exact.
fn check_constant(path: &str, value: &Value) -> Result<(), SchemaError> {
    match value {
        Value::Number(number) if !number.as_f64().is_some_and(|number| number.abs() <= EXACT) => Err(wrong(
            path,
            format!("numbers up to 2^53 are taken, got {}", short(value)),
        )),
        Value::Array(list) => list.iter().try_for_each(|value| check_constant(path, value)),
        Value::Object(map) => map.values().try_for_each(|value| check_constant(path, value)),
        _ => Ok(()),
    }
}

/// Whole numbers may be written with a point: `2.0`.
fn count(value: &Value) -> Option<u64> {
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..=EXACT).contains(number);
    value
        .as_u64()
        .or_else(|| value.as_f64().filter(whole).map(|number| number as u64))
}

fn expected_count(path: &str, value: &Value) -> SchemaError {
    wrong(
        path,
        format!("expected a whole number, at least 0, got {}", short(value)),
    )
}

fn is_type(value: &Value) -> bool {
    let is_one = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    match value {
        Value::Array(list) => {
            let is_new = |index: usize| !list[..index].contains(&list[index]);
            let fits = (1..=TYPES.len()).contains(&list.len());
            fits && list.iter().all(is_one) && (0..list.len()).all(is_new)
        }
        one => is_one(one),
    }
}

fn is_names(value: &Value) -> bool {
    let mut names = BTreeSet::new();
    let is_new = |name: &Value| name.as_str().is_some_and(|name| names.insert(name.to_owned()));
    value.as_array().is_some_and(|list| list.iter().all(is_new))
}

fn unknown(path: &str, name: &str) -> SchemaError {
    let likeness = |other: &str| strsim::jaro_winkler(name, other);
    let names = KEYWORDS.iter().map(|(name, _)| *name);
    let nearest = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let meant = nearest.filter(|nearest| likeness(nearest) > 0.88);
    let meant = meant.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"));
    wrong(
        path,
        format!("this keyword is not supported{meant}; docs/serve.md lists those that are"),
    )
}

fn wrong(path: &str, problem: String) -> SchemaError {
    let path = path.to_owned();
    SchemaError { path, problem }
}

/// A name as a part of a JSON Pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 60 {
        text.truncate(text.floor_char_boundary(60));
        text += "...";
    }
    text
}

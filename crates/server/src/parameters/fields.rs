//! The fields of a JSON object, taken one by one; what is left at the end was not asked for.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::table::{Api, Rule, parameters};
use crate::error::ApiError;

/// Characters of a wrong value that an error shows.
const SHOWN_CHARS: usize = 60;
/// How alike two names must be for one to be meant by the other: 1 is equal.
const ALIKE: f64 = 0.85;

/// Fields that have not been taken yet. A field that is null is not there.
#[derive(Debug)]
pub struct Fields {
    /// What names of fields begin with in errors: `messages[2].`, or nothing.
    path: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// The fields of `value`, which stands at `path`.
    ///
    /// # Errors
    /// Something that is no object.
    pub fn of(path: &str, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(fields) => {
                let path = match path.is_empty() {
                    true => String::new(),
                    false => format!("{path}."),
                };
                Ok(Self { path, fields })
            }
            other => Err(ApiError::field(
                path,
                format!("expected an object, got {}", shown(&other)),
            )),
        }
    }

    /// A field's whole name.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// An error about a field.
    pub fn error(&self, name: &str, problem: impl AsRef<str>) -> ApiError {
        ApiError::field(self.name(name), problem)
    }

    /// A field as it is.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn required(&mut self, name: &str) -> Result<Value, ApiError> {
        let missing = self.error(name, "missing: this field is required");
        self.value(name).ok_or(missing)
    }

    /// A number in a range.
    ///
    /// # Errors
    /// Anything else.
    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number as f32)),
            None => {
                let expected = format!("expected a number from {} to {}", range.start(), range.end());
                Err(self.error(name, format!("{expected}, got {}", shown(&value))))
            }
        }
    }

    /// A whole number in a range.
    ///
    /// # Errors
    /// Anything else.
    pub fn whole(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match value.as_i64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let expected = format!(
                    "expected a whole number from {} to {}",
                    range.start(),
                    range.end()
                );
                Err(self.error(name, format!("{expected}, got {}", shown(&value))))
            }
        }
    }

    /// True or false; false where it is not there.
    ///
    /// # Errors
    /// Anything else.
    pub fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.value(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.error(name, format!("expected true or false, got {}", shown(&other)))),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// Anything else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.error(name, format!("expected a text, got {}", shown(&other)))),
        }
    }

    /// The fields that an object at `name` has.
    ///
    /// # Errors
    /// Something that is no object.
    pub fn inner(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        let path = self.name(name);
        self.value(name).map(|value| Self::of(&path, value)).transpose()
    }

    /// Passes over fields that change nothing.
    pub fn pass_over(&mut self, names: &[&str]) {
        names.iter().for_each(|name| _ = self.fields.shift_remove(*name));
    }

    /// Passes over what the interface would use, where its values are not needed.
    pub fn pass_over_used(&mut self, api: Api) {
        let used = parameters(api).filter(|parameter| parameter.rule == Rule::Used);
        used.for_each(|parameter| _ = self.fields.shift_remove(parameter.name));
    }

    /// Refuses what was not taken: fields of the interface that ask for what is not supported, then unknown ones unless they are to be
    /// passed over.
    ///
    /// # Errors
    /// The first such field.
    pub fn finish_request(self, api: Api, ignore_unknown: bool) -> Result<(), ApiError> {
        let Self { path, fields } = self;
        let mut unknown = Map::new();
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
            let known = parameters(api).find(|parameter| parameter.name == name);
            match known.map(|known| (known.rule, known.what)) {
                Some((Rule::Ignored, _)) => {}
                Some((Rule::Only(only), what)) => check_only(&name, only, &value, what)?,
                Some((Rule::Refused, what)) => return Err(unsupported(&name, what)),
                Some((Rule::Used, _)) | None => _ = unknown.insert(name, value),
            }
        }
        let names: Vec<_> = parameters(api).map(|parameter| parameter.name).collect();
        let left = Self {
            path,
            fields: unknown,
        };
        left.finish(&names, ignore_unknown)
    }

    /// Refuses unknown fields, unless they are to be passed over; `known` are the names there are.
    ///
    /// # Errors
    /// The first unknown field, with the nearest known one.
    pub fn finish(self, known: &[&str], ignore_unknown: bool) -> Result<(), ApiError> {
        let mut left = self.fields.iter().filter(|(_, value)| !value.is_null());
        let Some((name, _)) = left.next().filter(|_| !ignore_unknown) else {
            return Ok(());
        };
        let name = short(name);
        if known.contains(&name.as_str()) {
            return Err(self.error(&name, "not taken together with the other fields"));
        }
        let meant = nearest(&name, known).map_or_else(
            || format!("known are {}", known.join(", ")),
            |meant| format!("did you mean `{meant}`?"),
        );
        let problem = format!("unknown field: {meant}");
        Err(ApiError::field(format!("{}{name}", self.path), problem).with_code("unknown_field"))
    }
}

/// A wrong value, short enough for an error.
pub fn shown(value: &Value) -> String {
    short(&value.to_string())
}

/// Token ids from a JSON list; `None` where it is none of ids below `vocab_size`.
pub fn token_ids(list: &[Value], vocab_size: usize) -> Option<Vec<u32>> {
    let id = |value: &Value| {
        let id = u32::try_from(value.as_u64()?).ok()?;
        ((id as usize) < vocab_size).then_some(id)
    };
    list.iter().map(id).collect()
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn check_only(name: &str, only: &str, value: &Value, what: &str) -> Result<(), ApiError> {
    let taken = serde_json::from_str::<Value>(only).is_ok_and(|only| only == *value);
    match taken {
        true => Ok(()),
        false => {
            let problem = format!("only {only} is taken, got {}: {what}", shown(value));
            Err(unsupported(name, &problem))
        }
    }
}

fn unsupported(name: &str, problem: &str) -> ApiError {
    ApiError::field(name, problem).with_code("unsupported_parameter")
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &&str| strsim::jaro_winkler(name, other);
    let best = known
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) >= ALIKE).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::of("", value).unwrap()
    }

    #[test]
    fn values_outside_their_ranges_are_shown_with_the_range() {
        let mut all = fields(json!({"t": 3, "n": 1.5, "s": "yes", "big": "x".repeat(1000), "null": null}));
        let message = |error: ApiError| error.message;
        assert_eq!(
            message(all.number("t", 0.0..=2.0).unwrap_err()),
            "t: expected a number from 0 to 2, got 3"
        );
        assert_eq!(
            message(all.whole("n", 1..=9).unwrap_err()),
            "n: expected a whole number from 1 to 9, got 1.5"
        );
        assert_eq!(
            message(all.flag("s").unwrap_err()),
            "s: expected true or false, got \"yes\""
        );
        assert!(message(all.flag("big").unwrap_err()).len() < 120);
        assert_eq!(all.text("null").unwrap(), None);
        assert!(all.finish(&[], false).is_ok());
    }

    #[test]
    fn an_unknown_field_is_named_with_the_nearest_known_one() {
        let error = fields(json!({"temprature": 1}))
            .finish_request(Api::Chat, false)
            .unwrap_err();
        assert_eq!(
            error.message,
            "temprature: unknown field: did you mean `temperature`?"
        );
        assert_eq!(
            (error.param.as_deref(), error.code),
            (Some("temprature"), Some("unknown_field"))
        );
        assert!(
            fields(json!({"temprature": 1}))
                .finish_request(Api::Chat, true)
                .is_ok()
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_also_where_unknown_fields_are_not() {
        let request = |value| fields(value).finish_request(Api::Chat, true);
        let error = request(json!({"modalities": ["audio"]})).unwrap_err();
        assert!(
            error.message.starts_with("modalities: only [\"text\"] is taken"),
            "{}",
            error.message
        );
        assert_eq!(error.code, Some("unsupported_parameter"));
        assert!(request(json!({"modalities": ["text"], "user": 7, "store": null})).is_ok());
        assert!(request(json!({"store": true})).is_err());
    }
}

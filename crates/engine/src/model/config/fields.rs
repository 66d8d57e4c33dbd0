//! Typed access to the fields of a JSON object: null counts as absent, a wrong kind is an error, never a default.

use serde_json::{Map, Value};

use crate::ConfigError;

/// The fields of config.json (or of an object inside it).
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub fn value(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// The name under which one of several spellings is present, or the first.
    pub fn spelling(self, names: &[&'static str]) -> &'static str {
        let present = names.iter().find(|name| self.value(name).is_some());
        present.or(names.first()).copied().unwrap_or_default()
    }

    pub fn count(self, name: &str) -> Result<Option<usize>, ConfigError> {
        self.typed(name, "a whole number, 0 or more", |value| {
            value.as_u64().and_then(|n| usize::try_from(n).ok())
        })
    }

    /// A whole number in `1..=max`.
    pub fn size(self, name: &str, default: usize, max: usize) -> Result<usize, ConfigError> {
        let size = self.count(name)?.unwrap_or(default);
        if (1..=max).contains(&size) {
            Ok(size)
        } else {
            Err(field_error(name, format!("1..={max}"), size))
        }
    }

    pub fn number(self, name: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// A finite number above 0.
    pub fn positive(self, name: &str, default: Option<f64>) -> Result<f64, ConfigError> {
        let expected = "a number above 0".to_owned();
        match self.number(name)?.or(default) {
            Some(number) if number.is_finite() && number > 0.0 => Ok(number),
            Some(number) => Err(field_error(name, expected, number)),
            None => Err(field_error(name, expected, "missing")),
        }
    }

    /// A list of `len` finite numbers above 0.
    pub fn positives(self, name: &str, len: usize) -> Result<Vec<f64>, ConfigError> {
        let expected = format!("a list of {len} numbers above 0");
        let numbers = self.typed(name, &expected, |value| {
            let numbers = value.as_array()?.iter().map(Value::as_f64);
            let numbers = numbers.collect::<Option<Vec<f64>>>()?;
            let are_positive = numbers.iter().all(|number| number.is_finite() && *number > 0.0);
            (are_positive && numbers.len() == len).then_some(numbers)
        })?;
        numbers.ok_or_else(|| field_error(name, expected, "missing"))
    }

    pub fn flag(self, name: &str, default: bool) -> Result<bool, ConfigError> {
        Ok(self
            .typed(name, "true or false", Value::as_bool)?
            .unwrap_or(default))
    }

    pub fn text(self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(name, "a text", Value::as_str)
    }

    pub fn object(self, name: &str) -> Result<Option<Fields<'a>>, ConfigError> {
        self.typed(name, "an object", |value| value.as_object().map(Fields))
    }

    /// A token id; a negative one is how some models write that they have no such token.
    pub fn token(self, name: &str) -> Result<Option<u32>, ConfigError> {
        Ok(self.typed(name, "a token id", as_token)?.flatten())
    }

    /// One token id or a list of them, without negative ones.
    pub fn tokens(self, name: &str) -> Result<Vec<u32>, ConfigError> {
        let tokens = self.typed(name, "a token id or a list of them", |value| match value {
            Value::Array(list) => list.iter().map(as_token).collect::<Option<Vec<_>>>(),
            value => as_token(value).map(|token| vec![token]),
        })?;
        Ok(tokens.unwrap_or_default().into_iter().flatten().collect())
    }

    pub fn counts(self, name: &str) -> Result<Option<Vec<usize>>, ConfigError> {
        self.typed(name, "a list of whole numbers, 0 or more", |value| {
            let numbers = value.as_array()?.iter();
            numbers
                .map(|number| usize::try_from(number.as_u64()?).ok())
                .collect()
        })
    }

    pub fn texts(self, name: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        self.typed(name, "a list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// Refuses a switch that is set to something this engine does not do.
    pub fn require_flag(self, name: &str, default: bool, supported: bool) -> Result<(), ConfigError> {
        let got = self.flag(name, default)?;
        if got == supported {
            Ok(())
        } else {
            Err(unsupported(name, got, supported))
        }
    }

    /// Refuses a number that changes what is computed in a way this engine does not.
    pub fn require_null(self, name: &str) -> Result<(), ConfigError> {
        match self.value(name) {
            None => Ok(()),
            Some(value) => Err(unsupported(name, value, "null")),
        }
    }

    fn typed<T>(
        self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match read(value) {
            Some(typed) => Ok(Some(typed)),
            None => Err(field_error(name, expected.to_owned(), value)),
        }
    }
}

/// `Some(None)` for a negative number: no token.
fn as_token(value: &Value) -> Option<Option<u32>> {
    match value.as_i64() {
        Some(id) if id < 0 => Some(None),
        _ => Some(Some(u32::try_from(value.as_u64()?).ok()?)),
    }
}

pub(super) fn field_error(field: &str, expected: String, got: impl ToString) -> ConfigError {
    ConfigError::Field {
        field: field.into(),
        expected,
        got: shortened(got.to_string()),
    }
}

pub(super) fn unsupported(field: &str, got: impl ToString, supported: impl ToString) -> ConfigError {
    ConfigError::Unsupported {
        field: field.into(),
        got: shortened(got.to_string()),
        supported: supported.to_string(),
    }
}

/// A factor that `field` gives, as `got` says: one that 32-bit floats can be multiplied by.
pub(super) fn factor(field: &str, got: f64, factor: f64) -> Result<f32, ConfigError> {
    match (factor as f32).is_normal() {
        true => Ok(factor as f32),
        false => Err(field_error(
            field,
            "a factor that 32-bit floats can be multiplied by".into(),
            got,
        )),
    }
}

/// A hostile file must not fill the screen.
fn shortened(text: String) -> String {
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

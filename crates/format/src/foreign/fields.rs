//! Typed access to the fields of a foreign configuration: null counts as absent, a wrong kind is an error that names the field.

use serde_json::{Map, Value};

use super::error::ForeignError;

/// An object, and where it stands.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The fields of `value`, which stands at `path` (empty for the configuration itself).
    pub fn of(value: &'a Value, path: &str) -> Result<Self, ForeignError> {
        match value.as_object() {
            Some(object) => Ok(Self {
                object,
                path: path.to_owned(),
            }),
            None => Err(ForeignError::Field {
                field: path.to_owned(),
                got: shortened(value),
                expected: "an object".to_owned(),
            }),
        }
    }

    /// A field that is there.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// All fields that are there.
    pub fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.object.iter().filter(|(_, value)| !value.is_null())
    }

    /// The first of several spellings that is there.
    pub fn spelling(&self, names: [&'static str; 2]) -> &'static str {
        let [usual, other] = names;
        match self.value(usual).is_none() && self.value(other).is_some() {
            true => other,
            false => usual,
        }
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, ForeignError> {
        self.typed(name, "a text", Value::as_str)
    }

    pub fn flag(&self, name: &str, usual: bool) -> Result<bool, ForeignError> {
        Ok(self
            .typed(name, "true or false", Value::as_bool)?
            .unwrap_or(usual))
    }

    pub fn texts(&self, name: &str) -> Result<Vec<&'a str>, ForeignError> {
        let texts = self.typed(name, "a list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })?;
        Ok(texts.unwrap_or_default())
    }

    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ForeignError> {
        self.value(name)
            .map(|value| Self::of(value, &self.path_of(name)))
            .transpose()
    }

    /// A whole number above 0.
    pub fn count(&self, name: &str) -> Result<Option<usize>, ForeignError> {
        self.typed(name, "a whole number above 0", count)
    }

    /// Two whole numbers above 0.
    pub fn pair(&self, name: &str) -> Result<Option<[usize; 2]>, ForeignError> {
        self.typed(name, "a list of two whole numbers above 0", |value| {
            let numbers: Option<Vec<_>> = value.as_array()?.iter().map(count).collect();
            numbers?.try_into().ok()
        })
    }

    /// As [`Self::pair`], or a text as older files have it: `128x128`.
    pub fn sides(&self, name: &str) -> Result<Option<[usize; 2]>, ForeignError> {
        let Some(Value::String(text)) = self.value(name) else {
            return self.pair(name);
        };
        let side = |text: &str| text.trim().parse::<usize>().ok().filter(|&side| side > 0);
        let sides = text
            .split_once('x')
            .and_then(|(rows, columns)| Some([side(rows)?, side(columns)?]));
        match sides {
            Some(sides) => Ok(Some(sides)),
            None => Err(self.refused(name, "two whole numbers above 0, as a list or as 128x128")),
        }
    }

    /// How many inputs share a scale; `None` is all of them, which is written -1.
    pub fn group_size(&self, name: &str) -> Result<Option<usize>, ForeignError> {
        let size = self.typed(name, "a whole number above 0, or -1", |value| {
            match value.as_i64() {
                Some(-1) => Some(None),
                _ => count(value).map(Some),
            }
        })?;
        size.ok_or_else(|| self.refused(name, "a whole number above 0, or -1"))
    }

    /// The error of a field whose value is not read.
    pub fn refused(&self, name: &str, expected: impl Into<String>) -> ForeignError {
        ForeignError::Field {
            field: self.path_of(name),
            got: self.value(name).map_or_else(|| "missing".to_owned(), shortened),
            expected: expected.into(),
        }
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ForeignError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match read(value) {
            Some(typed) => Ok(Some(typed)),
            None => Err(self.refused(name, expected)),
        }
    }

    fn path_of(&self, name: &str) -> String {
        match self.path.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.path),
        }
    }
}

fn count(value: &Value) -> Option<usize> {
    let number = usize::try_from(value.as_u64()?).ok()?;
    (number > 0).then_some(number)
}

/// A hostile file must not fill the screen.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

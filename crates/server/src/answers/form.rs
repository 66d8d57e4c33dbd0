//! What form an answer must have: a text, any JSON object, or a value of a schema.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::parameters::{Fields, shown};

/// The form of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Form {
    /// Any text.
    #[default]
    Text,
    /// A JSON value of a schema.
    Schema {
        /// Where the schema stands in the request.
        field: String,
        /// The schema.
        schema: Value,
        /// What a request said, to be given back.
        said: Value,
    },
}

impl Form {
    /// Takes `response_format`, as chat has it.
    ///
    /// # Errors
    /// A form that is not known, or a field of it.
    pub fn take_response_format(fields: &mut Fields, ignore_unknown: bool) -> Result<Self, ApiError> {
        let said = fields.value("response_format");
        let Some(mut inner) = inner(fields, "response_format", said.as_ref())? else {
            return Ok(Self::Text);
        };
        let said = said.unwrap_or_default();
        let form = match kind(&mut inner, &["text", "json_object", "json_schema"])?.as_str() {
            "json_schema" => {
                let missing = inner.error("json_schema", "missing: this field is required");
                let mut schema = inner.inner("json_schema")?.ok_or(missing)?;
                let form = take_schema(&mut schema, said)?;
                schema.finish(&["name", "description", "schema", "strict"], ignore_unknown)?;
                form
            }
            "json_object" => Self::take_object(&mut inner, said)?,
            _ => Self::Text,
        };
        inner.finish(&["type", "json_schema", "schema"], ignore_unknown)?;
        Ok(form)
    }

    /// Takes `text`, as responses have it: `{"format": {...}}`.
    ///
    /// # Errors
    /// As [`Self::take_response_format`].
    pub fn take_text(fields: &mut Fields, ignore_unknown: bool) -> Result<Self, ApiError> {
        let Some(mut text) = fields.inner("text")? else {
            return Ok(Self::Text);
        };
        let form = Self::take_format(&mut text, ignore_unknown)?;
        // How long the answer should be is the model's affair.
        text.value("verbosity");
        text.finish(&["format", "verbosity"], ignore_unknown)?;
        Ok(form)
    }

    /// Takes `output_config`, as messages have it: `{"format": {"type": "json_schema", "schema": ...}}`.
    ///
    /// # Errors
    /// As [`Self::take_response_format`].
    pub fn take_output_config(fields: &mut Fields, ignore_unknown: bool) -> Result<Self, ApiError> {
        let Some(mut config) = fields.inner("output_config")? else {
            return Ok(Self::Text);
        };
        let form = Self::take_format(&mut config, ignore_unknown)?;
        config.finish(&["format"], ignore_unknown)?;
        Ok(form)
    }

    fn take_format(fields: &mut Fields, ignore_unknown: bool) -> Result<Self, ApiError> {
        let said = fields.value("format");
        let Some(mut format) = inner(fields, "format", said.as_ref())? else {
            return Ok(Self::Text);
        };
        let said = said.unwrap_or_default();
        let form = match kind(&mut format, &["text", "json_object", "json_schema"])?.as_str() {
            "json_schema" => take_schema(&mut format, said)?,
            "json_object" => Self::take_object(&mut format, said)?,
            _ => Self::Text,
        };
        format.finish(
            &["type", "name", "description", "schema", "strict"],
            ignore_unknown,
        )?;
        Ok(form)
    }

    /// Any object, or a value of the schema that some clients name beside the word.
    fn take_object(fields: &mut Fields, said: Value) -> Result<Self, ApiError> {
        let schema = fields.value("schema");
        Ok(Self::Schema {
            field: fields.name("schema"),
            schema: schema.unwrap_or_else(|| json!({"type": "object"})),
            said,
        })
    }

    /// Whether any text will do.
    pub fn is_text(&self) -> bool {
        *self == Self::Text
    }

    /// As a response gives it back.
    pub fn said(&self) -> Value {
        match self {
            Self::Text => json!({"type": "text"}),
            Self::Schema { said, .. } => said.clone(),
        }
    }
}

fn inner(fields: &Fields, name: &str, value: Option<&Value>) -> Result<Option<Fields>, ApiError> {
    value
        .map(|value| Fields::of(&fields.name(name), value.clone()))
        .transpose()
}

fn kind(fields: &mut Fields, known: &[&str]) -> Result<String, ApiError> {
    match fields.required("type")? {
        Value::String(kind) if known.contains(&kind.as_str()) => Ok(kind),
        other => {
            let problem = format!("expected one of {}, got {}", known.join(", "), shown(&other));
            Err(fields.error("type", problem))
        }
    }
}

/// Takes a schema and what is said about it. It is followed whether it is called strict or not.
fn take_schema(fields: &mut Fields, said: Value) -> Result<Form, ApiError> {
    fields.text("name")?;
    fields.text("description")?;
    fields.flag("strict")?;
    Ok(Form::Schema {
        field: fields.name("schema"),
        schema: fields.required("schema")?,
        said,
    })
}

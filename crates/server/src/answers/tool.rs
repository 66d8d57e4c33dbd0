//! Tools that a model may call, as the three interfaces describe them.

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::grammar::{Checked, check};
use crate::parameters::{Fields, shown};

/// Tools of a request.
pub const MAX_TOOLS: usize = 128;
/// Length of a tool's name.
pub const MAX_NAME_BYTES: usize = 128;
/// Bytes of all their schemas together, which are checked before the request waits for anything.
const MAX_SCHEMAS_BYTES: usize = 1 << 20;

/// A function that the client runs.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// The schema of its arguments as it was sent.
    pub said_parameters: Value,
    /// The same, checked.
    pub parameters: Checked,
    /// Where the schema stands in the request.
    pub field: String,
}

/// Whether tools are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// The model is not told of them.
    None,
    /// The model decides.
    #[default]
    Auto,
    /// At least one is called.
    Required,
    /// This one is called.
    Named(String),
}

/// The tools of a request.
#[derive(Debug, Clone)]
pub struct Tools {
    /// What there is.
    pub list: Vec<Tool>,
    /// Whether they are called.
    pub choice: Choice,
    /// Whether several calls may come in one answer.
    pub parallel: bool,
}

/// How an interface writes its tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `{"type": "function", "function": {"name", "description", "parameters"}}`
    Chat,
    /// `{"type": "function", "name", "description", "parameters"}`
    Responses,
    /// `{"name", "description", "input_schema"}`
    Messages,
}

impl Tools {
    /// Takes `tools`, `tool_choice` and `parallel_tool_calls` as chat has them.
    ///
    /// # Errors
    /// A tool or a choice that is none, a schema that is not followed.
    pub fn take_chat(fields: &mut Fields, ignore_unknown: bool) -> Result<Self, ApiError> {
        let list = take_list(fields, Style::Chat, ignore_unknown)?;
        let choice = take_openai_choice(fields, Style::Chat)?;
        Self::new(fields, list, choice)
    }

    /// As [`Self::take_chat`], as responses have them.
    ///
    /// # Errors
    /// As [`Self::take_chat`].
    pub fn take_responses(fields: &mut Fields, ignore_unknown: bool) -> Result<Self, ApiError> {
        let list = take_list(fields, Style::Responses, ignore_unknown)?;
        let choice = take_openai_choice(fields, Style::Responses)?;
        Self::new(fields, list, choice)
    }

    /// Takes `tools` and `tool_choice` as messages have them.
    ///
    /// # Errors
    /// As [`Self::take_chat`].
    pub fn take_messages(fields: &mut Fields, ignore_unknown: bool) -> Result<Self, ApiError> {
        let list = take_list(fields, Style::Messages, ignore_unknown)?;
        let Some(mut choice) = fields.inner("tool_choice")? else {
            return Self::new(fields, list, Choice::Auto);
        };
        let kind = choice.text("type")?.unwrap_or_default();
        let chosen = match kind.as_str() {
            "none" => Choice::None,
            "auto" => Choice::Auto,
            "any" => Choice::Required,
            "tool" => {
                let missing = choice.error("name", "missing: this field is required");
                Choice::Named(choice.text("name")?.ok_or(missing)?)
            }
            _ => return Err(choice.error("type", "expected one of none, auto, any, tool")),
        };
        let single = choice.flag("disable_parallel_tool_use")?;
        choice.finish(&["type", "name", "disable_parallel_tool_use"], ignore_unknown)?;
        let mut tools = Self::new(fields, list, chosen)?;
        tools.parallel = !single;
        Ok(tools)
    }

    fn new(fields: &mut Fields, list: Vec<Tool>, choice: Choice) -> Result<Self, ApiError> {
        let parallel = match fields.value("parallel_tool_calls") {
            None => true,
            Some(Value::Bool(parallel)) => parallel,
            Some(other) => {
                let problem = format!("expected true or false, got {}", shown(&other));
                return Err(fields.error("parallel_tool_calls", problem));
            }
        };
        let tools = Self {
            list,
            choice,
            parallel,
        };
        match &tools.choice {
            Choice::Required if tools.list.is_empty() => {
                Err(fields.error("tool_choice", "a call is required, but there are no `tools`"))
            }
            Choice::Named(name) if !tools.list.iter().any(|tool| tool.name == *name) => {
                Err(fields.error("tool_choice", format!("there is no tool `{name}` in `tools`")))
            }
            _ => Ok(tools),
        }
    }

    /// None.
    pub fn none() -> Self {
        Self {
            list: Vec::new(),
            choice: Choice::None,
            parallel: true,
        }
    }

    /// Those that may be called in the answer.
    pub fn callable(&self) -> impl Iterator<Item = &Tool> {
        self.list.iter().filter(|tool| match &self.choice {
            Choice::None => false,
            Choice::Auto | Choice::Required => true,
            Choice::Named(name) => tool.name == *name,
        })
    }

    /// Whether the answer may have calls.
    pub fn may_be_called(&self) -> bool {
        self.callable().next().is_some()
    }
}

impl Tool {
    /// As templates read it.
    pub fn described(&self) -> Value {
        let mut function = Map::new();
        function.insert("name".to_owned(), self.name.clone().into());
        if let Some(description) = &self.description {
            function.insert("description".to_owned(), description.clone().into());
        }
        function.insert("parameters".to_owned(), self.said_parameters.clone());
        json!({"type": "function", "function": function})
    }
}

fn take_list(fields: &mut Fields, style: Style, ignore_unknown: bool) -> Result<Vec<Tool>, ApiError> {
    let list = match fields.value("tools") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MAX_TOOLS => list,
        Some(other) => {
            let problem = format!(
                "expected a list of up to {MAX_TOOLS} tools, got {}",
                shown(&other)
            );
            return Err(fields.error("tools", problem));
        }
    };
    let size_bytes: usize = list.iter().map(|tool| tool.to_string().len()).sum();
    if size_bytes > MAX_SCHEMAS_BYTES {
        let problem = format!("{size_bytes} bytes of tools, at most {MAX_SCHEMAS_BYTES} are taken");
        return Err(fields.error("tools", problem));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(list.len());
    for (index, value) in list.into_iter().enumerate() {
        let path = format!("{}[{index}]", fields.name("tools"));
        let tool = read_tool(Fields::of(&path, value)?, style, ignore_unknown)?;
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(ApiError::field(path, format!("a second tool `{}`", tool.name)));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn read_tool(mut outer: Fields, style: Style, ignore_unknown: bool) -> Result<Tool, ApiError> {
    let kind = outer.text("type")?;
    let taken = match style {
        Style::Messages => matches!(kind.as_deref(), None | Some("custom")),
        _ => kind.as_deref() == Some("function"),
    };
    if !taken {
        return Err(outer.error("type", "only functions that the client runs are taken as tools"));
    }
    if style != Style::Chat {
        return read_function(outer, style, ignore_unknown);
    }
    let missing = outer.error("function", "missing: this field is required");
    let function = outer.inner("function")?.ok_or(missing)?;
    outer.finish(&["type", "function"], ignore_unknown)?;
    read_function(function, style, ignore_unknown)
}

fn read_function(mut fields: Fields, style: Style, ignore_unknown: bool) -> Result<Tool, ApiError> {
    let missing = fields.error("name", "missing: this field is required");
    let name = fields.text("name")?.ok_or(missing)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(fits) {
        let problem = format!("expected 1 to {MAX_NAME_BYTES} letters, digits, `_`, `-` or `.`");
        return Err(fields.error("name", problem));
    }
    let description = fields.text("description")?;
    fields.flag("strict")?;
    fields.value("cache_control");
    let parameters = match style {
        Style::Messages => "input_schema",
        _ => "parameters",
    };
    let field = fields.name(parameters);
    let said_parameters = fields
        .value(parameters)
        .unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    let known = [
        "type",
        "name",
        "description",
        "strict",
        "cache_control",
        parameters,
    ];
    fields.finish(&known, ignore_unknown)?;
    Ok(Tool {
        parameters: check_parameters(&field, &said_parameters)?,
        name,
        description,
        said_parameters,
        field,
    })
}

/// Arguments are an object, whether the schema says so or not.
fn check_parameters(field: &str, said: &Value) -> Result<Checked, ApiError> {
    let mut schema = said.clone();
    if let Value::Object(fields) = &mut schema {
        match fields.get("type") {
            None => _ = fields.insert("type".to_owned(), "object".into()),
            Some(kind) if kind == "object" => {}
            Some(other) => {
                let problem = format!("#/type: arguments are an object, got {}", shown(other));
                return Err(ApiError::field(field, problem).with_code("unsupported_schema"));
            }
        }
    }
    check(&schema).map_err(|error| ApiError::field(field, error.to_string()).with_code("unsupported_schema"))
}

fn take_openai_choice(fields: &mut Fields, style: Style) -> Result<Choice, ApiError> {
    let Some(value) = fields.value("tool_choice") else {
        return Ok(Choice::Auto);
    };
    let named = match style {
        Style::Chat => value.pointer("/function/name"),
        _ => value.get("name"),
    };
    match (value.as_str(), named.and_then(Value::as_str)) {
        (Some("none"), _) => Ok(Choice::None),
        (Some("auto"), _) => Ok(Choice::Auto),
        (Some("required"), _) => Ok(Choice::Required),
        (None, Some(name)) if value["type"] == "function" => Ok(Choice::Named(name.to_owned())),
        _ => {
            let problem = format!(
                "expected \"none\", \"auto\", \"required\" or a function by its name, got {}",
                shown(&value)
            );
            Err(fields.error("tool_choice", problem))
        }
    }
}

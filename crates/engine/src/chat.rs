//! Conversations to prompts, by the chat template a model folder carries (the Jinja dialect of transformers).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{Environment, ErrorKind, State};
use serde::Serialize;
use serde_json::Value as Json;
use serde_json::ser::Formatter;
use thiserror::Error;

use crate::tokenizer::{TokenizerError, read_json, read_optional, special_tokens};

/// One turn of a conversation. Templates may look at more fields (tool calls): [`ChatTemplate::render`] takes
/// anything that serializes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Message {
    /// Who speaks: "system", "user", "assistant".
    pub role: String,
    /// What is said.
    pub content: String,
}

/// Why a conversation could not be rendered.
#[derive(Debug, Error)]
pub enum ChatError {
    /// The folder has no chat template.
    #[error(
        "{}: no chat template (looked for chat_template.jinja, chat_template.json and \"chat_template\" in \
         tokenizer_config.json); this is a base model: use plain generation, or put the template of the model it \
         was made from into chat_template.jinja", dir.display()
    )]
    Missing {
        /// The model folder.
        dir: PathBuf,
    },
    /// No template has the name asked for.
    #[error("{}: no chat template named {name:?}; there are: {available}", dir.display())]
    Name {
        /// The model folder.
        dir: PathBuf,
        /// The name asked for.
        name: String,
        /// The names there are.
        available: String,
    },
    /// A tokenizer file is damaged.
    #[error(transparent)]
    File(#[from] TokenizerError),
    /// The template is not valid Jinja, or it failed on this conversation.
    #[error("chat template: {0}")]
    Template(String),
    /// The template itself refused the conversation (`raise_exception`).
    #[error("the chat template refuses this conversation: {0}")]
    Refused(String),
}

/// A compiled chat template with the special tokens it may print.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
}

/// The name under which the template is compiled; it shows in error messages.
const TEMPLATE: &str = "chat_template";
/// Steps a template may take: a hundred times what the longest conversation needs, and an end for a hostile one.
const FUEL: u64 = 10_000_000;

impl ChatTemplate {
    /// The template of a model folder: chat_template.jinja, else `chat_template` of tokenizer_config.json or
    /// chat_template.json, which is a string or a list of named templates (then the one named "default").
    ///
    /// # Errors
    /// No template, a damaged file, or a template that is not valid Jinja.
    pub fn load(dir: &Path) -> Result<Self, ChatError> {
        Self::load_named(dir, "default")
    }

    /// As [`Self::load`], with a choice among named templates (a lone template is taken whatever the name).
    ///
    /// # Errors
    /// As [`Self::load`]; no template of that name.
    pub fn load_named(dir: &Path, name: &str) -> Result<Self, ChatError> {
        let source = find_source(dir, name)?;
        Self::new(source, special_tokens(dir)?)
    }

    /// Compiles a template. `special_tokens` holds `bos_token`, `eos_token` and what else it may print.
    ///
    /// # Errors
    /// A template that is not valid Jinja.
    pub fn new(source: String, special_tokens: BTreeMap<String, String>) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(explain)?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(print_as_python);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        let source = generation_blocks_as_conditions(&source);
        environment
            .add_template_owned(TEMPLATE, source)
            .map_err(explain)?;
        Ok(Self {
            environment,
            special_tokens,
        })
    }

    /// The prompt for `messages`, a list of objects with `role` and `content` (see [`Message`]). With
    /// `add_generation_prompt` it ends where the assistant's answer begins. Encode it without special
    /// tokens: the template writes them itself.
    ///
    /// # Errors
    /// A template that fails on these messages or refuses them.
    pub fn render(
        &self,
        messages: &impl Serialize,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let mut context: BTreeMap<&str, Value> = self
            .special_tokens
            .iter()
            .map(|(name, token)| (name.as_str(), Value::from(token.as_str())))
            .collect();
        context.insert("messages", Value::from(Serde(messages)));
        context.insert("add_generation_prompt", Value::from(add_generation_prompt));
        // transformers passes these as None; templates ask `tools is not none`.
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        let template = self.environment.get_template(TEMPLATE).map_err(explain)?;
        template.render(Value::from_pairs(context)).map_err(explain)
    }
}

fn find_source(dir: &Path, name: &str) -> Result<String, ChatError> {
    let path = dir.join("chat_template.jinja");
    if let Some(bytes) = read_optional(&path)? {
        return String::from_utf8(bytes).map_err(|e| {
            ChatError::File(TokenizerError::Content {
                path,
                expected: "UTF-8 text",
                got: e.utf8_error().to_string(),
            })
        });
    }
    for file in ["tokenizer_config.json", "chat_template.json"] {
        let path = dir.join(file);
        match read_json(&path)?
            .as_ref()
            .and_then(|config| config.get("chat_template"))
        {
            None | Some(Json::Null) => {}
            Some(Json::String(source)) => return Ok(source.clone()),
            Some(Json::Array(templates)) => return choose_named(dir, &path, templates, name),
            Some(other) => return Err(malformed(&path, other)),
        }
    }
    Err(ChatError::Missing { dir: dir.to_owned() })
}

fn choose_named(dir: &Path, path: &Path, templates: &[Json], name: &str) -> Result<String, ChatError> {
    let mut available = Vec::new();
    for entry in templates {
        let field = |key| entry.get(key).and_then(Json::as_str);
        let (Some(entry_name), Some(source)) = (field("name"), field("template")) else {
            return Err(malformed(path, entry));
        };
        if entry_name == name || templates.len() == 1 {
            return Ok(source.to_owned());
        }
        available.push(entry_name);
    }
    Err(ChatError::Name {
        dir: dir.to_owned(),
        name: name.to_owned(),
        available: available.join(", "),
    })
}

fn malformed(path: &Path, got: &Json) -> ChatError {
    let mut got = got.to_string();
    got.truncate(got.floor_char_boundary(60));
    ChatError::File(TokenizerError::Content {
        path: path.to_owned(),
        expected: "\"chat_template\" as a string or a list of {\"name\": ..., \"template\": ...}",
        got,
    })
}

/// `{% generation %}` marks the assistant's part for training on it; printed, it is its content. As a condition that
/// holds it keeps the whitespace rules of a block.
fn generation_blocks_as_conditions(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        let marked = tag.strip_prefix(['-', '+']).unwrap_or(tag);
        let sign = &tag[..tag.len() - marked.len()];
        let word = marked.trim_start();
        result.push_str(before);
        result.push_str(sign);
        rest = marked;
        for (name, condition) in [("generation", " if true "), ("endgeneration", " endif ")] {
            let after = word.strip_prefix(name).map(str::trim_start);
            if let Some(after) = after.filter(|a| a.starts_with("%}") || a.starts_with("-%}")) {
                result.push_str(condition);
                rest = after;
            }
        }
    }
    result + rest
}

/// Marks an error as the template's own refusal.
#[derive(Debug, Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    let error = minijinja::Error::new(ErrorKind::InvalidOperation, message.clone());
    Err(error.with_source(Refusal(message)))
}

fn explain(error: minijinja::Error) -> ChatError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(Refusal(message)) = cause.downcast_ref() {
            return ChatError::Refused(message.clone());
        }
        source = cause.source();
    }
    ChatError::Template(error.to_string())
}

/// The local time in a format of C's strftime.
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    let now = jiff::Zoned::now();
    jiff::fmt::strtime::format(format, &now).map_err(|e| {
        minijinja::Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now({format:?}): {e}"),
        )
    })
}

/// Prints True, False and None as Python does; everything else as minijinja does.
fn print_as_python(
    output: &mut minijinja::Output,
    state: &mut State,
    value: &Value,
) -> Result<(), minijinja::Error> {
    if value.is_none() {
        return Ok(output.write_str("None")?);
    }
    match bool::try_from(value.clone()) {
        Ok(truth) if value.kind() == ValueKind::Bool => {
            Ok(output.write_str(if truth { "True" } else { "False" })?)
        }
        _ => minijinja::escape_formatter(output, state, value),
    }
}

/// The `tojson` filter of transformers: Python's json.dumps with `ensure_ascii` off by default and no HTML escapes.
fn to_json(value: &Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let style = JsonStyle {
        indent: indent.map(|width| " ".repeat(width.min(64))),
        separators: separators.and_then(|s| <[String; 2]>::try_from(s).ok()),
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        depth: 0,
        has_items: false,
    };
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let failed = |e: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut json = serde_json::to_value(value).map_err(failed)?;
    if sort_keys {
        json.sort_all_objects();
    }
    let mut bytes = Vec::new();
    json.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, style))
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The spacing of json.dumps: `", "` and `": "`, with an indent `","` and line breaks.
struct JsonStyle {
    indent: Option<String>,
    separators: Option<[String; 2]>,
    ensure_ascii: bool,
    depth: usize,
    has_items: bool,
}

type Written = std::io::Result<()>;

impl JsonStyle {
    fn line_break<W: ?Sized + std::io::Write>(&self, out: &mut W) -> Written {
        let Some(indent) = &self.indent else {
            return Ok(());
        };
        write!(out, "\n{}", indent.repeat(self.depth))
    }

    fn begin<W: ?Sized + std::io::Write>(&mut self, out: &mut W, bracket: &str) -> Written {
        self.depth += 1;
        self.has_items = false;
        out.write_all(bracket.as_bytes())
    }

    fn end<W: ?Sized + std::io::Write>(&mut self, out: &mut W, bracket: &str) -> Written {
        self.depth -= 1;
        if self.has_items {
            self.line_break(out)?;
        }
        self.has_items = true; // the container around it has this one
        out.write_all(bracket.as_bytes())
    }

    fn item<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> Written {
        if !first {
            let between = match (&self.separators, &self.indent) {
                (Some([item, _]), _) => item,
                (None, Some(_)) => ",",
                (None, None) => ", ",
            };
            out.write_all(between.as_bytes())?;
        }
        self.line_break(out)
    }
}

impl Formatter for JsonStyle {
    fn begin_array<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> Written {
        self.begin(out, "[")
    }

    fn end_array<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> Written {
        self.end(out, "]")
    }

    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> Written {
        self.item(out, first)
    }

    fn end_array_value<W: ?Sized + std::io::Write>(&mut self, _: &mut W) -> Written {
        self.has_items = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> Written {
        self.begin(out, "{")
    }

    fn end_object<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> Written {
        self.end(out, "}")
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> Written {
        self.item(out, first)
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> Written {
        let between = self.separators.as_ref().map_or(": ", |[_, key]| key);
        out.write_all(between.as_bytes())
    }

    fn end_object_value<W: ?Sized + std::io::Write>(&mut self, _: &mut W) -> Written {
        self.has_items = true;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + std::io::Write>(&mut self, out: &mut W, text: &str) -> Written {
        if !self.ensure_ascii {
            return out.write_all(text.as_bytes());
        }
        for c in text.chars() {
            match c {
                '\0'..='\x7f' => write!(out, "{c}")?,
                _ => c
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .try_for_each(|unit| write!(out, "\\u{unit:04x}"))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn render(source: &str, messages: Json) -> Result<String, ChatError> {
        ChatTemplate::new(source.to_owned(), BTreeMap::new())?.render(&messages, false)
    }

    #[test]
    fn every_template_renders_as_in_transformers() {
        let fixture: Json =
            serde_json::from_str(include_str!("../tests/fixtures/chat/expected.json")).unwrap();
        let cases = fixture["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 30);
        for case in cases {
            let style = &fixture["templates"][case["template"].as_str().unwrap()];
            let tokens = ["bos_token", "eos_token"]
                .iter()
                .filter_map(|&name| Some((name.to_owned(), style[name].as_str()?.to_owned())))
                .collect();
            let template = ChatTemplate::new(style["text"].as_str().unwrap().to_owned(), tokens).unwrap();
            let messages = &fixture["conversations"][case["conversation"].as_str().unwrap()];
            let prompt = case["add_generation_prompt"].as_bool().unwrap();
            match (template.render(messages, prompt), case["expected"].as_str()) {
                (Ok(text), Some(expected)) => assert_eq!(text, expected, "{case}"),
                (Err(ChatError::Refused(message)), None) => assert_eq!(message, case["error"], "{case}"),
                (other, _) => panic!("{case}: {other:?}"),
            }
        }
    }

    #[test]
    fn tojson_writes_what_python_writes() {
        let value = json!([{"b": [1, 0.5, null, true], "a": "é<&>'\"\n😀", "empty": [], "none": {}}]);
        let all =
            |options: &str| render(&format!("{{{{ messages | tojson{options} }}}}"), value.clone()).unwrap();
        assert_eq!(
            all(""),
            "[{\"b\": [1, 0.5, null, true], \"a\": \"é<&>'\\\"\\n😀\", \"empty\": [], \"none\": {}}]"
        );
        assert_eq!(
            all("(indent=1, sort_keys=true, ensure_ascii=true)"),
            "[\n {\n  \"a\": \"\\u00e9<&>'\\\"\\n\\ud83d\\ude00\",\n  \"b\": [\n   1,\n   0.5,\n   null,\n   true\n  ],\n  \
             \"empty\": [],\n  \"none\": {}\n }\n]"
        );
        assert!(all("(separators=[',', ':'])").starts_with("[{\"b\":[1,0.5,null,true],\"a\":"));
    }

    #[test]
    fn values_print_as_in_python() {
        assert_eq!(
            render(
                "{{ none }} {{ 1 == 1 }} {{ false }} {{ missing }}|{{ 2.0 }}",
                json!([])
            )
            .unwrap(),
            "None True False |2.0"
        );
    }

    #[test]
    fn generation_marks_print_their_content_with_the_whitespace_of_a_block() {
        let source = "a\n  {% generation %}\n b {%- endgeneration -%}  c {{ 'generation' }}{%generation%}{% endgeneration%}";
        assert_eq!(render(source, json!([])).unwrap(), "a\n bc generation");
    }

    #[test]
    fn python_methods_loop_controls_and_dates_work() {
        let source = "{% for m in messages %}{% if m.role == 'x' %}{% continue %}{% endif %}{{ m.content.strip().upper() }}\
            {{ m.content.startswith(' a') }}{{ m.content.split('b')[-1] }}{% if loop.index > 1 %}{% break %}{% endif %}{% endfor %}";
        let messages = json!([{"role": "x", "content": "no"}, {"role": "u", "content": " abc "}, {"role": "u", "content": "not reached"}]);
        assert_eq!(render(source, messages).unwrap(), "ABCTruec ");
        let date = render("{{ strftime_now('%d %b %Y') }}", json!([])).unwrap();
        assert_eq!(date, jiff::Zoned::now().strftime("%d %b %Y").to_string());
        assert!(matches!(
            render("{{ strftime_now('%!') }}", json!([])),
            Err(ChatError::Template(_))
        ));
    }

    #[test]
    fn messages_are_data_and_never_templates() {
        let text = render(
            "{{ messages[0].content }}",
            json!([{"role": "user", "content": "{{ 1 + 1 }}<b>"}]),
        );
        assert_eq!(text.unwrap(), "{{ 1 + 1 }}<b>");
    }

    #[test]
    fn hostile_templates_end_in_an_error() {
        for source in [
            "{% for",
            "{{ messages[0]['a']['b'] }}",
            "{{ 1 / 0 }}",
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ messages | tojson(indent='x') }}",
        ] {
            let error = render(source, json!([])).expect_err(source);
            assert!(matches!(error, ChatError::Template(_)), "{source}: {error}");
        }
    }

    #[test]
    fn a_template_is_found_in_each_of_its_places() {
        let dir = tempfile::tempdir().unwrap();
        let messages = [Message {
            role: "user".into(),
            content: "Hi".into(),
        }];
        let load = || ChatTemplate::load(dir.path()).and_then(|t| t.render(&messages, true));
        let put = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();

        let error = load().unwrap_err().to_string();
        assert!(
            error.contains("no chat template") && error.contains("chat_template.jinja"),
            "{error}"
        );
        put(
            "tokenizer_config.json",
            r#"{"bos_token": {"content": "<s>"}, "chat_template": "{{ bos_token }}{{ messages[0].content }}"}"#,
        );
        assert_eq!(load().unwrap(), "<s>Hi");
        put(
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]}"#,
        );
        assert_eq!(load().unwrap(), "plain");
        let tools = ChatTemplate::load_named(dir.path(), "tool_use").unwrap();
        assert_eq!(tools.render(&messages, true).unwrap(), "tools");
        let error = ChatTemplate::load_named(dir.path(), "rag")
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"rag\"; there are: tool_use, default"), "{error}");
        put("chat_template.jinja", "file {{ add_generation_prompt }}\n");
        assert_eq!(load().unwrap(), "file True");
    }

    #[test]
    fn malformed_template_entries_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        for entry in ["7", "[{\"name\": \"default\"}]", "[3]", "{}"] {
            let config = format!("{{\"chat_template\": {entry}}}");
            fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
            let error = ChatTemplate::load(dir.path()).expect_err(entry).to_string();
            assert!(
                error.contains("tokenizer_config.json: expected \"chat_template\" as a string"),
                "{error}"
            );
        }
    }
}

//! Conversations to prompts, by the chat template a model folder carries (the Jinja dialect of transformers).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::Environment;
use minijinja::value::{Serde, Value};
use serde::Serialize;
use serde_json::Value as Json;
use thiserror::Error;

use crate::text::jinja::{self, Refusal};
use crate::text::tokenizer::{TokenizerError, read_json, read_optional, special_tokens};

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
        "{}: no chat template (looked for chat_template.jinja, additional_chat_templates, chat_template.json and \
         \"chat_template\" in tokenizer_config.json); this is a base model: use plain generation, or put the template of the model it \
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
    /// Under which name the template is compiled: the file that it stands in, which so shows in error messages.
    name: String,
    /// The same of the template for tools, where there is one.
    name_of_tools: Option<String>,
    /// Why the template for tools can not be used: a fault of conversations with tools alone.
    tools_fault: Option<String>,
}

/// The name of a template that is in no file.
const NO_FILE: &str = "chat_template";
/// The name of the template that counts where none is asked for.
const DEFAULT: &str = "default";
/// The name of a template that counts where tools are given, as in transformers.
const OF_TOOLS: &str = "tool_use";

impl ChatTemplate {
    /// The template of a model folder: chat_template.jinja with additional_chat_templates/NAME.jinja, else `chat_template` of
    /// tokenizer_config.json or chat_template.json, which is a string or a list of named templates. The one named "default" counts,
    /// and with tools the one named "tool_use" where there is one.
    ///
    /// # Errors
    /// No template, a damaged file, or a template that is not valid Jinja.
    pub fn load(dir: &Path) -> Result<Self, ChatError> {
        Self::load_named(dir, DEFAULT)
    }

    /// As [`Self::load`], with a choice among named templates (a lone template is taken whatever the name).
    ///
    /// # Errors
    /// As [`Self::load`]; no template of that name.
    pub fn load_named(dir: &Path, name: &str) -> Result<Self, ChatError> {
        let sources = find_sources(dir)?;
        let chosen = match sources.get(name) {
            Some(source) => source,
            None if sources.len() == 1 => sources
                .values()
                .next()
                .unwrap_or_else(|| unreachable!("there is one")),
            None => {
                let available: Vec<_> = sources.keys().map(String::as_str).collect();
                return Err(ChatError::Name {
                    dir: dir.to_owned(),
                    name: name.to_owned(),
                    available: available.join(", "),
                });
            }
        };
        let mut template = Self::compile(chosen, special_tokens(dir)?)?;
        if let (DEFAULT, Some(source)) = (name, sources.get(OF_TOOLS)) {
            let fault = template.add(source).err();
            template.tools_fault = fault.map(|fault| format!("the one named {OF_TOOLS:?}: {fault}"));
            template.name_of_tools = Some(source.name.clone());
        }
        Ok(template)
    }

    /// Compiles a template. `special_tokens` holds `bos_token`, `eos_token` and what else it may print.
    ///
    /// # Errors
    /// A template that is not valid Jinja.
    pub fn new(source: String, special_tokens: BTreeMap<String, String>) -> Result<Self, ChatError> {
        let name = NO_FILE.to_owned();
        Self::compile(&Source { name, text: source }, special_tokens)
    }

    fn compile(source: &Source, special_tokens: BTreeMap<String, String>) -> Result<Self, ChatError> {
        let mut template = Self {
            environment: jinja::environment().map_err(explain)?,
            special_tokens,
            name: source.name.clone(),
            name_of_tools: None,
            tools_fault: None,
        };
        template.add(source)?;
        Ok(template)
    }

    fn add(&mut self, source: &Source) -> Result<(), ChatError> {
        let text = jinja::without_generation_marks(&jinja::with_line_feeds(&source.text));
        let added = self.environment.add_template_owned(source.name.clone(), text);
        added.map_err(explain)
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
        self.render_with_tools(messages, None, add_generation_prompt)
    }

    /// As [`Self::render`], with `tools`: a list of `{"type": "function", "function": {"name", "description", "parameters"}}`. A
    /// template that does not mention them ([`Self::mentions`]) passes over them; a folder may have a template of its own for them.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_with_tools(
        &self,
        messages: &impl Serialize,
        tools: Option<&Json>,
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
        context.insert(
            "tools",
            tools.map_or(Value::from(()), |tools| Value::from(Serde(tools))),
        );
        context.insert("documents", Value::from(()));
        if let (Some(_), Some(fault)) = (tools, &self.tools_fault) {
            return Err(ChatError::Template(fault.clone()));
        }
        let of_tools = tools.and(self.name_of_tools.as_ref());
        let template = self.environment.get_template(of_tools.unwrap_or(&self.name));
        let template = template.map_err(explain)?;
        template.render(Value::from_pairs(context)).map_err(explain)
    }
}

impl ChatTemplate {
    /// Whether these words stand in the text of a template.
    pub fn mentions(&self, words: &str) -> bool {
        let mentions = |name: &str| {
            let template = self.environment.get_template(name);
            template.is_ok_and(|template| template.source().contains(words))
        };
        mentions(&self.name) || self.name_of_tools.as_deref().is_some_and(mentions)
    }
}

/// A template as a file has it.
struct Source {
    /// Where it stands.
    name: String,
    text: String,
}

/// All templates of a folder by name, a lone one as "default". Files of their own count before fields of others, as in transformers.
fn find_sources(dir: &Path) -> Result<BTreeMap<String, Source>, ChatError> {
    let mut sources = BTreeMap::new();
    for path in jinja_files(&dir.join("additional_chat_templates")) {
        let stem = path.file_stem().unwrap_or_default();
        let name = stem.to_string_lossy().into_owned();
        let place = format!("additional_chat_templates/{name}.jinja");
        sources.extend(read_source(&path, place)?.map(|source| (name, source)));
    }
    let own = read_source(&dir.join("chat_template.jinja"), "chat_template.jinja".to_owned())?;
    sources.extend(own.map(|source| (DEFAULT.to_owned(), source)));
    if !sources.is_empty() {
        return Ok(sources);
    }
    for file in ["tokenizer_config.json", "chat_template.json"] {
        let path = dir.join(file);
        match read_json(&path)?
            .as_ref()
            .and_then(|config| config.get("chat_template"))
        {
            None | Some(Json::Null) => {}
            Some(Json::String(text)) => {
                let (name, text) = (format!("chat_template in {file}"), text.clone());
                return Ok(BTreeMap::from([(DEFAULT.to_owned(), Source { name, text })]));
            }
            Some(Json::Array(templates)) => return named_sources(&path, templates),
            Some(other) => return Err(malformed(&path, other)),
        }
    }
    Err(ChatError::Missing { dir: dir.to_owned() })
}

/// Files of templates in a folder, in order.
fn jinja_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "jinja"))
        .collect();
    files.sort();
    files
}

fn read_source(path: &Path, name: String) -> Result<Option<Source>, ChatError> {
    let Some(bytes) = read_optional(path)? else {
        return Ok(None);
    };
    let source = String::from_utf8(bytes).map_err(|e| {
        ChatError::File(TokenizerError::Content {
            path: path.to_owned(),
            expected: "UTF-8 text",
            got: e.utf8_error().to_string(),
        })
    });
    source.map(|text| Some(Source { name, text }))
}

fn named_sources(path: &Path, templates: &[Json]) -> Result<BTreeMap<String, Source>, ChatError> {
    let mut sources = BTreeMap::new();
    for entry in templates {
        let field = |key| entry.get(key).and_then(Json::as_str);
        let (Some(name), Some(source)) = (field("name"), field("template")) else {
            return Err(malformed(path, entry));
        };
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let place = format!("chat_template {name:?} in {file}");
        let source = Source {
            name: place,
            text: source.to_owned(),
        };
        sources.insert(name.to_owned(), source);
    }
    match sources.is_empty() {
        true => Err(malformed(path, &Json::Array(Vec::new()))),
        false => Ok(sources),
    }
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
            serde_json::from_str(include_str!("../../tests/fixtures/chat/expected.json")).unwrap();
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
    fn messages_are_data_and_never_templates() {
        let text = render(
            "{{ messages[0].content }}",
            json!([{"role": "user", "content": "{{ 1 + 1 }}<b>"}]),
        );
        assert_eq!(text.unwrap(), "{{ 1 + 1 }}<b>");
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
        assert!(error.contains("\"rag\"; there are: default, tool_use"), "{error}");
        put("chat_template.jinja", "file {{ add_generation_prompt }}\n");
        assert_eq!(load().unwrap(), "file True");
        fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
        put(
            "additional_chat_templates/tool_use.jinja",
            "tools {{ tools | length }}",
        );
        put("additional_chat_templates/rag.jinja", "documents");
        assert_eq!(load().unwrap(), "file True");
        let template = ChatTemplate::load(dir.path()).unwrap();
        let with_tools = template.render_with_tools(&messages, Some(&json!([1, 2])), true);
        assert_eq!(with_tools.unwrap(), "tools 2");
        assert!(template.mentions("tools |"));
        let named = ChatTemplate::load_named(dir.path(), "rag").unwrap();
        assert_eq!(named.render(&messages, true).unwrap(), "documents");
        fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
        let error = load().unwrap_err().to_string();
        assert!(error.contains("\"default\"; there are: rag, tool_use"), "{error}");
        put("chat_template.jinja", "{% if %}");
        let error = load().unwrap_err().to_string();
        assert!(error.contains("in chat_template.jinja:1"), "{error}");
        put(
            "chat_template.jinja",
            "\u{feff}a\r\n{% if true %}\r\nb\rc{% endif %}\r\n",
        );
        assert_eq!(load().unwrap(), "a\nb\nc");
    }

    #[test]
    fn line_ends_are_read_as_jinja2_reads_them() {
        let crlf =
            "{% for m in messages %}\r\n{{ '<|user|>\r\n' + m.content + '\\r\n' }}\r\n{% endfor %}\r\n";
        let messages = json!([{"role": "user", "content": "a\r\nb"}]);
        // Those of the source become line feeds; those of a message, and those written as escapes, stay.
        assert_eq!(render(crlf, messages.clone()).unwrap(), "<|user|>\na\r\nb\r\n\n");
        assert_eq!(
            render(&crlf.replace("\r\n", "\n"), messages.clone()).unwrap(),
            render(&crlf.replace("\r\n", "\r"), messages).unwrap()
        );
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

//! The Jinja that chat templates are written in: Python's values and methods, as transformers offers them.

use std::fmt::Write;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State};
use serde::Serialize;
use serde_json::ser::Formatter;
use thiserror::Error;

/// Steps a template may take: a hundred times what the longest conversation needs, and an end for a hostile one.
const FUEL: u64 = 10_000_000;

/// An environment that renders as transformers does.
pub(crate) fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    // By itself the library would escape by the name of a file.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(print);
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: &Value| python_str(value));
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    Ok(environment)
}

/// The source with line feeds alone: Jinja2 reads every line end so.
pub(crate) fn with_line_feeds(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

/// `{% generation %}` marks the assistant's part for training on it; printed, it is its content. As a condition that
/// holds it keeps the whitespace rules of a block.
pub(crate) fn without_generation_marks(source: &str) -> String {
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
pub(crate) struct Refusal(pub String);

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    let error = minijinja::Error::new(ErrorKind::InvalidOperation, message.clone());
    Err(error.with_source(Refusal(message)))
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

/// As in Python, `None` is not iterable; templates ask `tools is iterable` before they loop.
fn is_iterable(value: &Value) -> bool {
    match value.kind() {
        ValueKind::None => false,
        ValueKind::Undefined | ValueKind::String => true,
        _ => value.try_iter().is_ok(),
    }
}

/// As in Python, texts and mappings have a length and items too.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
}

fn print(output: &mut Output, _: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    Ok(output.write_str(&python_str(value))?)
}

/// Python's `str(value)`.
fn python_str(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let mut text = String::new();
            write_repr(&mut text, value, 0);
            text
        }
    }
}

/// Containers nested deeper than this are printed as minijinja does.
const REPR_DEPTH: usize = 64;

/// Python's `repr(value)`.
fn write_repr(out: &mut String, value: &Value, depth: usize) {
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => write_string_repr(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq if depth < REPR_DEPTH => {
            out.push('[');
            write_items(out, value, |out, item| write_repr(out, item, depth + 1));
            out.push(']');
        }
        ValueKind::Map if depth < REPR_DEPTH => {
            out.push('{');
            write_items(out, value, |out, key| {
                write_repr(out, key, depth + 1);
                out.push_str(": ");
                write_repr(out, &value.get_item(key).unwrap_or_default(), depth + 1);
            });
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}

fn write_items(out: &mut String, container: &Value, mut write_item: impl FnMut(&mut String, &Value)) {
    for (idx, item) in container.try_iter().into_iter().flatten().enumerate() {
        if idx > 0 {
            out.push_str(", ");
        }
        write_item(out, &item);
    }
}

fn write_string_repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
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
    use crate::text::chat::{ChatError, ChatTemplate};
    use serde_json::{Value as Json, json};

    fn render(source: &str, messages: Json) -> Result<String, ChatError> {
        ChatTemplate::new(source.to_owned(), Default::default())?.render(&messages, false)
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
    fn containers_print_as_in_python() {
        let value = json!([1.5, null, true, "it's", "a\"b'\n\\", {"k": [], "é": {}}]);
        let expected = r#"[1.5, None, True, "it's", 'a"b\'\n\\', {'k': [], 'é': {}}]"#;
        assert_eq!(
            render("{{ messages }}|{{ messages | string }}", value).unwrap(),
            format!("{expected}|{expected}")
        );
    }

    #[test]
    fn tests_of_kinds_answer_as_in_jinja2() {
        let source = "{% for v in messages %}{{ v is iterable }}{{ v is sequence }}{{ v is mapping }} {% endfor %}\
            {{ tools is iterable and tools | length > 0 }} {{ missing is iterable }}";
        let values = json!([null, 1, "a", [1], {"a": 1}]);
        let expected = "FalseFalseFalse FalseFalseFalse TrueTrueFalse TrueTrueFalse TrueTrueTrue False True";
        assert_eq!(render(source, values).unwrap(), expected);
    }
}

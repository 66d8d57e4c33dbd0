//! Task files: JSONL in four forms, read strictly.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::EvaluateError;
use super::text_file::read_text;

/// The forms of a task file, told apart by the fields of its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskForm {
    /// `query`, `choices`, `gold`: one context, several continuations.
    Choices,
    /// `context_options`, `continuation`, `gold`: several contexts, one continuation (WinoGrande).
    Contexts,
    /// `subject`, `input`, `output`: the continuations are the letters A to D (MMLU).
    Letters,
    /// `context`, `continuation`: one option, to be continued greedily (LAMBADA).
    Continuation,
}

/// One item of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskItem {
    /// Its line in the file, from 1.
    pub line: usize,
    /// (context, continuation) of each option, the continuation without the space between them.
    pub options: Vec<(String, String)>,
    /// Index of the right option; `None` for [`TaskForm::Continuation`].
    pub gold: Option<usize>,
}

/// A task file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    path: PathBuf,
    form: TaskForm,
    items: Vec<TaskItem>,
}

/// Letters of [`TaskForm::Letters`].
const LETTERS: [&str; 4] = ["A", "B", "C", "D"];
impl Task {
    /// Reads a JSONL file; the first line decides the form, all lines must have it. `limit` keeps the first items.
    ///
    /// # Errors
    /// An unreadable file, a line that is not an item (with file and line), no items.
    pub fn load(path: &Path, limit: Option<usize>) -> Result<Self, EvaluateError> {
        Self::parse(path, &read_text(path)?, limit)
    }

    /// As [`Self::load`] for a text in memory; `path` is for messages and the name.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(path: &Path, text: &str, limit: Option<usize>) -> Result<Self, EvaluateError> {
        if limit == Some(0) {
            return Err(EvaluateError::Nothing { what: "items" });
        }
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        let mut form = None;
        let mut items = Vec::new();
        for (idx, line) in lines.take(limit.unwrap_or(usize::MAX)) {
            let fail = |Refused { expected, got }| EvaluateError::Line {
                path: path.to_owned(),
                line: idx + 1,
                expected,
                got,
            };
            let object = parse_object(line).map_err(fail)?;
            let form = *form.get_or_insert(form_of(&object).map_err(fail)?);
            let (options, gold) = read_item(&object, form).map_err(fail)?;
            items.push(TaskItem {
                line: idx + 1,
                options,
                gold,
            });
        }
        let no_items = EvaluateError::NoItems {
            path: path.to_owned(),
        };
        Ok(Self {
            path: path.to_owned(),
            form: form.ok_or(no_items)?,
            items,
        })
    }

    /// Name of the file without its ending.
    pub fn name(&self) -> String {
        self.path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Form of the items.
    pub fn form(&self) -> TaskForm {
        self.form
    }

    /// The items, at least one.
    pub fn items(&self) -> &[TaskItem] {
        &self.items
    }
}

/// What a line should hold, and what it holds.
struct Refused {
    expected: String,
    got: String,
}

fn refused(expected: impl Into<String>, got: impl Into<String>) -> Refused {
    Refused {
        expected: expected.into(),
        got: got.into(),
    }
}

fn parse_object(line: &str) -> Result<Map<String, Value>, Refused> {
    match serde_json::from_str(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(refused("a JSON object", describe(Some(&other)))),
        Err(e) => Err(refused("a JSON object", format!("text that is not JSON ({e})"))),
    }
}

fn form_of(object: &Map<String, Value>) -> Result<TaskForm, Refused> {
    let has = |fields: &[&str]| fields.iter().all(|&field| object.contains_key(field));
    let forms = [
        (TaskForm::Choices, ["query", "choices"]),
        (TaskForm::Contexts, ["context_options", "continuation"]),
        (TaskForm::Letters, ["input", "output"]),
        (TaskForm::Continuation, ["context", "continuation"]),
    ];
    let found = forms
        .iter()
        .find(|(_, fields)| has(fields))
        .map(|(form, _)| *form);
    found.ok_or_else(|| {
        let fields: Vec<&str> = object.keys().map(String::as_str).collect();
        refused(
            "the fields query, choices, gold; context_options, continuation, gold; subject, input, output; or \
             context, continuation",
            format!("the fields [{}]", fields.join(", ")),
        )
    })
}

type Options = (Vec<(String, String)>, Option<usize>);

fn read_item(object: &Map<String, Value>, form: TaskForm) -> Result<Options, Refused> {
    match form {
        TaskForm::Choices => {
            let query = string(object, "query")?;
            let choices = strings(object, "choices")?;
            let gold = gold(object, choices.len())?;
            Ok((
                choices
                    .into_iter()
                    .map(|choice| (query.clone(), choice))
                    .collect(),
                Some(gold),
            ))
        }
        TaskForm::Contexts => {
            let contexts = strings(object, "context_options")?;
            let continuation = nonempty(object, "continuation")?;
            let gold = gold(object, contexts.len())?;
            Ok((
                contexts
                    .into_iter()
                    .map(|context| (context, continuation.clone()))
                    .collect(),
                Some(gold),
            ))
        }
        TaskForm::Letters => {
            let input = string(object, "input")?;
            let output = string(object, "output")?;
            let gold = LETTERS.iter().position(|letter| *letter == output.trim());
            let gold =
                gold.ok_or_else(|| refused("\"output\" as one of A, B, C, D", format!("{output:?}")))?;
            Ok((
                LETTERS
                    .iter()
                    .map(|&letter| (input.clone(), letter.to_owned()))
                    .collect(),
                Some(gold),
            ))
        }
        TaskForm::Continuation => Ok((
            vec![(string(object, "context")?, nonempty(object, "continuation")?)],
            None,
        )),
    }
}

fn string(object: &Map<String, Value>, field: &str) -> Result<String, Refused> {
    match object.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        other => Err(refused(format!("{field:?} as a string"), describe(other))),
    }
}

fn nonempty(object: &Map<String, Value>, field: &str) -> Result<String, Refused> {
    let text = string(object, field)?;
    match text.trim().is_empty() {
        true => Err(refused(
            format!("{field:?} with something to score"),
            format!("{text:?}"),
        )),
        false => Ok(text),
    }
}

fn strings(object: &Map<String, Value>, field: &str) -> Result<Vec<String>, Refused> {
    let expected = || format!("{field:?} as a list of at least two strings that are not empty");
    let Some(Value::Array(values)) = object.get(field) else {
        return Err(refused(expected(), describe(object.get(field))));
    };
    if values.len() < 2 {
        return Err(refused(expected(), format!("a list of {}", values.len())));
    }
    let text = |(index, value): (usize, &Value)| match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        other => Err(refused(
            expected(),
            format!("{} at index {index}", describe(Some(other))),
        )),
    };
    values.iter().enumerate().map(text).collect()
}

fn gold(object: &Map<String, Value>, num_options: usize) -> Result<usize, Refused> {
    let gold = object
        .get("gold")
        .and_then(Value::as_u64)
        .and_then(|gold| usize::try_from(gold).ok());
    let expected = || format!("\"gold\" as an index below {num_options}");
    gold.filter(|&gold| gold < num_options)
        .ok_or_else(|| refused(expected(), describe(object.get("gold"))))
}

/// A value short enough for a message.
fn describe(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "nothing".to_owned();
    };
    let mut text = value.to_string();
    if text.len() > 60 {
        text.truncate(text.floor_char_boundary(60));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Task, EvaluateError> {
        Task::parse(Path::new("dir/some_task.jsonl"), text, None)
    }

    #[test]
    fn every_form_is_told_by_its_fields() {
        let choices = parse(r#"{"query": "q", "choices": ["a", "b"], "gold": 1}"#).unwrap();
        assert_eq!(
            (choices.name().as_str(), choices.form()),
            ("some_task", TaskForm::Choices)
        );
        let options = vec![("q".to_owned(), "a".to_owned()), ("q".to_owned(), "b".to_owned())];
        assert_eq!(
            choices.items(),
            [TaskItem {
                line: 1,
                options,
                gold: Some(1)
            }]
        );

        let contexts = parse(r#"{"context_options": ["x", "y"], "continuation": "z", "gold": 0}"#).unwrap();
        assert_eq!(contexts.form(), TaskForm::Contexts);
        assert_eq!(contexts.items()[0].options[1], ("y".to_owned(), "z".to_owned()));

        let letters = parse(r#"{"subject": "s", "input": "i", "output": " C"}"#).unwrap();
        assert_eq!(
            (letters.form(), letters.items()[0].gold),
            (TaskForm::Letters, Some(2))
        );
        assert_eq!(letters.items()[0].options[3], ("i".to_owned(), "D".to_owned()));

        let continuation = parse(r#"{"context": "c", "continuation": "w"}"#).unwrap();
        assert_eq!(
            (continuation.form(), continuation.items()[0].gold),
            (TaskForm::Continuation, None)
        );
    }

    #[test]
    fn blank_lines_are_passed_over_and_lines_keep_their_numbers() {
        let line = r#"{"context": "c", "continuation": "w"}"#;
        let task = parse(&format!("\n{line}\r\n  \n{line}\n")).unwrap();
        assert_eq!(
            task.items().iter().map(|item| item.line).collect::<Vec<_>>(),
            [2, 4]
        );
        let first = Task::parse(Path::new("t"), &format!("{line}\n{line}\nnot read"), Some(2)).unwrap();
        assert_eq!(first.items().len(), 2);
    }

    #[test]
    fn a_line_that_is_no_item_tells_file_line_expected_and_got() {
        let good = r#"{"query": "q", "choices": ["a", "b"], "gold": 1}"#;
        for (bad, expected) in [
            ("{", "expected a JSON object, got text that is not JSON"),
            ("[1]", "expected a JSON object, got [1]"),
            (
                r#"{"query": 7, "choices": ["a", "b"], "gold": 1}"#,
                "expected \"query\" as a string, got 7",
            ),
            (
                r#"{"query": "q", "choices": ["a", "b"], "gold": 2}"#,
                "expected \"gold\" as an index below 2, got 2",
            ),
            (
                r#"{"query": "q", "choices": ["a", "b"], "gold": -1}"#,
                "below 2, got -1",
            ),
            (r#"{"query": "q", "choices": ["a", "b"]}"#, "below 2, got nothing"),
            (
                r#"{"query": "q", "choices": ["a"], "gold": 0}"#,
                "at least two strings that are not empty, got a list of 1",
            ),
            (
                r#"{"query": "q", "choices": ["a", " "], "gold": 0}"#,
                "got \" \" at index 1",
            ),
            (r#"{"query": "q", "choices": "a", "gold": 0}"#, "got \"a\""),
            (
                r#"{"context": "c", "continuation": "w"}"#,
                "expected \"query\" as a string, got nothing",
            ),
        ] {
            let error = parse(&format!("{good}\n{bad}")).expect_err(bad).to_string();
            assert!(error.starts_with("dir/some_task.jsonl:2: expected"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        let unknown = parse(r#"{"question": "q"}"#).unwrap_err().to_string();
        assert!(
            unknown.contains(":1: expected the fields query, choices, gold")
                && unknown.contains("[question]"),
            "{unknown}"
        );
        let letter = parse(r#"{"subject": "s", "input": "i", "output": "E"}"#)
            .unwrap_err()
            .to_string();
        assert!(letter.contains("as one of A, B, C, D, got \"E\""), "{letter}");
        let empty = parse(r#"{"context": "c", "continuation": ""}"#)
            .unwrap_err()
            .to_string();
        assert!(empty.contains("with something to score"), "{empty}");
    }

    #[test]
    fn a_file_without_items_is_an_error() {
        assert!(matches!(parse("\n \n"), Err(EvaluateError::NoItems { .. })));
        assert!(matches!(
            Task::parse(Path::new("t"), "{}", Some(0)),
            Err(EvaluateError::Nothing { .. })
        ));
    }

    #[test]
    fn values_in_messages_are_short_even_inside_characters() {
        let long = format!(
            r#"{{"query": ["{}"], "choices": ["a", "b"], "gold": 1}}"#,
            "\u{e9}".repeat(1000)
        );
        let error = parse(&long).unwrap_err().to_string();
        assert!(error.ends_with("...") && error.len() < 200, "{error}");
    }
}

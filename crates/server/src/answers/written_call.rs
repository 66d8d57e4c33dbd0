//! A call as the grammar lets it be written, read as it comes: `{"name": "f", "arguments": {...}}` with white space between.

use serde_json::Deserializer;

/// What comes before the arguments of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// All of it, so many bytes: the arguments follow.
    Read {
        /// The tool.
        name: String,
        /// Bytes before the arguments.
        len: usize,
    },
    /// It is not all there, or it is none.
    Open,
}

/// How deep the arguments stand open, and whether inside a text of theirs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    /// Goes through more of the arguments, an object; where they end, if they do.
    pub fn find_end(&mut self, text: &str) -> Option<usize> {
        let end = text.bytes().position(|byte| self.ends_with(byte));
        end.map(|at| at + 1)
    }

    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_text {
            self.in_text = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return false;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => return false,
        }
        self.depth == 0 && !self.in_text
    }
}

/// Reads what comes before the arguments, which stand under this name.
pub fn head(text: &str, arguments: &str) -> Head {
    read_head(text, &format!("\"{arguments}\"")).unwrap_or(Head::Open)
}

fn read_head(text: &str, arguments: &str) -> Option<Head> {
    let rest = after(text, &["{", "\"name\"", ":"])?;
    let mut values = Deserializer::from_str(rest).into_iter::<String>();
    let name = values.next()?.ok()?;
    let rest = after(&rest[values.byte_offset()..], &[",", arguments, ":"])?;
    let rest = rest.trim_start();
    let len = text.len() - rest.len();
    rest.starts_with('{').then_some(Head::Read { name, len })
}

/// How many bytes end a call behind its arguments, with this marker, where they are there.
pub fn closed(text: &str, marker: &str) -> Option<usize> {
    let rest = after(text, &["}", marker])?;
    Some(text.len() - rest.len())
}

/// What follows these words, with white space before each.
fn after<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    words
        .iter()
        .try_fold(text, |rest, word| rest.trim_start().strip_prefix(word))
}

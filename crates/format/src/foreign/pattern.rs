//! Regular expressions that configurations hold, in Python's dialect and read as Python's `re.match` does: from the beginning of a name.

use fancy_regex::Regex;

use super::error::ForeignError;

/// A pattern for names of linears.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// The pattern, or `None` for a text that is none.
    pub fn of(text: &str) -> Option<Self> {
        let regex = Regex::new(&format!(r"\A(?:{text})")).ok()?;
        Some(Self {
            text: text.to_owned(),
            regex,
        })
    }

    /// Whether the beginning of a name fits.
    pub fn fits(&self, name: &str) -> Result<bool, ForeignError> {
        self.regex.is_match(name).map_err(|_| ForeignError::Untargeted {
            reason: format!(
                "the pattern `{}` takes too long to compare with its name",
                self.text
            ),
        })
    }
}

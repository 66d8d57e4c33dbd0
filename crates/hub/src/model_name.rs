//! What a model is called on the hub, and which state of it is meant.

use std::fmt;
use std::str::FromStr;

use crate::error::HubError;

/// A model on the hub: ORG/NAME.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    org: String,
    name: String,
}

impl FromStr for ModelName {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        match text.split_once('/') {
            Some((org, name)) if is_word(org) && is_word(name) => Ok(Self {
                org: org.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(HubError::Name {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)
    }
}

impl ModelName {
    /// Its folder in a cache.
    pub fn folder(&self) -> String {
        format!("models--{}--{}", self.org, self.name)
    }

    /// Its name without the organisation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model whose snapshot `dir` is, where it lies in a cache.
    pub fn of_snapshot(dir: &std::path::Path) -> Option<Self> {
        let snapshots = dir.parent()?;
        let folder = snapshots.parent()?.file_name()?.to_str()?;
        let (org, name) = folder.strip_prefix("models--")?.split_once("--")?;
        (snapshots.file_name()? == "snapshots").then_some(())?;
        format!("{org}/{name}").parse().ok()
    }
}

/// What the hub takes for a name, which can mean no other folder than its own.
fn is_word(word: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    (1..=96).contains(&word.len())
        && word.chars().all(is_plain)
        && !word.starts_with(['-', '.'])
        && !word.ends_with(['-', '.'])
        && !word.contains("--")
        && !word.contains("..")
}

/// A branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(String);

impl Default for Revision {
    fn default() -> Self {
        Self("main".to_owned())
    }
}

impl FromStr for Revision {
    type Err = HubError;

    /// Follows git's rules for names, so that none can leave a folder.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let is_strange =
            |letter: char| letter.is_control() || letter.is_whitespace() || "\\~^:?*[".contains(letter);
        let is_part =
            |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(".lock");
        let is_name = (1..=200).contains(&text.len())
            && !text.contains(is_strange)
            && !text.contains("..")
            && text.split('/').all(is_part);
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(HubError::Revision {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Revision {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one state for ever.
    pub fn is_commit(&self) -> bool {
        is_commit(&self.0)
    }
}

/// Whether a text is the checksum that git calls a commit by.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn names_of_the_hub_are_taken_and_paths_are_not() {
        for name in ["meta-llama/Llama-3.2-1B", "Qwen/Qwen2.5-0.5B-Instruct", "a/b_c"] {
            assert_eq!(name.parse::<ModelName>().unwrap().to_string(), name);
        }
        for path in [
            "gpt2", "a/b/c", "../b", "a/..", "/a", "a/", "./a", "a/.b", "a/b.", "a--b/c", "a/b c", "a/ü",
            "a\\b/c", "",
        ] {
            assert!(path.parse::<ModelName>().is_err(), "{path}");
        }
    }

    #[test]
    fn snapshot_tells_its_model() {
        let of = |path| ModelName::of_snapshot(Path::new(path)).map(|name| name.to_string());
        assert_eq!(of("/c/models--a--b-c/snapshots/0123").unwrap(), "a/b-c");
        assert_eq!(of("/c/models--a--b/other/0123"), None);
        assert_eq!(of("/models/llama"), None);
    }

    #[test]
    fn revisions_are_names_of_git() {
        for name in ["main", "v1.0", "refs/pr/1", "fix+more@2"] {
            assert_eq!(name.parse::<Revision>().unwrap().as_str(), name);
        }
        for path in [
            "", "/a", "a/", "../a", "a/../b", "a//b", "a b", ".a", "a\\b", "-x", "a.lock",
        ] {
            assert!(path.parse::<Revision>().is_err(), "{path}");
        }
        assert!(
            "0123456789abcdef0123456789abcdef01234567"
                .parse::<Revision>()
                .unwrap()
                .is_commit()
        );
        assert!(!Revision::default().is_commit());
    }
}

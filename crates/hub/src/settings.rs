//! Where the hub and the cache are, and what opens them: the variables that the hub's own programs know.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::HubError;
use crate::http::{Patience, Proxies};

/// The hub, unless HF_ENDPOINT names another.
const ENDPOINT: &str = "https://huggingface.co";

/// What tells the hub who asks. It is never shown.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// A token as the hub gives it out; `place` is where it was found.
    ///
    /// # Errors
    /// A text that can not be sent.
    pub fn new(text: &str, place: &str) -> Result<Self, HubError> {
        let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        match is_token {
            true => Ok(Self(text.to_owned())),
            false => Err(HubError::Setting {
                name: place.to_owned(),
                problem: "expected a token of letters, digits and signs without spaces".to_owned(),
            }),
        }
    }

    /// The header that carries it.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

/// Where the hub and the cache are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The hub, without a `/` at its end.
    pub endpoint: String,
    /// Who asks; without one only what everybody may have is given.
    pub token: Option<Token>,
    /// The folder with `models--ORG--NAME`.
    pub cache: PathBuf,
    /// Whether only the cache is asked.
    pub is_offline: bool,
    /// Proxies on the way.
    pub proxies: Proxies,
    /// A file of certificates to trust in the place of the system's.
    pub certificates: Option<PathBuf>,
    /// How long is waited, and how often tried.
    pub patience: Patience,
}

impl Settings {
    /// What the environment of this process says.
    ///
    /// # Errors
    /// A variable that can not be followed, a token that can not be read.
    pub fn from_environment() -> Result<Self, HubError> {
        Self::from_variables(&|name| std::env::var_os(name))
    }

    /// What the variables say that `variable` gives: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE,
    /// XDG_CACHE_HOME, SSL_CERT_FILE, and those of proxies. Empty ones count as not set.
    ///
    /// # Errors
    /// A variable that can not be followed, a token that can not be read.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().trim().to_owned());
        let is_offline = text("HF_HUB_OFFLINE").is_some_and(|text| is_yes(&text));
        Ok(Self {
            endpoint: text("HF_ENDPOINT")
                .unwrap_or_else(|| ENDPOINT.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            // Nothing is sent without a network: a token that can not be read does no harm then.
            token: if is_offline { None } else { token(&set)? },
            cache: cache_folder(&set)?,
            is_offline,
            proxies: Proxies::from_variables(&set)?,
            certificates: set("SSL_CERT_FILE").map(PathBuf::from),
            patience: Patience::default(),
        })
    }
}

/// The folder with `models--ORG--NAME` that the variables name.
///
/// # Errors
/// None of them is set, not even HOME.
pub fn cache_folder(set: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, HubError> {
    let named = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]
        .into_iter()
        .find_map(set);
    let folder = named.map(PathBuf::from).or_else(|| Some(home(set)?.join("hub")));
    folder.ok_or_else(|| HubError::Setting {
        name: "HF_HUB_CACHE".to_owned(),
        problem: "not set, and neither are HF_HOME, XDG_CACHE_HOME and HOME: where should models be kept?"
            .to_owned(),
    })
}

/// The folder in which the hub's programs keep what is theirs.
fn home(set: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name| set(name).map(PathBuf::from);
    let caches = || path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
    path("HF_HOME").or_else(|| Some(caches()?.join("huggingface")))
}

/// HF_TOKEN, or what stands in the file that `hf auth login` writes.
fn token(set: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Token>, HubError> {
    let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter();
    if let Some((name, value)) = named.filter_map(|name| Some((name, set(name)?))).next() {
        return Token::new(value.to_string_lossy().trim(), name).map(Some);
    }
    let named = set("HF_TOKEN_PATH").map(PathBuf::from);
    let path = named.clone().or_else(|| Some(home(set)?.join("token")));
    match path {
        Some(path) if named.is_some() || path.exists() => token_in(&path),
        _ => Ok(None),
    }
}

fn token_in(path: &Path) -> Result<Option<Token>, HubError> {
    let text = fs::read_to_string(path).map_err(HubError::io("reading the token in", path))?;
    match text.trim() {
        "" => Ok(None),
        text => Token::new(text, &path.display().to_string()).map(Some),
    }
}

fn is_yes(text: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        Settings::from_variables(&|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn cache(variables: &[(&str, &str)]) -> PathBuf {
        settings(variables).unwrap().cache
    }

    #[test]
    fn cache_is_where_the_hubs_programs_keep_it() {
        let home = ("HOME", "/h");
        assert_eq!(cache(&[home]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/x")]),
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")]),
            Path::new("/f/hub")
        );
        assert_eq!(
            cache(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]),
            Path::new("/c")
        );
        assert_eq!(
            cache(&[home, ("HF_HUB_CACHE", "")]),
            Path::new("/h/.cache/huggingface/hub")
        );
        assert!(settings(&[]).unwrap_err().to_string().contains("HF_HUB_CACHE"));
    }

    #[test]
    fn token_comes_from_the_variable_then_from_the_files_and_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (home, other) = (dir.path().to_str().unwrap(), dir.path().join("other"));
        let header =
            |variables: &[(&str, &str)]| settings(variables).unwrap().token.map(|token| token.header());
        assert_eq!(header(&[("HF_HOME", home)]), None);
        fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        fs::write(&other, "hf_other").unwrap();
        assert_eq!(header(&[("HF_HOME", home)]).unwrap(), "Bearer hf_file");
        let named = ("HF_TOKEN_PATH", other.to_str().unwrap());
        assert_eq!(header(&[("HF_HOME", home), named]).unwrap(), "Bearer hf_other");
        let all = [("HF_HOME", home), named, ("HF_TOKEN", " hf_set\n")];
        assert_eq!(header(&all).unwrap(), "Bearer hf_set");
        assert!(!format!("{:?}", settings(&all).unwrap()).contains("hf_set"));
        let error = settings(&[("HF_HOME", home), ("HF_TOKEN", "two words")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("HF_TOKEN") && !error.contains("two words"),
            "{error}"
        );
    }

    #[test]
    fn offline_has_several_spellings_and_endpoints_lose_their_slash() {
        let with = |value| {
            settings(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)])
                .unwrap()
                .is_offline
        };
        assert!(with("1") && with("TRUE") && with("yes") && !with("0") && !with("") && !with("false"));
        let settings = settings(&[("HOME", "/h"), ("HF_ENDPOINT", "http://mirror.example:8080/")]).unwrap();
        assert_eq!(settings.endpoint, "http://mirror.example:8080");
    }
}

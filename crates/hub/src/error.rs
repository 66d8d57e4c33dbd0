//! Why a model did not come, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// Why a model did not come.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that no model on the hub can have.
    #[error(
        "`{text}`: expected the name of a model on the hub, ORG/NAME, of letters, digits, `-`, `_` and `.`"
    )]
    Name {
        /// What was given.
        text: String,
    },
    /// A revision that no repository can have.
    #[error("--revision `{text}`: expected a branch, a tag or a commit")]
    Revision {
        /// What was given.
        text: String,
    },
    /// A variable of the environment that can not be followed.
    #[error("{name}: {problem}")]
    Setting {
        /// The variable, or the file.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The network was not to be used.
    #[error(
        "{name} at {revision} is not whole in the cache {}, and the network is not to be used (--offline or HF_HUB_OFFLINE): \
         run `dualgrain pull {name}` where the network may be used",
        cache.display()
    )]
    Offline {
        /// The model.
        name: String,
        /// Its revision.
        revision: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The hub knows no such repository, or does not say.
    #[error("{endpoint} has no model {name}, or it is private{}", of_private(*has_token, endpoint))]
    NoModel {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The repository has no such revision.
    #[error("{name} has no revision `{revision}`: {endpoint}/{name}/branches/all lists them")]
    NoRevision {
        /// The model.
        name: String,
        /// What was asked for.
        revision: String,
        /// The hub.
        endpoint: String,
    },
    /// The authors decide who gets it.
    #[error(
        "{name} is gated: its authors decide who gets it. Ask for access at {endpoint}/{name}{}",
        of_gated(*has_token, endpoint)
    )]
    Gated {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The server refused, and its code does not say more.
    #[error("{url} was refused (HTTP {status}{}){}", said(message), advice_for(*status))]
    Status {
        /// What was asked for.
        url: String,
        /// The code.
        status: u16,
        /// What the server said.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// A page for people in the place of data.
    #[error(
        "{url} was answered with a web page: is there a proxy, or a network that wants a login, on the way to it?"
    )]
    WebPage {
        /// What was asked for.
        url: String,
    },
    /// The connection could not be made, or broke.
    #[error("{host}: {problem}")]
    Network {
        /// The server.
        host: String,
        /// What happened.
        problem: String,
    },
    /// A server, or a proxy on the way, with which nothing will come about.
    #[error("{host}: {problem}")]
    Unreachable {
        /// The server.
        host: String,
        /// Why.
        problem: String,
    },
    /// The network went away, and trying again did not help.
    #[error("{what} did not come: {source}. What came is kept: run the same command to go on")]
    GaveUp {
        /// A file, or the list of files.
        what: String,
        /// The last trouble.
        source: Box<HubError>,
    },
    /// A server sends us where downloads do not go.
    #[error("{url} leads on to a place that is not followed: {problem}")]
    Redirection {
        /// What was asked for.
        url: String,
        /// Why not.
        problem: String,
    },
    /// The list of files is not one.
    #[error("the list of files of {name}: {problem}")]
    Listing {
        /// The model.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The repository holds no model that dualgrain reads.
    #[error("{name}: {problem}")]
    NotReadable {
        /// The model.
        name: String,
        /// What it holds, and what was expected.
        problem: String,
    },
    /// The disk is too small.
    #[error(
        "{}: the disk has {free_bytes} bytes free, {name} needs {needed_bytes} more: free some, or name a cache on another disk with HF_HUB_CACHE",
        cache.display()
    )]
    Disk {
        /// The model.
        name: String,
        /// Where it would go.
        cache: PathBuf,
        /// What there is.
        free_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// Twice another file came than the one that is listed.
    #[error(
        "{file}: {problem}, twice: what came was removed. Is something between here and {host} changing data?"
    )]
    Differs {
        /// The file.
        file: String,
        /// What was expected and what came.
        problem: String,
        /// The server.
        host: String,
    },
    /// The user ended it.
    #[error("interrupted; what came is kept: run the same command to go on")]
    Cancelled,
    /// A file or a folder of the cache.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

impl HubError {
    /// Makes an error of what the system says of a path.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what, path, source }
    }

    /// Whether the same request may be answered in a while.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Network { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

fn of_private(has_token: bool, endpoint: &str) -> String {
    match has_token {
        true => " and the token that was sent does not open it".to_owned(),
        false => format!(": {}", how_to_send_a_token(endpoint)),
    }
}

fn of_gated(has_token: bool, endpoint: &str) -> String {
    match has_token {
        true => " with the account whose token was sent".to_owned(),
        false => format!(", then {}", how_to_send_a_token(endpoint)),
    }
}

fn how_to_send_a_token(endpoint: &str) -> String {
    format!(
        "make a token at {endpoint}/settings/tokens and name it by HF_TOKEN (or log in with `hf auth login`)"
    )
}

fn said(message: &str) -> String {
    match message.is_empty() {
        true => String::new(),
        false => format!(": {message}"),
    }
}

fn advice_for(status: u16) -> &'static str {
    match status {
        401 | 403 => "; HF_TOKEN names a token that opens it",
        407 => "; the proxy wants a name and a password: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT",
        429 => "; too many requests were made: wait a while, a token (HF_TOKEN) allows more",
        _ => "",
    }
}

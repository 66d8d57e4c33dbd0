//! The hub's interface: what a repository holds, and its files.

use std::time::Duration;

use crate::checksum::Checksum;
use crate::error::HubError;
use crate::http::{Answer, Client, Url, quoted};
use crate::listing::{Listing, RemoteFile};
use crate::model_name::{ModelName, Revision};
use crate::watch::Watch;

/// The longest list of files that is read.
const MAX_LISTING_BYTES: usize = 64 << 20;
/// What is read of an answer that refuses.
const MAX_REFUSAL_BYTES: usize = 4096;

/// A hub that is asked for one model.
pub struct Hub<'a> {
    /// What asks.
    pub client: Client<'a>,
    /// Who hears of it.
    pub watch: &'a dyn Watch,
    endpoint: Url,
    name: ModelName,
    has_token: bool,
}

impl<'a> Hub<'a> {
    /// The model `name` at `endpoint`; `token` is the header of who asks.
    ///
    /// # Errors
    /// An endpoint that is no address.
    pub fn new(
        (mut client, watch): (Client<'a>, &'a dyn Watch),
        endpoint: &str,
        token: Option<&str>,
        name: &ModelName,
    ) -> Result<Self, HubError> {
        let endpoint = Url::parse(endpoint).map_err(|problem| HubError::Setting {
            name: "HF_ENDPOINT".to_owned(),
            problem: format!("`{endpoint}`: {problem}"),
        })?;
        if let Some(token) = token {
            client.trust(endpoint.clone(), token)?;
        }
        Ok(Self {
            client,
            watch,
            endpoint,
            name: name.clone(),
            has_token: token.is_some(),
        })
    }

    /// What the repository holds at a revision.
    ///
    /// # Errors
    /// It is not there, not for us, or the answer is none.
    pub fn listing(&self, revision: &Revision) -> Result<Listing, HubError> {
        let name = &self.name;
        let revision_part = quoted(revision.as_str(), '\0');
        let url = self.url(&format!("/api/models/{name}/revision/{revision_part}?blobs=true"))?;
        let mut answer = self.client.get(&url, 0)?;
        self.check(&mut answer, &url, revision)?;
        let whole = answer.whole(MAX_LISTING_BYTES)?;
        let whole = whole.ok_or_else(|| HubError::Listing {
            name: name.to_string(),
            problem: format!("it is longer than {MAX_LISTING_BYTES} bytes"),
        })?;
        Listing::parse(&whole, name)
    }

    /// Length and checksum of a file that the listing does not tell them of.
    ///
    /// # Errors
    /// It is not there, not for us, or the answer has neither.
    pub fn facts(&self, commit: &str, file: &RemoteFile) -> Result<(u64, Checksum), HubError> {
        if let Some(known) = &file.known {
            return Ok(known.clone());
        }
        let url = self.url_of(commit, &file.path)?;
        let mut answer = self.client.head(&url)?;
        if !answer.status.is_redirection() {
            self.check(&mut answer, &url, &Revision::default())?;
        }
        let found = ["x-linked-etag", "etag"]
            .into_iter()
            .find_map(|name| answer.header_on_the_way(name));
        let checksum = found.and_then(Checksum::parse);
        let length = answer
            .header_on_the_way("x-linked-size")
            .or_else(|| answer.header("content-length"));
        let length = length.and_then(|length| length.parse().ok());
        length.zip(checksum).ok_or_else(|| HubError::Listing {
            name: self.name.to_string(),
            problem: format!(
                "neither it nor the file itself tells length and checksum of {}",
                file.path
            ),
        })
    }

    /// A file of a commit, from a byte on.
    ///
    /// # Errors
    /// It is not there or not for us.
    pub fn open(&self, commit: &str, path: &str, from: u64) -> Result<Answer<'_>, HubError> {
        let url = self.url_of(commit, path)?;
        let mut answer = self.client.get(&url, from)?;
        // From its end on there is nothing of a file.
        if answer.status.as_u16() != 416 {
            self.check(&mut answer, &url, &Revision::default())?;
        }
        Ok(answer)
    }

    /// The server of the hub.
    pub fn host(&self) -> String {
        self.endpoint.authority()
    }

    fn url_of(&self, commit: &str, path: &str) -> Result<Url, HubError> {
        self.url(&format!("/{}/resolve/{commit}/{}", self.name, quoted(path, '/')))
    }

    fn url(&self, path: &str) -> Result<Url, HubError> {
        let base = self.endpoint.whole();
        let url = format!("{}{path}", base.trim_end_matches('/'));
        Url::parse(&url).map_err(|problem| HubError::Setting {
            name: "HF_ENDPOINT".to_owned(),
            problem,
        })
    }

    /// Fails, in words, where an answer is not what was asked for.
    fn check(&self, answer: &mut Answer<'_>, asked: &Url, revision: &Revision) -> Result<(), HubError> {
        let is_page = answer
            .header("content-type")
            .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"));
        let code = answer
            .header_on_the_way("x-error-code")
            .unwrap_or_default()
            .to_owned();
        let status = answer.status.as_u16();
        let endpoint = self.endpoint.shown().trim_end_matches('/').to_owned();
        let (name, has_token) = (self.name.to_string(), self.has_token);
        match (status, code.as_str()) {
            (200..=299, _) if is_page => Err(HubError::WebPage { url: asked.shown() }),
            (200..=299, _) => Ok(()),
            (401 | 403, "GatedRepo") => Err(HubError::Gated {
                name,
                endpoint,
                has_token,
            }),
            (404, "RevisionNotFound") => Err(HubError::NoRevision {
                name,
                revision: revision.to_string(),
                endpoint,
            }),
            (401 | 404, "RepoNotFound") => Err(HubError::NoModel {
                name,
                endpoint,
                has_token,
            }),
            _ => Err(refusal(answer, asked, (status, is_page))),
        }
    }
}

/// An answer that refuses, with what the server says of it.
fn refusal(answer: &mut Answer<'_>, asked: &Url, (status, is_page): (u16, bool)) -> HubError {
    let named = answer.header_on_the_way("x-error-message").map(str::to_owned);
    let retry_after = answer
        .header("retry-after")
        .and_then(|text| text.trim().parse().ok());
    let said = named.or_else(|| {
        // A page for people says nothing in a line.
        let body = answer
            .whole(MAX_REFUSAL_BYTES)
            .ok()
            .flatten()
            .filter(|_| !is_page)?;
        let object: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let error = object.as_ref().and_then(|object| object.get("error")?.as_str());
        Some(error.map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned))
    });
    let said = said.unwrap_or_default();
    let line: String = said
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    HubError::Status {
        url: asked.shown(),
        status,
        message: line,
        retry_after: retry_after.map(Duration::from_secs),
    }
}

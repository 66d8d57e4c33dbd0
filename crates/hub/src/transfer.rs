//! One file: what is there of it already, the rest from the hub, and whether it is the file that was listed.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::cache::make_folder_of;
use crate::checksum::{Checksum, Hasher};
use crate::error::HubError;
use crate::http::Answer;
use crate::hub::Hub;

/// Bytes that are read of a file at once.
const CHUNK: usize = 1 << 20;

/// A file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its path in the repository.
    pub path: String,
    /// Its length.
    pub size_bytes: u64,
    /// Its checksum.
    pub checksum: Checksum,
}

/// Hears how far a file is: the bytes of it that are there.
pub type Heard<'a> = &'a dyn Fn(u64);

/// What has come of a file.
struct Part {
    file: fs::File,
    size_bytes: u64,
    hasher: Hasher,
}

/// Brings `wanted` of a commit into the cache, whose lock of it is held. A second try is made with a file that is not the one that was listed.
///
/// # Errors
/// The network went away, the file is another one twice, the cache can not be written.
pub fn fetch(
    (hub, commit): (&Hub<'_>, &str),
    wanted: &Wanted,
    (path, blob): (&Path, &Path),
    heard: Heard<'_>,
) -> Result<(), HubError> {
    make_folder_of(path)?;
    let mut problem = fill(hub, commit, wanted, path, heard)?;
    if problem.is_some() {
        remove(path)?;
        problem = fill(hub, commit, wanted, path, heard)?;
    }
    match problem {
        None => fs::rename(path, blob).map_err(HubError::io("naming", blob)),
        Some(problem) => {
            remove(path)?;
            Err(HubError::Differs {
                file: wanted.path.clone(),
                problem,
                host: hub.host(),
            })
        }
    }
}

/// Completes the part at `path`; returns what is wrong with the whole, if something is.
fn fill(
    hub: &Hub<'_>,
    commit: &str,
    wanted: &Wanted,
    path: &Path,
    heard: Heard<'_>,
) -> Result<Option<String>, HubError> {
    let mut part = Part::open(path, wanted, || hub.client.check())?;
    heard(part.size_bytes);
    let mut tries = 0;
    while part.size_bytes < wanted.size_bytes {
        let before = part.size_bytes;
        match take(hub, commit, wanted, (&mut part, path), heard) {
            Ok(None) => {}
            Ok(problem) => return Ok(problem),
            Err(error) => {
                tries = if part.size_bytes > before { 1 } else { tries + 1 };
                retry(hub, error, tries, &wanted.path)?;
            }
        }
    }
    part.end(wanted, path)
}

/// Takes what one request brings; returns what is wrong with it, if something is.
fn take(
    hub: &Hub<'_>,
    commit: &str,
    wanted: &Wanted,
    (part, path): (&mut Part, &Path),
    heard: Heard<'_>,
) -> Result<Option<String>, HubError> {
    let mut answer = hub.open(commit, &wanted.path, part.size_bytes)?;
    if let Some(problem) = contradiction(&answer, wanted, part.size_bytes) {
        return Ok(Some(problem));
    }
    if part.size_bytes > 0 && answer.status.as_u16() != 206 {
        // The server begins at the beginning.
        part.restart(wanted, path)?;
    }
    while let Some(bytes) = answer.next()? {
        if part.size_bytes + bytes.len() as u64 > wanted.size_bytes {
            return Ok(Some(format!("expected {} bytes, got more", wanted.size_bytes)));
        }
        part.write(&bytes, path)?;
        heard(part.size_bytes);
    }
    match part.size_bytes < wanted.size_bytes {
        // Without an announced length, an end is all that tells of a connection that broke.
        true => Err(HubError::Network {
            host: answer.url.authority(),
            problem: format!(
                "it ended after {} of {} bytes",
                part.size_bytes, wanted.size_bytes
            ),
        }),
        false => Ok(None),
    }
}

/// What an answer's headers say against the file that was listed.
fn contradiction(answer: &Answer<'_>, wanted: &Wanted, from: u64) -> Option<String> {
    if answer.status.as_u16() == 416 {
        return Some(format!("it ends before byte {from}"));
    }
    let linked = answer
        .header_on_the_way("x-linked-etag")
        .and_then(Checksum::parse);
    if let Some(other) = linked.filter(|other| *other != wanted.checksum) {
        return Some(format!(
            "expected the checksum {}, the hub announced {other}",
            wanted.checksum
        ));
    }
    if let Some(encoding) = answer
        .header("content-encoding")
        .filter(|encoding| *encoding != "identity")
    {
        return Some(format!(
            "it came in the encoding {encoding}, which was not asked for"
        ));
    }
    let (name, expected) = match answer.status.as_u16() {
        206 => (
            "content-range",
            format!("bytes {from}-{}/{}", wanted.size_bytes - 1, wanted.size_bytes),
        ),
        _ => ("content-length", wanted.size_bytes.to_string()),
    };
    let other = answer.header(name).filter(|told| *told != expected);
    other.map(|told| format!("expected the {name} `{expected}`, got `{told}`"))
}

/// Waits for another try after an error; gives the error back where another try is in vain.
///
/// # Errors
/// That error, or that it was cancelled.
pub fn retry(hub: &Hub<'_>, error: HubError, tries: u32, what: &str) -> Result<(), HubError> {
    let patience = hub.client.patience;
    let asked = match &error {
        HubError::Status { retry_after, .. } => *retry_after,
        _ => None,
    };
    match error.is_passing() {
        false => Err(error),
        true if tries >= patience.tries => Err(HubError::GaveUp {
            what: what.to_owned(),
            source: Box::new(error),
        }),
        true => {
            let pause = patience.pause_after(tries, asked);
            hub.watch.say(&format!(
                "{what}: {error}; trying again in {} s",
                pause.as_secs_f64()
            ));
            hub.client.pause(pause)
        }
    }
}

impl Part {
    /// What an earlier run left of a file; its checksum is taken anew.
    fn open(
        path: &Path,
        wanted: &Wanted,
        check: impl Fn() -> Result<(), HubError>,
    ) -> Result<Self, HubError> {
        let options = fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let mut part = Self {
            file: options.map_err(HubError::io("opening", path))?,
            size_bytes: 0,
            hasher: wanted.checksum.begin(wanted.size_bytes),
        };
        let there = part
            .file
            .metadata()
            .map_err(HubError::io("looking at", path))?
            .len();
        if there > wanted.size_bytes {
            part.restart(wanted, path)?;
            return Ok(part);
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            check()?;
            let read = part
                .file
                .read(&mut chunk)
                .map_err(HubError::io("reading", path))?;
            match chunk.get(..read) {
                Some(bytes) if read > 0 => part.hasher.update(bytes),
                _ => return Ok(part),
            }
            part.size_bytes += read as u64;
        }
    }

    fn restart(&mut self, wanted: &Wanted, path: &Path) -> Result<(), HubError> {
        self.hasher = wanted.checksum.begin(wanted.size_bytes);
        self.size_bytes = 0;
        let emptied = self
            .file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(drop).map_err(HubError::io("emptying", path))
    }

    fn write(&mut self, bytes: &[u8], path: &Path) -> Result<(), HubError> {
        self.file
            .write_all(bytes)
            .map_err(HubError::io("writing", path))?;
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        Ok(())
    }

    /// What is wrong with the whole file, if something is.
    fn end(self, wanted: &Wanted, path: &Path) -> Result<Option<String>, HubError> {
        // A content that bears its checksum's name must be on the disk before the name is.
        self.file.sync_all().map_err(HubError::io("writing", path))?;
        let got = self.hasher.end();
        let problem = format!("expected the checksum {}, got {got}", wanted.checksum);
        Ok((got != wanted.checksum).then_some(problem))
    }
}

fn remove(path: &Path) -> Result<(), HubError> {
    fs::remove_file(path).map_err(HubError::io("removing", path))
}

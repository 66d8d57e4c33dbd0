//! A hub with one model, ORG/NAME, that answers as the real one does: small files itself, large ones by sending on to a second server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dualgrain_hub::{Extent, HubError, Patience, Proxies, Pulled, Revision, Settings, Token, Watch, pull};
use serde_json::json;
use sha1::Digest;

use crate::server::{Asked, Reply, Server};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Files that Git LFS would keep.
fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

pub fn git(bytes: &[u8]) -> String {
    let whole = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(&sha1::Sha1::digest(whole))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of a file's content in a cache.
pub fn checksum(path: &str, bytes: &[u8]) -> String {
    if is_large(path) { sha256(bytes) } else { git(bytes) }
}

/// Bytes that look like nothing else.
pub fn weights(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub type Files = BTreeMap<String, Vec<u8>>;

/// A model of two shards, and what is not to be downloaded.
pub fn model() -> Files {
    let index = json!({"weight_map": {
        "a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors",
    }});
    [
        ("README.md", b"words".to_vec()),
        (
            "additional_chat_templates/tool_use.jinja",
            b"{{ tools }}".to_vec(),
        ),
        ("config.json", b"{\"model_type\": \"llama\"}".to_vec()),
        ("model-00001-of-00002.safetensors", weights(100_000, 1)),
        ("model-00002-of-00002.safetensors", weights(50_000, 2)),
        ("model.safetensors.index.json", index.to_string().into_bytes()),
        ("pytorch_model.bin", weights(1000, 3)),
        ("tokenizer.json", b"{}".to_vec()),
    ]
    .map(|(path, bytes)| (path.to_owned(), bytes))
    .into()
}

/// The model in one small file of weights.
pub fn small_model(length: usize) -> Files {
    [
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", weights(length, 4)),
    ]
    .map(|(path, bytes)| (path.to_owned(), bytes))
    .into()
}

type Change = dyn Fn(&Asked, Reply) -> Reply + Send + Sync;

/// The two servers, and a cache to pull into.
pub struct Hub {
    pub front: Server,
    pub store: Server,
    pub files: Files,
    pub dir: tempfile::TempDir,
    pub settings: Settings,
}

impl Hub {
    /// A hub that answers as it should.
    pub fn start(files: Files) -> Self {
        Self::start_changed(files, |_, reply| reply)
    }

    /// A hub whose answers, on both servers, go through `change`.
    pub fn start_changed(
        files: Files,
        change: impl Fn(&Asked, Reply) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let change: Arc<Change> = Arc::new(change);
        let (kept, changed) = (files.clone(), Arc::clone(&change));
        let store = Server::start(move |asked| changed(asked, stored(&kept, asked)));
        let (kept, to) = (files.clone(), store.url());
        let front = Server::start(move |asked| change(asked, fronted(&kept, &to, asked)));
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(&front.url(), dir.path());
        Self {
            front,
            store,
            files,
            dir,
            settings,
        }
    }

    pub fn pull(&self) -> Result<Pulled, HubError> {
        self.pull_watched(&Silent, &AtomicBool::new(false))
    }

    pub fn pull_watched(&self, watch: &dyn Watch, cancel: &AtomicBool) -> Result<Pulled, HubError> {
        let name = "org/name".parse().unwrap();
        pull(
            &name,
            &Revision::default(),
            Extent::Whole,
            &self.settings,
            (watch, cancel),
        )
    }

    /// What a pull that fails says.
    pub fn refusal(&self) -> String {
        self.pull().unwrap_err().to_string()
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("models--org--name")
    }

    /// Whether the cache holds nothing that looks like a model.
    pub fn has_no_model(&self) -> bool {
        !self.folder().join("snapshots").exists() && !self.folder().join("refs").exists()
    }

    /// Asserts that the snapshot's files are the hub's.
    pub fn assert_whole(&self, pulled: &Pulled) {
        assert!(!pulled.files.is_empty());
        for (path, size_bytes) in &pulled.files {
            let bytes = std::fs::read(pulled.path.join(path)).unwrap();
            assert!(bytes == self.files[path], "{path} has other bytes");
            assert_eq!(bytes.len() as u64, *size_bytes);
        }
    }
}

/// Settings for a hub, with little patience.
pub fn settings(endpoint: &str, cache: &Path) -> Settings {
    Settings {
        endpoint: endpoint.to_owned(),
        token: Some(Token::new("hf_secret", "the test").unwrap()),
        cache: cache.to_path_buf(),
        is_offline: false,
        proxies: Proxies::default(),
        certificates: None,
        patience: Patience {
            connecting: Duration::from_secs(5),
            silence: Duration::from_secs(5),
            tries: 3,
            pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(20),
        },
    }
}

/// What the hub itself answers.
pub fn fronted(files: &Files, store: &str, asked: &Asked) -> Reply {
    if asked.target.starts_with("/api/models/org/name/revision/") {
        return Reply::new(200, listing(files).to_string())
            .with("content-type", "application/json; charset=utf-8");
    }
    let prefix = format!("/org/name/resolve/{COMMIT}/");
    let Some(path) = asked.target.strip_prefix(&prefix) else {
        return Reply::new(404, "Repository not found").with("x-error-code", "RepoNotFound");
    };
    let Some(bytes) = files.get(path) else {
        return Reply::new(404, "Entry not found").with("x-error-code", "EntryNotFound");
    };
    let etag = format!("\"{}\"", checksum(path, bytes));
    match is_large(path) {
        true => Reply::new(302, "")
            .with("location", format!("{store}/{}?signature=a%2Fb", sha256(bytes)))
            .with("x-linked-etag", etag)
            .with("x-linked-size", bytes.len()),
        false => ranged(bytes, asked)
            .with("etag", etag)
            .with("content-type", "text/plain"),
    }
}

/// What the store of large files answers.
pub fn stored(files: &Files, asked: &Asked) -> Reply {
    let wanted = asked.target.trim_start_matches('/').split('?').next().unwrap();
    match files.values().find(|bytes| sha256(bytes) == wanted) {
        Some(bytes) => ranged(bytes, asked).with("etag", "\"another-name\""),
        None => Reply::new(404, ""),
    }
}

fn ranged(bytes: &[u8], asked: &Asked) -> Reply {
    match asked.from() {
        None => Reply::new(200, bytes),
        Some(from) if from >= bytes.len() => Reply::new(416, ""),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &bytes[from..]).with("content-range", range)
        }
    }
}

/// The list of files.
pub fn listing(files: &Files) -> serde_json::Value {
    let siblings = files.iter().map(|(path, bytes)| match is_large(path) {
        true => json!({"rfilename": path, "size": bytes.len(), "blobId": git(b"pointer"),
            "lfs": {"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 130}}),
        false => json!({"rfilename": path, "size": bytes.len(), "blobId": git(bytes)}),
    });
    json!({"id": "org/name", "sha": COMMIT, "siblings": siblings.collect::<Vec<_>>()})
}

/// Nobody watches.
pub struct Silent;

impl Watch for Silent {
    fn bytes(&self, _: &str, _: u64, _: u64) {}
    fn file(&self, _: &str, _: u64, _: bool) {}
    fn say(&self, _: &str) {}
}

/// Keeps what was told.
#[derive(Default)]
pub struct Told {
    pub bytes: Mutex<Vec<(u64, u64)>>,
    pub files: Mutex<Vec<String>>,
}

impl Watch for Told {
    fn bytes(&self, _: &str, done: u64, total: u64) {
        self.bytes.lock().unwrap().push((done, total));
    }
    fn file(&self, file: &str, _: u64, _: bool) {
        self.files.lock().unwrap().push(file.to_owned());
    }
    fn say(&self, _: &str) {}
}

//! `pull`, and names of the hub in the place of folders, with a hub over loopback that has the bundled model. How downloads break and
//! what is refused is tested beside the crate (`crates/hub/tests/pull`).
#![cfg(unix)]

mod program;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use program::{stderr, stdout};
use serde_json::{Value, json};
use sha2::Digest;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NAME: &str = "some-org/llama-tiny";

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/llama-tiny")
}

/// A hub that has the bundled model as [`NAME`], and a cache of a test's own.
struct Hub {
    endpoint: String,
    cache: PathBuf,
    /// Contents stand still after their first bytes.
    stands_still: Arc<AtomicBool>,
    /// Files with weights were asked for.
    gave_weights: Arc<AtomicBool>,
}

impl Hub {
    fn start(test: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            cache: program::scratch("pull", test),
            stands_still: Arc::default(),
            gave_weights: Arc::default(),
        };
        let (still, weights) = (Arc::clone(&hub.stands_still), Arc::clone(&hub.gave_weights));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (still, weights) = (Arc::clone(&still), Arc::clone(&weights));
                std::thread::spawn(move || answer(stream, &still, &weights));
            }
        });
        hub
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dualgrain"));
        for name in [
            "HF_TOKEN",
            "HF_HUB_OFFLINE",
            "http_proxy",
            "HTTP_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("HF_ENDPOINT", &self.endpoint)
            .env("HF_HUB_CACHE", &self.cache)
            .env("HF_HOME", self.cache.join("home"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command that succeeds prints.
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(arguments)).unwrap()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The list of files, as the hub writes it.
fn listing() -> String {
    let entries = fs::read_dir(model())
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_file());
    let siblings = entries.map(|entry| {
        let (name, bytes) = (
            entry.file_name().into_string().unwrap(),
            fs::read(entry.path()).unwrap(),
        );
        let blob = [format!("blob {}\0", bytes.len()).as_bytes(), &bytes].concat();
        let mut sibling =
            json!({"rfilename": name, "size": bytes.len(), "blobId": hex(&sha1::Sha1::digest(&blob))});
        if name.ends_with(".safetensors") {
            sibling["lfs"] = json!({"sha256": hex(&sha2::Sha256::digest(&bytes)), "size": bytes.len()});
        }
        sibling
    });
    json!({"sha": COMMIT, "siblings": siblings.collect::<Vec<_>>()}).to_string()
}

fn answer(stream: TcpStream, stands_still: &AtomicBool, gave_weights: &AtomicBool) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?)
        .lines()
        .map_while(Result::ok);
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let range = headers.iter().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("range: bytes=")
            .map(str::to_owned)
    });
    let from: usize = range
        .and_then(|range| range.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    let body = match target.strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/")) {
        Some(file) => fs::read(model().join(file)).ok()?,
        None if target.starts_with(&format!("/api/models/{NAME}/revision/main")) => listing().into_bytes(),
        None => {
            return write!(
                &stream,
                "HTTP/1.1 404 Not Found\r\nx-error-code: RepoNotFound\r\n\r\n"
            )
            .ok();
        }
    };
    let is_weights = target.ends_with(".safetensors");
    gave_weights.fetch_or(is_weights, Ordering::SeqCst);
    let (rest, last) = (&body[from..], body.len() - 1);
    let status = match from {
        0 => "200 OK\r\n".to_owned(),
        _ => format!(
            "206 Part\r\ncontent-range: bytes {from}-{last}/{}\r\n",
            body.len()
        ),
    };
    write!(
        &stream,
        "HTTP/1.1 {status}content-length: {}\r\nconnection: close\r\n\r\n",
        rest.len()
    )
    .ok()?;
    let (first, rest) = rest.split_at(rest.len().min(1000));
    (&stream).write_all(first).ok()?;
    while is_weights && stands_still.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(10));
    }
    (&stream).write_all(rest).ok()
}

#[test]
fn a_pulled_model_is_found_by_its_name() {
    let hub = Hub::start("found");
    let first = hub.json(&["pull", NAME, "--json"]);
    let folder = hub
        .cache
        .join("models--some-org--llama-tiny/snapshots")
        .join(COMMIT);
    assert_eq!(first["path"], folder.to_str().unwrap());
    assert_eq!(
        (first["commit"].as_str(), first["from_cache"].as_bool()),
        (Some(COMMIT), Some(false))
    );
    let sizes = first["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["size_bytes"].as_u64().unwrap());
    assert_eq!(first["size_bytes"].as_u64(), Some(sizes.sum()));
    let weights = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
    assert!(weights(&folder) == weights(&model()));

    let again = hub.json(&["pull", NAME, "--offline", "--json"]);
    assert_eq!(
        (&again["path"], again["from_cache"].as_bool()),
        (&first["path"], Some(true))
    );
    let said = |model: &str| {
        hub.succeed(&[
            "generate",
            model,
            "The old captain",
            "--max-tokens",
            "8",
            "--device",
            "cpu",
        ])
    };
    assert_eq!(said(NAME), said(model().to_str().unwrap()));
    assert!(hub.succeed(&["inspect", NAME]).contains("llama"));
    assert_eq!(hub.json(&["cost", NAME, "--json"])["model"], NAME);
}

#[test]
fn a_file_a_line_is_told_where_no_terminal_is() {
    let hub = Hub::start("lines");
    let output = hub.run(&["pull", NAME]);
    let told = stderr(&output);
    assert!(
        told.lines()
            .any(|line| line.starts_with("model.safetensors: 13.6 MB")),
        "{told}"
    );
    assert!(stdout(&output).contains(&format!("next: dualgrain quantize {NAME}")));
    assert!(
        !stderr(&hub.run(&["pull", NAME])).contains("model.safetensors"),
        "it was there"
    );
}

#[test]
fn a_name_that_was_not_pulled_is_told_how_to_pull_it() {
    let hub = Hub::start("hint");
    for verb in [&["inspect"][..], &["serve", "--port", "0"], &["bench"], &["eval"]] {
        let output = hub.run(&[verb, &[NAME]].concat());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains(&format!("dualgrain pull {NAME}")),
            "{verb:?}: {message}"
        );
    }
    let output = hub.run(&["pull", "some-org/other"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no model some-org/other"));
    for wrong in ["../x", "/etc/passwd", "llama", "a/b/c"] {
        let output = hub.run(&["pull", wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(stderr(&output).contains("ORG/NAME"), "{wrong}");
    }
}

#[test]
fn a_model_is_quantized_from_the_hub_and_planned_without_its_weights() {
    let hub = Hub::start("quantize");
    let out = hub.cache.join("out");
    let plan = hub.json(&[
        "quantize",
        NAME,
        "--out",
        out.to_str().unwrap(),
        "--plan",
        "--json",
    ]);
    assert!(plan["peak_memory_bytes"].as_u64().is_some());
    assert!(
        !hub.gave_weights.load(Ordering::SeqCst),
        "a plan needs no weights"
    );
    let quantize = |model: &str, out: &Path| {
        hub.succeed(&[
            "quantize",
            model,
            "--out",
            out.to_str().unwrap(),
            "--method",
            "rtn",
            "--windows",
            "1",
            "--device",
            "cpu",
        ]);
        fs::read(out.join("model.safetensors")).unwrap()
    };
    assert!(quantize(NAME, &out) == quantize(model().to_str().unwrap(), &hub.cache.join("other")));
    assert!(hub.gave_weights.load(Ordering::SeqCst));
}

#[test]
fn ctrl_c_ends_with_130_and_the_next_pull_goes_on() {
    let hub = Hub::start("ctrl-c");
    hub.stands_still.store(true, Ordering::SeqCst);
    let child = hub
        .command(&["pull", NAME])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let blobs = hub.cache.join("models--some-org--llama-tiny/blobs");
    let part = loop {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the weights never began to come"
        );
        let parts = fs::read_dir(&blobs)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let mut parts = parts.filter(|path| path.extension().is_some_and(|end| end == "incomplete"));
        match parts.find(|path| {
            hub.gave_weights.load(Ordering::SeqCst) && path.metadata().is_ok_and(|part| part.len() == 1000)
        }) {
            Some(part) => break part,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(
        stderr(&output).contains("run the same command to go on"),
        "{}",
        stderr(&output)
    );
    assert!(part.is_file() && !hub.cache.join("models--some-org--llama-tiny/snapshots").exists());
    hub.stands_still.store(false, Ordering::SeqCst);
    assert_eq!(hub.json(&["pull", NAME, "--json"])["from_cache"], false);
    assert!(!part.exists());
}

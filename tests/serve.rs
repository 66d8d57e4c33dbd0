//! `serve` as a user starts and ends it. What it answers is tested beside its crate.

mod program;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use program::{dualgrain, failure, scratch, server_command, start_server, started, text};
use serde_json::Value;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/llama-tiny")
}

/// A server whose log is kept, and the object it told at its start.
fn start(more: &[&str]) -> (Child, Value) {
    start_server(more, Stdio::piped())
}

/// Connects to the address of a server's URL.
fn connect(started: &Value) -> TcpStream {
    TcpStream::connect(started["url"].as_str().unwrap().trim_start_matches("http://")).unwrap()
}

fn terminate(child: &Child) {
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
}

#[test]
fn a_server_says_where_it_is_answers_and_ends_with_0() {
    let (mut child, started) = start(&["--alias", "tiny", "--context", "256", "--max-sequences", "2"]);
    assert_eq!(
        (&started["model"], &started["context_tokens"]),
        (&"tiny".into(), &256.into())
    );
    let mut stream = connect(&started);
    let body = r#"{"model": "tiny", "prompt": "The sea", "max_tokens": 200, "stream": true, "logit_bias": {"0": -100}}"#;
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";
    stream
        .write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes())
        .unwrap();
    let mut first = [0; 300];
    stream.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200 OK"));
    // What runs may end, also when the server was told to.
    terminate(&child);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains(r#""finish_reason":"length""#) && rest.contains("data: [DONE]"),
        "{rest}"
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// What `body` is answered, to the end of the connection.
fn ask(started: &Value, headers: &str, body: &str) -> String {
    let mut stream = connect(started);
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json";
    let len = body.len();
    let request = format!("{head}\r\n{headers}Content-Length: {len}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Ends a server and gives its log.
fn log_of(mut child: Child) -> String {
    terminate(&child);
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    log
}

/// In place of the system's clock: the date jumps by ten years each time that it is read, ahead or back; what only counts on stays.
const JUMPING_CLOCK: &str = r"
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static _Atomic unsigned reads;
    long failed = syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME) now->tv_sec += (long)(reads++ % 3) * 315360000L - 315360000L;
    return (int)failed;
}
";

#[test]
fn jumps_of_the_clock_change_no_answer() {
    let folder = scratch("serve", "clock");
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    std::fs::write(&source, JUMPING_CLOCK).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o", text(&library), text(&source)])
        .status();
    assert!(built.expect("a C compiler").success());
    let limits = ["--context", "256", "--timeout", "60", "--stall", "60"];
    let (child, started) = started(
        server_command(&limits)
            .stderr(Stdio::piped())
            .env("LD_PRELOAD", &library),
    );
    let body = r#"{"prompt": "The sea", "max_tokens": 12, "temperature": 0}"#;
    let answers: Vec<Value> = (0..12)
        .map(|_| {
            let answer = ask(&started, "X-Request-Timeout: 50\r\n", body);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
        })
        .collect();
    let created: Vec<i64> = answers
        .iter()
        .map(|answer| answer["created"].as_i64().unwrap())
        .collect();
    let (first, last) = (created.iter().min().unwrap(), created.iter().max().unwrap());
    assert!(last - first > 300_000_000, "the clock did not jump: {created:?}");
    assert!(
        answers
            .iter()
            .all(|answer| answer["choices"] == answers[0]["choices"])
    );
    assert!(!log_of(child).contains("no step ends"));
}

#[test]
fn the_log_has_a_line_for_a_request_with_its_times_and_without_its_texts() {
    let (child, started) = start(&["--log-format", "json", "--context", "256"]);
    let body = r#"{"prompt": "The purple sea", "max_tokens": 7, "logit_bias": {"0": -100}}"#;
    let headers = "X-Request-Id: mine-7\r\nAuthorization: Bearer sesame\r\n";
    assert!(ask(&started, headers, body).contains("x-request-id: mine-7"));
    assert!(ask(&started, headers, r#"{"prompt": 7}"#).starts_with("HTTP/1.1 400"));
    let log = log_of(child);
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said = |message: &'static str| lines.iter().filter(move |line| line["message"] == message);
    assert!(
        said("serving").count() == 1 && said("ended").count() == 1,
        "{log}"
    );
    let requests: Vec<_> = said("request").collect();
    let [whole, refused] = requests[..] else {
        panic!("{log}")
    };
    assert_eq!(
        (&whole["id"], &whole["ended"]),
        (&"mine-7".into(), &"length".into())
    );
    assert_eq!(
        (&whole["path"], &whole["status"]),
        (&"/v1/completions".into(), &200.into())
    );
    assert_eq!(whole["generated_tokens"], 7);
    let times = ["queue_s", "first_token_s", "seconds"].map(|name| whole[name].as_f64().unwrap());
    assert!(times.is_sorted() && times[0] >= 0.0, "{times:?}");
    assert_eq!(
        (&refused["status"], &refused["ended"]),
        (&400.into(), &"refused".into())
    );
    assert!(!log.contains("purple") && !log.contains("sesame"), "{log}");
}

#[test]
fn texts_are_in_the_log_when_that_is_asked_for_and_nothing_is_when_it_is_off() {
    let body = r#"{"prompt": "The purple sea", "max_tokens": 7, "temperature": 0}"#;
    let (child, started) = start(&["--log-prompts", "--context", "256"]);
    ask(&started, "", body);
    let log = log_of(child);
    assert!(
        log.contains("The purple sea\"") && log.contains("answer=\""),
        "{log}"
    );
    let (child, started) = start(&["--log-level", "off", "--context", "256"]);
    ask(&started, "", body);
    assert_eq!(log_of(child), "");
}

#[test]
fn a_second_signal_does_not_wait_for_answers() {
    let (mut child, started) = start(&["--drain", "600", "--max-sequences", "1"]);
    let mut stream = connect(&started);
    let body =
        r#"{"prompt": "The sea", "max_tokens": 1900, "n": 16, "stream": true, "logit_bias": {"0": -100}}"#;
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";
    stream
        .write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes())
        .unwrap();
    stream.read_exact(&mut [0; 300]).unwrap();
    terminate(&child);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "the first signal waits");
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_wrong_is_told_before_the_model_is_loaded() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    // A folder whose weights can not be loaded: an error about anything else came first.
    let folder = scratch("serve", "no_weights");
    std::fs::copy(model().join("config.json"), folder.join("config.json")).unwrap();
    let keys = folder.join("keys");
    std::fs::write(&keys, "sesame\n").unwrap();
    let (dir, keys) = (text(&folder), text(&keys));
    let message = failure(&["serve", dir, "--port", &port]);
    assert!(
        message.contains(&format!("listening on 127.0.0.1:{port}")),
        "{message}"
    );
    let message = failure(&["serve", dir, "--port", "0", "--api-key-file", "/no/such/keys"]);
    assert!(message.contains("/no/such/keys"), "{message}");
    let message = failure(&[
        "serve",
        dir,
        "--port",
        "0",
        "--host",
        "0.0.0.0",
        "--api-key-file",
        keys,
    ]);
    assert!(message.contains("--insecure"), "{message}");
    let message = failure(&[
        "serve",
        dir,
        "--port",
        "0",
        "--tls-cert",
        "/no/cert",
        "--tls-key",
        keys,
    ]);
    assert!(message.contains("/no/cert: reading certificates"), "{message}");
    let message = failure(&[
        "serve",
        dir,
        "--port",
        "0",
        "--cors-origin",
        "*",
        "--api-key-file",
        keys,
    ]);
    assert!(message.contains("is not taken with keys"), "{message}");
    let message = failure(&["serve", dir, "--port", "0", "--cors-origin", "chat.example/a"]);
    assert!(message.contains("expected an origin like"), "{message}");
    let message = failure(&["serve", dir, "--port", "0", "--alias", "a\nb"]);
    assert!(message.contains("can not have control characters"), "{message}");
    let message = failure(&["serve", "/no/such/model", "--port", "0"]);
    assert!(
        message.contains("/no/such/model: no such model folder"),
        "{message}"
    );
    let message = failure(&[
        "serve",
        text(&model()),
        "--port",
        "0",
        "--context",
        "4096",
        "--device",
        "cpu",
    ]);
    assert!(message.contains("positions for 2048 tokens"), "{message}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for wrong in [
        ["--port", "70000"],
        ["--max-sequences", "0"],
        ["--drain", "soon"],
        ["--memory", "2"],
        ["--alias", ""],
        ["--allow-host", ""],
        ["--log-level", "loud"],
        ["--tls-cert", "alone.pem"],
        ["--timeout", "0"],
        ["--queue-tokens", "0"],
        ["--log-format", "xml"],
    ] {
        let output = dualgrain(&["serve", "x", wrong[0], wrong[1]]);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

//! A server of a test's own and a client that speaks to it in plain bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dualgrain::engine::SamplingDefaults;
use dualgrain::{DeviceChoice, SessionLimits};
use dualgrain_server::{Options, ServeError, Served, Stage, listen, serve};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub const ALIAS: &str = "llama-tiny";
const DEADLINE: Duration = Duration::from_secs(60);

/// A server that ends with its test.
pub struct Server {
    pub address: SocketAddr,
    stage: watch::Sender<Stage>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
    /// Its own, which ends after it.
    runtime: Option<Runtime>,
}

/// What a request was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the body came to its proper end.
    pub complete: bool,
}

pub fn model_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny")
}

impl Server {
    /// Room for four sequences of 512 tokens.
    pub fn usual() -> Self {
        Self::start(SessionLimits::new(4, 512, 128), Options::default())
    }

    /// The same for the model of a folder.
    pub fn of(folder: &Path) -> Self {
        Self::start_of(
            folder.to_owned(),
            SessionLimits::new(4, 512, 128),
            Options::default(),
        )
    }

    pub fn start(limits: SessionLimits, options: Options) -> Self {
        Self::start_of(model_folder(), limits, options)
    }

    fn start_of(folder: PathBuf, limits: SessionLimits, options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut server = Self::serve_on(&runtime, folder, limits, options);
        server.runtime = Some(runtime);
        server
    }

    /// On a runtime that the test looks into.
    #[allow(dead_code, reason = "tests of load share this file")]
    pub fn start_on(runtime: &Runtime, limits: SessionLimits, options: Options) -> Self {
        Self::serve_on(runtime, model_folder(), limits, options)
    }

    fn serve_on(runtime: &Runtime, folder: PathBuf, limits: SessionLimits, options: Options) -> Self {
        let handle = runtime.handle().clone();
        let listener = listen("127.0.0.1", 0).unwrap();
        let address = listener.local_addr().unwrap();
        let (stage, stages) = watch::channel(Stage::Serving);
        let thread = std::thread::spawn(move || {
            let load = dualgrain::Options {
                device: DeviceChoice::Cpu,
                threads: 1,
                cache: None,
            };
            let defaults = SamplingDefaults::load(&folder).unwrap();
            let served = Served::open(&folder, ALIAS.to_owned(), &load, limits)?.with_sampling(defaults)?;
            handle.block_on(serve(listener, served, options, stages))
        });
        Self {
            address,
            stage,
            thread: Some(thread),
            runtime: None,
        }
    }

    /// Tells the server how far it is to go.
    pub fn tell(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Waits for its end.
    pub fn join(&mut self) -> Result<(), ServeError> {
        self.thread.take().expect("joined once").join().unwrap()
    }

    /// Sends bytes on a connection of their own.
    pub fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    pub fn raw(&self, bytes: &[u8]) -> Reply {
        read_reply(&mut self.send(bytes))
    }

    pub fn get(&self, path: &str) -> Reply {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.raw(&request(path, "", body.to_string().as_bytes()))
    }

    /// The answer to a request that must succeed.
    #[track_caller]
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// The error that a request must get: status and message.
    #[track_caller]
    pub fn refused(&self, path: &str, body: &Value) -> (u16, String) {
        let reply = self.post(path, body);
        assert!(reply.status >= 400, "{}", reply.text());
        let error = &reply.json()["error"];
        (reply.status, error["message"].as_str().unwrap().to_owned())
    }

    /// The data of the events that a streamed answer consists of.
    #[track_caller]
    pub fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let mut body = body.clone();
        body["stream"] = true.into();
        let reply = self.post(path, &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(
            reply.complete && reply.head.contains("text/event-stream"),
            "{}",
            reply.head
        );
        reply.events()
    }

    /// The sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let values: Vec<f64> = lines
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(!values.is_empty(), "{name} in {text}");
        values.iter().sum()
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub fn wait_for(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        let begun = Instant::now();
        while !wanted(self.metric(name)) {
            assert!(begun.elapsed() < DEADLINE, "{name} is {}", self.metric(name));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until nothing runs, waits or holds a page.
    #[track_caller]
    pub fn wait_for_rest(&self) {
        self.wait_for("vllm:num_requests_running", |running| running == 0.0);
        self.wait_for("vllm:num_requests_waiting", |waiting| waiting == 0.0);
        self.wait_for("vllm:kv_cache_usage_perc", |usage| usage == 0.0);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tell(Stage::Ending);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || matches!(ended, Ok(Ok(()))));
        }
    }
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("answers are UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The data of all events but `[DONE]`, which must be the last where it is there.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        let data: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect();
        let done = data.iter().position(|data| *data == "[DONE]");
        assert!(done.is_none_or(|at| at + 1 == data.len()), "{text}");
        let events = data.iter().take(done.unwrap_or(data.len()));
        events.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A POST with a JSON body; `headers` are whole lines.
pub fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}Content-Length: {len}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Reads an answer to the end of its connection.
pub fn read_reply(stream: &mut impl Read) -> Reply {
    let mut bytes = Vec::new();
    // A connection that is reset ends the answer as well: it is not complete then.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let rest = &bytes[end + 4..];
    let (body, complete) = match head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        true => dechunk(rest),
        false => (rest.to_vec(), true),
    };
    Reply {
        status,
        head,
        body,
        complete,
    }
}

/// The bytes of chunks, and whether the last one came.
fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|window| window == b"\r\n") else {
            return (body, false);
        };
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        let data = &rest[line + 2..];
        if len == 0 {
            return (body, true);
        }
        if data.len() < len + 2 {
            body.extend_from_slice(&data[..data.len().min(len)]);
            return (body, false);
        }
        body.extend_from_slice(&data[..len]);
        rest = &data[len + 2..];
    }
}

/// A conversation of one message.
pub fn said(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

/// `base` with the fields of `more`.
pub fn with(base: &Value, more: Value) -> Value {
    let mut all = base.clone();
    let more = more.as_object().unwrap().clone();
    all.as_object_mut().unwrap().extend(more);
    all
}

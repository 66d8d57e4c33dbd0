//! Spans of requests for collectors of OpenTelemetry: OTLP over HTTP with JSON, the form that every collector takes at port 4318.
//!
//! Spans go to a task of their own by a bounded channel and are sent in batches. A collector that is slow or gone costs spans, never a request:
//! what was lost is told in the log. Nothing of a prompt or an answer is in a span.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

/// Spans that wait for their collector.
const WAITING: usize = 2048;
/// Spans of one message.
const BATCH: usize = 256;
/// How long spans of a small batch wait for others.
const COLLECT_TIME: Duration = Duration::from_secs(1);
/// How long a collector may take.
const SEND_TIME: Duration = Duration::from_secs(5);
/// Bytes of its answer that are looked at.
const ANSWER_BYTES: usize = 64;

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// Host and port.
    address: String,
    /// The path of traces.
    path: String,
    /// What the server is called there.
    service: String,
}

/// A URL that leads to no collector.
#[derive(Debug, thiserror::Error)]
#[error(
    "{url}: expected the URL of a collector like http://127.0.0.1:4318 (TLS is not spoken to collectors: let one run beside the server)"
)]
pub struct CollectorError {
    url: String,
}

/// The way to the task that sends spans.
#[derive(Debug, Clone)]
pub struct Telemetry(mpsc::Sender<Told>);

/// What that task is told.
#[derive(Debug)]
enum Told {
    Span(Box<Span>),
    /// Send what has come, and say so.
    Flush(oneshot::Sender<()>),
}

/// A request from its head to the last byte of its answer.
#[derive(Debug)]
pub struct Span {
    /// The trace and the span that it belongs to, where its client named them: the header `traceparent`.
    pub parent: Option<Parent>,
    /// Method and route.
    pub name: String,
    /// Nanoseconds of the Unix epoch.
    pub begun_ns: u128,
    /// Nanoseconds of the Unix epoch.
    pub ended_ns: u128,
    /// Whether the server failed.
    pub failed: bool,
    /// Names and values.
    pub attributes: Vec<(&'static str, Value)>,
}

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    trace: String,
    span: String,
}

impl Collector {
    /// The collector at a URL like `http://127.0.0.1:4318`; a path behind it is kept, and `/v1/traces` added.
    ///
    /// # Errors
    /// Something else than the URL of plain HTTP.
    pub fn at(url: &str, service: impl Into<String>) -> Result<Self, CollectorError> {
        let wrong = || CollectorError { url: url.to_owned() };
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, base) = rest.split_once('/').unwrap_or((rest, ""));
        let fits = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || host.contains('@') || !fits(host) || !fits(base) {
            return Err(wrong());
        }
        let base = base.trim_end_matches('/');
        let begin = if base.is_empty() { "" } else { "/" };
        // Colons inside brackets belong to an address.
        let address = match host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((_, port)) if port.parse::<u16>().is_err() => return Err(wrong()),
            Some(_) => host.to_owned(),
            None => format!("{host}:80"),
        };
        Ok(Self {
            address,
            path: format!("{begin}{base}/v1/traces"),
            service: service.into(),
        })
    }
}

impl Parent {
    /// What a header `traceparent` says (W3C Trace Context); `None` where it says nothing that counts.
    pub fn of(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, len: usize| {
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            text.len() == len && text.bytes().all(hex)
        };
        let is_named = |text: &str| text.bytes().any(|byte| byte != b'0');
        let fits = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(span, 16);
        (fits && is_named(trace) && is_named(span)).then(|| Self {
            trace: trace.to_owned(),
            span: span.to_owned(),
        })
    }
}

impl Telemetry {
    /// Begins the task that sends spans to `collector`. Called inside the runtime.
    pub fn start(collector: Collector) -> Self {
        let (sender, spans) = mpsc::channel(WAITING);
        tokio::spawn(send_all(collector, spans));
        Self(sender)
    }

    /// Gives a span on; it is lost where too many wait.
    pub fn send(&self, span: Span) {
        if self.0.try_send(Told::Span(Box::new(span))).is_err() {
            warn!("a span was lost: too many wait for the collector");
        }
    }

    /// Waits until what was given on is sent, or lost.
    pub async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        if self.0.send(Told::Flush(done)).await.is_ok() {
            // A task that is gone has nothing left to send.
            let _ = sent.await;
        }
    }
}

async fn send_all(collector: Collector, mut told: mpsc::Receiver<Told>) {
    while let Some(first) = told.recv().await {
        let (batch, flushed) = collect(first, &mut told).await;
        if !batch.is_empty() {
            send_batch(&collector, &batch).await;
        }
        if let Some(flushed) = flushed {
            // Nobody may be waiting any more.
            let _ = flushed.send(());
        }
    }
}

/// What comes within a moment goes together.
async fn collect(first: Told, told: &mut mpsc::Receiver<Told>) -> (Vec<Span>, Option<oneshot::Sender<()>>) {
    let (mut batch, deadline) = (Vec::new(), Instant::now() + COLLECT_TIME);
    let mut next = Some(first);
    loop {
        match next {
            Some(Told::Span(span)) => batch.push(*span),
            Some(Told::Flush(done)) => return (batch, Some(done)),
            None => return (batch, None),
        }
        if batch.len() == BATCH {
            return (batch, None);
        }
        next = timeout_at(deadline, told.recv()).await.ok().flatten();
    }
}

async fn send_batch(collector: &Collector, batch: &[Span]) {
    let body = message(&collector.service, batch).to_string();
    match timeout(SEND_TIME, post(collector, &body)).await {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => warn!(spans = batch.len(), problem, "spans were lost"),
        Err(_) => warn!(spans = batch.len(), "spans were lost: the collector is too slow"),
    }
}

/// Sends a message on a connection of its own; what the collector answers must be a success.
async fn post(collector: &Collector, body: &str) -> Result<(), String> {
    let told = |error: std::io::Error| format!("the collector at {}: {error}", collector.address);
    let mut stream = TcpStream::connect(&collector.address).await.map_err(told)?;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        collector.path,
        collector.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.map_err(told)?;
    stream.write_all(body.as_bytes()).await.map_err(told)?;
    let mut answer = [0; ANSWER_BYTES];
    let len = stream.read(&mut answer).await.map_err(told)?;
    let answer = String::from_utf8_lossy(&answer[..len]);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match status.starts_with('2') {
        true => Ok(()),
        false => Err(format!(
            "the collector at {} answered {status:?}",
            collector.address
        )),
    }
}

/// Spans as OTLP writes them in JSON.
fn message(service: &str, spans: &[Span]) -> Value {
    let resource = json!({"attributes": [attribute("service.name", &service.into())]});
    let scope = json!({"name": "dualgrain", "version": env!("CARGO_PKG_VERSION")});
    let spans: Vec<Value> = spans.iter().map(written).collect();
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]})
}

fn written(span: &Span) -> Value {
    /// A span of a server.
    const SERVER: u8 = 2;
    const ERROR: u8 = 2;
    let attributes: Vec<Value> = span
        .attributes
        .iter()
        .map(|(name, value)| attribute(name, value))
        .collect();
    let trace = span.parent.as_ref().map_or_else(
        || format!("{:016x}{:016x}", random(), random()),
        |parent| parent.trace.clone(),
    );
    let mut value = json!({
        "traceId": trace, "spanId": format!("{:016x}", random()), "name": span.name, "kind": SERVER,
        "startTimeUnixNano": span.begun_ns.to_string(), "endTimeUnixNano": span.ended_ns.to_string(), "attributes": attributes
    });
    if let Some(parent) = &span.parent {
        value["parentSpanId"] = parent.span.clone().into();
    }
    if span.failed {
        value["status"] = json!({"code": ERROR});
    }
    value
}

/// Whole numbers are texts in OTLP's JSON.
fn attribute(name: &str, value: &Value) -> Value {
    let value = match value {
        Value::String(text) => json!({"stringValue": text}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": number}),
        other => json!({"intValue": other.to_string()}),
    };
    json!({"key": name, "value": value})
}

/// A number that nobody else draws: every `RandomState` has keys of its own.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_collectors_are_taken_and_others_refused() {
        let at = |url: &str| Collector::at(url, "s").map(|collector| (collector.address, collector.path));
        let taken = |address: &str, path: &str| (address.to_owned(), path.to_owned());
        assert_eq!(
            at("http://127.0.0.1:4318").unwrap(),
            taken("127.0.0.1:4318", "/v1/traces")
        );
        assert_eq!(
            at("http://collector/").unwrap(),
            taken("collector:80", "/v1/traces")
        );
        assert_eq!(
            at("http://[::1]:4318/otel/").unwrap(),
            taken("[::1]:4318", "/otel/v1/traces")
        );
        assert_eq!(at("http://[::1]").unwrap(), taken("[::1]:80", "/v1/traces"));
        for wrong in [
            "",
            "127.0.0.1:4318",
            "https://collector:4318",
            "http://",
            "http:///x",
            "http://a b",
            "http://u:p@host",
            "http://host:65536",
            "http://host:",
            "http://host:otlp",
        ] {
            let error = at(wrong).unwrap_err().to_string();
            assert!(error.contains("expected the URL of a collector"), "{error}");
        }
    }

    fn span(number: usize) -> Span {
        Span {
            parent: Parent::of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
                .filter(|_| number == 0),
            name: "POST /v1/completions".into(),
            begun_ns: 5,
            ended_ns: 1_795_975_098_000_000_007,
            failed: number == 1,
            attributes: vec![
                ("count", number.into()),
                ("queue_s", 0.5.into()),
                ("ended", "stop".into()),
            ],
        }
    }

    #[tokio::test]
    async fn a_collector_gets_every_span_and_one_that_is_gone_stops_nobody() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let telemetry = Telemetry::start(Collector::at(&format!("http://{address}"), "tiny").unwrap());
        for number in 0..3 {
            telemetry.send(span(number));
        }
        let received = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            loop {
                let mut piece = [0; 4096];
                let len = stream.read(&mut piece).await.unwrap();
                bytes.extend_from_slice(&piece[..len]);
                let text = String::from_utf8_lossy(&bytes);
                if let Some((head, body)) = text.split_once("\r\n\r\n")
                    && let Ok(body) = serde_json::from_str::<Value>(body)
                {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                        .await
                        .unwrap();
                    return (head.to_owned(), body);
                }
            }
        });
        telemetry.flush().await;
        let (head, body) = received.await.unwrap();
        assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
        let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
            .as_array()
            .unwrap()
            .clone();
        assert_eq!(spans.len(), 3);
        assert_eq!(
            (&spans[0]["traceId"], &spans[0]["parentSpanId"]),
            (
                &json!("4bf92f3577b34da6a3ce929d0e0e4736"),
                &json!("00f067aa0ba902b7")
            )
        );
        assert_eq!(spans[0]["endTimeUnixNano"], "1795975098000000007");
        assert_eq!(
            (&spans[1]["status"]["code"], &spans[2]["status"]),
            (&json!(2), &Value::Null)
        );
        assert_eq!(spans[2]["traceId"].as_str().unwrap().len(), 32);
        assert_ne!(spans[1]["traceId"], spans[2]["traceId"]);
        assert_eq!(
            spans[2]["attributes"],
            json!([
                {"key": "count", "value": {"intValue": "2"}},
                {"key": "queue_s", "value": {"doubleValue": 0.5}},
                {"key": "ended", "value": {"stringValue": "stop"}}
            ])
        );
        // The collector is gone.
        telemetry.send(span(3));
        telemetry.flush().await;
    }

    #[test]
    fn only_a_whole_traceparent_counts() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let parent = Parent::of(&format!("00-{trace}-{span}-01")).unwrap();
        assert_eq!((parent.trace.as_str(), parent.span.as_str()), (trace, span));
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            format!("00-{trace}"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{zeros}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{span}1-01"),
        ] {
            assert_eq!(Parent::of(&wrong), None, "{wrong}");
        }
    }
}

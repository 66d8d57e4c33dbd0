//! What a server is told beside its model.

use std::time::Duration;

use crate::energy::Energy;
use crate::keys::Keys;
use crate::tls::Tls;

/// What a server is told beside its model.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sequences that may wait for room beside those that run; a request beyond is answered 429.
    pub queue: usize,
    /// Tokens of prompts that may wait; a request beyond is answered 429, unless nothing else waits.
    pub queue_tokens: usize,
    /// How long a request may take, from its head to the end of its answer; it may ask for less.
    pub timeout: Option<Duration>,
    /// Keys of which a request must name one; `None` lets everybody in.
    pub keys: Option<Keys>,
    /// A certificate and its key: HTTPS is spoken instead of HTTP.
    pub tls: Option<Tls>,
    /// Origins whose pages may use the server from a browser, like `https://chat.example`; `*` stands for all and is not taken with keys.
    pub cors_origins: Vec<String>,
    /// Names beside those of this machine by which requests may come where only it is listened to and there are no keys.
    pub allowed_hosts: Vec<String>,
    /// Pass over fields that no interface knows instead of refusing them.
    pub ignore_unknown: bool,
    /// How long running requests may go on after the server was told to stop.
    pub drain: Duration,
    /// How long a step may take before the server calls itself unhealthy.
    pub stall: Duration,
    /// Pieces that wait for a slow reader, for each choice of its answer; one more and the answer is cut off.
    pub buffered_pieces: usize,
    /// How long nothing may be written to a connection with an answer before it is closed.
    pub patience: Duration,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// The counter of what the model's device uses, where there is one.
    pub energy: Option<Energy>,
    /// Write prompts and answers to the log, which has neither otherwise.
    pub log_prompts: bool,
    /// Who gets a span of every request.
    #[cfg(feature = "otel")]
    pub collector: Option<crate::telemetry::Collector>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: 256,
            queue_tokens: 1 << 20,
            timeout: None,
            keys: None,
            tls: None,
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            ignore_unknown: false,
            drain: Duration::from_secs(30),
            stall: Duration::from_secs(120),
            buffered_pieces: 1024,
            patience: Duration::from_secs(60),
            body_bytes: 8 << 20,
            energy: None,
            log_prompts: false,
            #[cfg(feature = "otel")]
            collector: None,
        }
    }
}

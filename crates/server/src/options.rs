//! What a server is told beside its model.

use std::time::Duration;

use crate::keys::Keys;

/// What a server is told beside its model.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sequences that may wait for room beside those that run; a request beyond is answered 429.
    pub queue: usize,
    /// Keys of which a request must name one; `None` lets everybody in.
    pub keys: Option<Keys>,
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
    /// Write prompts and answers to the log, which has neither otherwise.
    pub log_prompts: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: 256,
            keys: None,
            allowed_hosts: Vec::new(),
            ignore_unknown: false,
            drain: Duration::from_secs(30),
            stall: Duration::from_secs(120),
            buffered_pieces: 1024,
            patience: Duration::from_secs(60),
            body_bytes: 8 << 20,
            log_prompts: false,
        }
    }
}

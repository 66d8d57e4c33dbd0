//! How long is waited for a server, and how often it is asked.

use std::time::Duration;

/// How long is waited for a server, and how often it is asked.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection.
    pub connecting: Duration,
    /// For the next bytes.
    pub silence: Duration,
    /// Tries in a row that bring nothing.
    pub tries: u32,
    /// Between the first two tries; each further pause is twice as long.
    pub pause: Duration,
    /// The longest pause, also where a server asks for a longer one.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connecting: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            tries: 6,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// The pause after `tries` tries that brought nothing; `asked` is what the server asked for.
    pub fn pause_after(&self, tries: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.pause.saturating_mul(1 << tries.saturating_sub(1).min(16));
        asked.unwrap_or(doubled).max(self.pause).min(self.longest_pause)
    }
}

//! The request that is being answered, for all that is done on its behalf.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue};

use crate::error::ApiError;
use crate::running::Account;

/// Where a client names its request, and where it is told the name.
pub const REQUEST_ID: &str = "x-request-id";
/// Where a client says how many seconds its request may take.
pub const REQUEST_TIMEOUT: &str = "x-request-timeout";
/// More is as good as no limit.
const MAX_TIMEOUT_S: f64 = 1e6;
/// The most bytes of a name that a client gives.
const MAX_ID_BYTES: usize = 128;

tokio::task_local! {
    /// Handlers of a request run inside it. It saves every interface from handing on what only the edges need: the log, the queue.
    static CALL: Arc<Call>;
}

/// What is known of a request beside its body.
#[derive(Debug)]
pub struct Call {
    /// Its name, and what the engine's thread notes of it.
    pub account: Arc<Account>,
    /// When it ends, wherever it stands.
    pub deadline: Option<Instant>,
    key: AtomicUsize,
}

impl Call {
    /// A request that names itself, or is named by `make_id`; it may take `most`, or less where it says so.
    pub fn new(headers: &HeaderMap, most: Option<Duration>, make_id: impl FnOnce() -> String) -> Self {
        let named = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let id = named.filter(|id| is_sane(id)).map_or_else(make_id, str::to_owned);
        let own = headers.get(REQUEST_TIMEOUT).and_then(timeout);
        let timeout = [own, most].into_iter().flatten().min();
        Self::nameless(id, timeout)
    }

    fn nameless(id: String, timeout: Option<Duration>) -> Self {
        Self {
            account: Arc::new(Account::new(id)),
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            key: AtomicUsize::new(0),
        }
    }

    /// Number of the key that it came with; 0 where there are none.
    pub fn key(&self) -> usize {
        self.key.load(Ordering::Relaxed)
    }

    /// It came with this key.
    pub fn set_key(&self, key: usize) {
        self.key.store(key, Ordering::Relaxed);
    }

    /// Answers it by `answer`.
    pub async fn answered_by<T>(self: Arc<Self>, answer: impl Future<Output = T>) -> T {
        CALL.scope(self, answer).await
    }

    /// The one that this task answers; a nameless one outside of any.
    pub fn current() -> Arc<Self> {
        let nameless = |_| Arc::new(Self::nameless(String::new(), None));
        CALL.try_with(Arc::clone).unwrap_or_else(nameless)
    }
}

/// Refuses a time that is no number of seconds.
pub fn check_timeout(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(REQUEST_TIMEOUT) {
        Some(value) if timeout(value).is_none() => {
            let message = format!(
                "the header `{REQUEST_TIMEOUT}`: expected a number of seconds above 0, like 30 or 0.5"
            );
            Err(ApiError::bad(message).with_code("invalid_timeout"))
        }
        _ => Ok(()),
    }
}

fn timeout(value: &HeaderValue) -> Option<Duration> {
    let seconds: f64 = value.to_str().ok()?.trim().parse().ok()?;
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(MAX_TIMEOUT_S)))
}

/// A name that can stand in a header and in a line of a log.
fn is_sane(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_names_are_taken() {
        let id = |name: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, name.parse().unwrap());
            Call::new(&headers, None, || "made".into()).account.id.clone()
        };
        for sane in ["7", "a-b_c.d:e/f+g=h@i", &"x".repeat(128)] {
            assert_eq!(id(sane), sane);
        }
        for strange in ["", " ", "a b", "a\tb", "a\"b", "{}", "\u{e9}", &"x".repeat(129)] {
            assert_eq!(id(strange), "made", "{strange:?}");
        }
        assert_eq!(
            Call::new(&HeaderMap::new(), None, || "made".into()).account.id,
            "made"
        );
    }

    #[test]
    fn a_request_may_ask_for_less_time_and_not_for_more() {
        let deadline = |value: Option<&str>, most: Option<u64>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(REQUEST_TIMEOUT, value.parse().unwrap());
            }
            let begun = Instant::now();
            let call = Call::new(&headers, most.map(Duration::from_secs), || "made".into());
            assert_eq!(
                check_timeout(&headers).is_ok(),
                value.is_none_or(|value| value.parse::<f64>().is_ok_and(|s| s > 0.0))
            );
            call.deadline
                .map(|deadline| (deadline - begun).as_secs_f64().round())
        };
        assert_eq!(deadline(None, None), None);
        assert_eq!(deadline(None, Some(9)), Some(9.0));
        assert_eq!(deadline(Some("3.0"), Some(9)), Some(3.0));
        assert_eq!(deadline(Some("30"), Some(9)), Some(9.0));
        assert_eq!(deadline(Some("1e300"), None), Some(1e6));
        for wrong in ["soon", "0", "-1", "NaN", "", "1s"] {
            assert_eq!(deadline(Some(wrong), Some(9)), Some(9.0), "{wrong}");
        }
    }
}

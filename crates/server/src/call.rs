//! The request that is being answered, for all that is done on its behalf.

use std::future::Future;
use std::sync::Arc;

use axum::http::HeaderMap;

use crate::running::Account;

/// Where a client names its request, and where it is told the name.
pub const REQUEST_ID: &str = "x-request-id";
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
}

impl Call {
    /// A request that names itself, or is named by `make_id`.
    pub fn new(headers: &HeaderMap, make_id: impl FnOnce() -> String) -> Self {
        let named = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let id = named.filter(|id| is_sane(id)).map_or_else(make_id, str::to_owned);
        Self {
            account: Arc::new(Account::new(id)),
        }
    }

    /// Answers it by `answer`.
    pub async fn answered_by<T>(self: Arc<Self>, answer: impl Future<Output = T>) -> T {
        CALL.scope(self, answer).await
    }

    /// The one that this task answers; a nameless one outside of any.
    pub fn current() -> Arc<Self> {
        let nameless = |_| {
            Arc::new(Self {
                account: Arc::new(Account::new(String::new())),
            })
        };
        CALL.try_with(Arc::clone).unwrap_or_else(nameless)
    }
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
            Call::new(&headers, || "made".into()).account.id.clone()
        };
        for sane in ["7", "a-b_c.d:e/f+g=h@i", &"x".repeat(128)] {
            assert_eq!(id(sane), sane);
        }
        for strange in ["", " ", "a b", "a\tb", "a\"b", "{}", "\u{e9}", &"x".repeat(129)] {
            assert_eq!(id(strange), "made", "{strange:?}");
        }
        assert_eq!(Call::new(&HeaderMap::new(), || "made".into()).account.id, "made");
    }
}

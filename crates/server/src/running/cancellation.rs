//! Answers under way, by the names that clients know them by, so that one request can end another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether a job is to end. The engine's thread looks before every step.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

/// Every answer under way.
#[derive(Debug, Default)]
pub struct Cancellations(Mutex<BTreeMap<String, Entry>>);

#[derive(Debug)]
struct Entry {
    request: String,
    key: usize,
    cancelled: Cancelled,
}

/// An answer that can be cancelled until this is dropped.
#[derive(Debug)]
pub struct Cancellable {
    all: Arc<Cancellations>,
    answer: String,
    /// Whether it was.
    pub cancelled: Cancelled,
}

impl Cancelled {
    /// Whether it is.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Cancellations {
    /// The answer of this name to the request of that name, which came with this key.
    pub fn begin(self: &Arc<Self>, answer: &str, request: &str, key: usize) -> Cancellable {
        let cancelled = Cancelled::default();
        let entry = Entry {
            request: request.to_owned(),
            key,
            cancelled: cancelled.clone(),
        };
        self.entries().insert(answer.to_owned(), entry);
        Cancellable {
            all: Arc::clone(self),
            answer: answer.to_owned(),
            cancelled,
        }
    }

    /// Ends the answers of this name, or to requests of this name, that came with the same key. Whether there is one.
    pub fn cancel(&self, name: &str, key: usize) -> bool {
        let entries = self.entries();
        let named = entries
            .iter()
            .filter(|(answer, entry)| entry.key == key && (*answer == name || entry.request == name));
        let set = named.map(|(_, entry)| entry.cancelled.0.store(true, Ordering::Release));
        set.count() > 0
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // The map is whole after every change, also where a thread panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.all.entries().remove(&self.answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_by_either_name_with_its_key_while_it_lasts() {
        let all = Arc::new(Cancellations::default());
        let first = all.begin("a1", "mine", 1);
        let second = all.begin("a2", "mine", 1);
        let others = all.begin("a3", "mine", 2);
        assert!(!all.cancel("a4", 1) && !all.cancel("a1", 2) && !first.cancelled.is_set());
        assert!(all.cancel("a1", 1) && first.cancelled.is_set() && !second.cancelled.is_set());
        assert!(all.cancel("mine", 1) && second.cancelled.is_set() && !others.cancelled.is_set());
        drop((first, second));
        assert!(!all.cancel("mine", 1) && all.cancel("a3", 2));
    }
}

//! What the engine's thread notes of a request, for its line in the log and for its bill.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The notes of one request. They are read when its answer has ended.
#[derive(Debug)]
pub struct Account {
    /// The name of the request, in the log and in its answer.
    pub id: String,
    notes: Mutex<Notes>,
}

/// What was noted; times count from the submission of the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes {
    /// When it was given to the engine's thread.
    pub submitted: Option<Instant>,
    /// Until the first of its sequences began to run.
    pub queue_s: Option<f64>,
    /// Until its first token.
    pub first_token_s: Option<f64>,
    /// Tokens of its prompts.
    pub prompt_tokens: usize,
    /// Those that were in the cache.
    pub cached_tokens: usize,
    /// Tokens generated for it.
    pub generated_tokens: usize,
    /// Joules of its sequences that came to their end, where they are measured.
    pub energy_j: Option<f64>,
    /// Why it ended.
    pub ended: Option<&'static str>,
}

impl Account {
    /// Nothing noted yet of the request `id`.
    pub fn new(id: String) -> Self {
        Self {
            id,
            notes: Mutex::default(),
        }
    }

    /// What has been noted.
    pub fn notes(&self) -> Notes {
        self.note(|notes| *notes)
    }

    /// It was given to the engine's thread.
    pub fn submit(&self, prompt_tokens: usize) {
        self.note(|notes| {
            notes.submitted = Some(Instant::now());
            notes.prompt_tokens = prompt_tokens;
        });
    }

    /// A sequence began to run, in a step that began at `step`. Choices that share the prompt of another one find it in the cache: they say nothing of the request.
    pub fn begin(&self, step: Instant, cached_tokens: usize, leads: bool) {
        self.note(|notes| {
            let waited = notes.waited_s(step);
            notes.queue_s = notes.queue_s.or(waited);
            notes.cached_tokens += if leads { cached_tokens } else { 0 };
        });
    }

    /// A token was generated.
    pub fn token(&self) {
        self.note(|notes| {
            notes.generated_tokens += 1;
            if notes.first_token_s.is_none() {
                notes.first_token_s = notes.waited_s(Instant::now());
            }
        });
    }

    /// A sequence that came to its end took so many joules.
    pub fn spend(&self, energy_j: f64) {
        self.note(|notes| notes.energy_j = Some(notes.energy_j.unwrap_or(0.0) + energy_j));
    }

    /// A sequence or the whole request ended. The first reason that cuts answers off is the one to tell of.
    pub fn end(&self, why: &'static str) {
        self.note(|notes| notes.ended = notes.ended.filter(|known| *known != "stop").or(Some(why)));
    }

    fn note<T>(&self, change: impl FnOnce(&mut Notes) -> T) -> T {
        // Notes are whole after every change, also where a thread panicked.
        change(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Notes {
    fn waited_s(&self, now: Instant) -> Option<f64> {
        let waited = |submitted| now.saturating_duration_since(submitted).as_secs_f64();
        self.submitted.map(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_of_the_first_begin_the_first_token_and_the_worst_end() {
        let account = Account::new("a".into());
        account.token();
        assert_eq!(account.notes().first_token_s, None, "not submitted");
        account.submit(7);
        account.begin(Instant::now(), 4, true);
        account.begin(Instant::now(), 6, false);
        account.token();
        let first = account.notes();
        account.token();
        account.end("stop");
        account.end("length");
        account.end("stop");
        let notes = account.notes();
        assert_eq!(
            (notes.prompt_tokens, notes.cached_tokens, notes.generated_tokens),
            (7, 4, 3)
        );
        assert_eq!(
            (first.queue_s, first.first_token_s),
            (notes.queue_s, notes.first_token_s)
        );
        assert!(notes.queue_s <= notes.first_token_s && notes.ended == Some("length"));
    }
}

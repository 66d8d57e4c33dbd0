//! How much may wait, how fast it leaves, and so when to come again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Departures that a rate is taken from.
const REMEMBERED: usize = 64;
/// What clients are told at least and at most, in seconds.
const LEAST_S: f64 = 1.0;
const MOST_S: f64 = 600.0;

/// Tokens of prompts that wait, of which there is a most.
#[derive(Debug)]
pub struct TokenQueue {
    most: usize,
    held: AtomicUsize,
}

/// Tokens of prompts that wait; given back when dropped.
#[derive(Debug)]
pub struct HeldTokens {
    queue: Arc<TokenQueue>,
    num_tokens: usize,
}

/// How fast places or tokens of the queue become free.
#[derive(Debug, Default)]
pub struct Rate(Mutex<VecDeque<(Instant, usize)>>);

/// What waits, and how fast the queue empties.
#[derive(Debug)]
pub struct Flow {
    /// Tokens of prompts that wait.
    pub waiting: Arc<TokenQueue>,
    /// Sequences that end.
    pub places: Rate,
    /// Tokens of prompts that are let in.
    pub tokens: Rate,
}

impl Flow {
    /// Nothing waits, of at most so many tokens.
    pub fn new(most_tokens: usize) -> Self {
        Self {
            waiting: Arc::new(TokenQueue::new(most_tokens)),
            places: Rate::default(),
            tokens: Rate::default(),
        }
    }
}

impl TokenQueue {
    /// Takes `most` tokens.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            held: AtomicUsize::new(0),
        }
    }

    /// Takes a request's tokens; a request that alone is too long may wait where no other does.
    ///
    /// # Errors
    /// They do not fit: how many would have to leave first.
    pub fn take(self: &Arc<Self>, num_tokens: usize) -> Result<HeldTokens, usize> {
        let fits = |held: usize| {
            let wanted = held.saturating_add(num_tokens);
            (held == 0 || wanted <= self.most).then_some(wanted)
        };
        match self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok(HeldTokens {
                queue: Arc::clone(self),
                num_tokens,
            }),
            Err(held) => Err(held.saturating_add(num_tokens).saturating_sub(self.most)),
        }
    }

    /// How many wait.
    pub fn num_held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }
}

impl HeldTokens {
    /// So many of them, on their own.
    pub fn split(&mut self, num_tokens: usize) -> Self {
        let num_tokens = num_tokens.min(self.num_tokens);
        self.num_tokens -= num_tokens;
        Self {
            queue: Arc::clone(&self.queue),
            num_tokens,
        }
    }
}

impl Drop for HeldTokens {
    fn drop(&mut self) {
        self.queue.held.fetch_sub(self.num_tokens, Ordering::AcqRel);
    }
}

impl Rate {
    /// So much left now.
    pub fn count(&self, amount: usize) {
        self.count_at(amount, Instant::now());
    }

    /// Seconds until so much more has left, whole ones for a `Retry-After`; the least where nothing has been measured.
    pub fn retry_after_s(&self, amount: usize) -> u64 {
        self.retry_after_s_at(amount, Instant::now())
    }

    fn count_at(&self, amount: usize, now: Instant) {
        let mut departures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        departures.push_back((now, amount));
        if departures.len() > REMEMBERED {
            departures.pop_front();
        }
    }

    fn retry_after_s_at(&self, amount: usize, now: Instant) -> u64 {
        let departures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((first, _)) = departures.front() else {
            return LEAST_S as u64;
        };
        // What left at the first moment was served before it.
        let left: usize = departures.iter().skip(1).map(|(_, amount)| amount).sum();
        let took_s = now.saturating_duration_since(*first).as_secs_f64();
        let wait_s = amount as f64 * took_s / left.max(1) as f64;
        wait_s.ceil().clamp(LEAST_S, MOST_S) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn tokens_fit_until_there_are_too_many_and_come_back() {
        let queue = Arc::new(TokenQueue::new(100));
        let long = queue.take(500).unwrap();
        assert_eq!(queue.take(1).unwrap_err(), 401);
        drop(long);
        let mut first = queue.take(60).unwrap();
        assert_eq!(queue.take(50).unwrap_err(), 10);
        let second = queue.take(40).unwrap();
        let part = first.split(20);
        drop(first);
        assert_eq!(queue.num_held(), 60);
        drop((part, second));
        assert_eq!(queue.num_held(), 0);
    }

    #[test]
    fn who_comes_again_is_told_when_at_the_rate_of_late() {
        let (rate, began) = (Rate::default(), Instant::now());
        assert_eq!(rate.retry_after_s_at(1000, began), 1);
        for second in 0..200 {
            rate.count_at(5, began + Duration::from_secs(second));
        }
        let now = began + Duration::from_secs(199);
        assert_eq!(rate.retry_after_s_at(50, now), 10);
        assert_eq!(rate.retry_after_s_at(1, now), 1);
        assert_eq!(rate.retry_after_s_at(1_000_000, now), 600);
        // Nothing has left for a while: it takes longer.
        let later = now + Duration::from_secs(63);
        assert_eq!(rate.retry_after_s_at(50, later), 20);
    }
}

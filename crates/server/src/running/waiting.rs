//! Sequences that wait for a slot of the engine, and who is next.
//!
//! Those of each API key stand in a line of their own: smaller priorities first, then in the order they came. The lines take turns: the one
//! whose key was given the fewest tokens of late is next. So a key that floods the server waits for itself, and no priority passes
//! another key's requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dualgrain::Request;

use super::flow::HeldTokens;

/// After so long a token that was given counts half.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// Half-lives after which the counts are brought back to small numbers.
const MAX_HALF_LIVES: f64 = 64.0;

/// The lines.
#[derive(Debug)]
pub struct Waiting {
    lines: BTreeMap<usize, Line>,
    len: usize,
    /// When the counts were last brought back to small numbers.
    began: Instant,
    /// What a token counts now: twice as much in every half-life, so that those before count less beside it.
    weight: f64,
}

/// The line of a key.
#[derive(Debug, Default)]
struct Line {
    served: f64,
    entries: BTreeMap<Standing, Entry>,
}

/// Where a sequence stands in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    priority: i64,
    job: u64,
    choice: usize,
}

/// In which line a job stands, and how far in front.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rank {
    /// Number of its key.
    pub key: usize,
    /// Smaller is earlier.
    pub priority: i64,
}

/// A sequence that waits.
#[derive(Debug)]
pub struct Entry {
    /// What it asks for.
    pub request: Request,
    /// Whether its prompt differs from that of the choice before.
    pub leads: bool,
    /// Its prompt's share of what may wait, given back when it is let in.
    #[expect(dead_code, reason = "held to be dropped with the entry")]
    pub tokens: Option<HeldTokens>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            len: 0,
            began: Instant::now(),
            weight: 1.0,
        }
    }
}

impl Waiting {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A choice of a job joins its line.
    pub fn push(&mut self, rank: Rank, (job, choice): (u64, usize), entry: Entry) {
        let standing = Standing {
            priority: rank.priority,
            job,
            choice,
        };
        let line = self.lines.entry(rank.key).or_default();
        self.len += usize::from(line.entries.insert(standing, entry).is_none());
    }

    /// Whose turn it is: job, choice and what it asks for.
    pub fn pop(&mut self) -> Option<(u64, usize, Entry)> {
        let lines = self.lines.values_mut().filter(|line| !line.entries.is_empty());
        let next = lines.min_by(|a, b| {
            let first_job = |line: &Line| line.entries.first_key_value().map(|(standing, _)| standing.job);
            a.served
                .total_cmp(&b.served)
                .then_with(|| first_job(a).cmp(&first_job(b)))
        })?;
        let (standing, entry) = next.entries.pop_first()?;
        self.len -= 1;
        Some((standing.job, standing.choice, entry))
    }

    /// A job leaves.
    pub fn remove(&mut self, rank: Rank, job: u64) {
        let Some(line) = self.lines.get_mut(&rank.key) else {
            return;
        };
        let of_job = |choice| Standing {
            priority: rank.priority,
            job,
            choice,
        };
        let leaving = line.entries.range(of_job(0)..=of_job(usize::MAX));
        let leaving: Vec<Standing> = leaving.map(|(standing, _)| *standing).collect();
        self.len -= leaving.len();
        for standing in leaving {
            line.entries.remove(&standing);
        }
    }

    /// Tokens were run or generated for a key.
    pub fn serve(&mut self, key: usize, num_tokens: usize) {
        self.lines.entry(key).or_default().served += num_tokens as f64 * self.weight;
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began).as_secs_f64();
        let half_lives = passed / HALF_LIFE.as_secs_f64();
        self.weight = half_lives.exp2();
        if half_lives > MAX_HALF_LIVES {
            self.lines
                .values_mut()
                .for_each(|line| line.served /= self.weight);
            (self.began, self.weight) = (now, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            request: Request::default(),
            leads: true,
            tokens: None,
        }
    }

    fn rank(key: usize, priority: i64) -> Rank {
        Rank { key, priority }
    }

    fn order(waiting: &mut Waiting) -> Vec<u64> {
        std::iter::from_fn(|| waiting.pop().map(|(job, ..)| job)).collect()
    }

    #[test]
    fn smaller_priorities_come_first_and_equals_in_order() {
        let mut waiting = Waiting::default();
        for (job, priority) in [(0, 0), (1, 5), (2, -3), (3, 0), (4, -3)] {
            waiting.push(rank(0, priority), (job, 0), entry());
        }
        assert_eq!(waiting.len(), 5);
        assert_eq!(order(&mut waiting), [2, 4, 0, 3, 1]);
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn keys_take_turns_by_what_they_were_given_whatever_their_priorities() {
        let mut waiting = Waiting::default();
        for job in 0..4 {
            waiting.push(rank(0, -100), (job, 0), entry());
        }
        waiting.push(rank(1, 0), (4, 0), entry());
        waiting.push(rank(1, 0), (5, 0), entry());
        let mut served = Vec::new();
        while let Some((job, ..)) = waiting.pop() {
            waiting.serve(usize::from(job >= 4), 100);
            served.push(job);
        }
        assert_eq!(served, [0, 4, 1, 5, 2, 3]);
    }

    #[test]
    fn what_was_given_long_ago_counts_little() {
        let mut waiting = Waiting::default();
        let began = waiting.began;
        waiting.serve(0, 1000);
        for minutes in [0, 4, 100] {
            waiting.tick(began + minutes * HALF_LIFE);
            if minutes == 4 {
                // A sixteenth of the thousand is left.
                waiting.serve(1, 63);
            }
            waiting.push(rank(0, 0), (0, 0), entry());
            waiting.push(rank(1, 0), (1, 0), entry());
            let expected = if minutes == 0 { [1, 0] } else { [0, 1] };
            assert_eq!(order(&mut waiting), expected, "{minutes}");
        }
        assert!(waiting.weight == 1.0 && waiting.lines.values().all(|line| line.served < 1.0));
    }

    #[test]
    fn a_job_leaves_with_all_its_choices_and_nobody_else() {
        let mut waiting = Waiting::default();
        for (job, choice) in [(1, 0), (2, 0), (2, 1), (2, 7), (3, 0)] {
            waiting.push(rank(4, 1), (job, choice), entry());
        }
        waiting.remove(rank(4, 1), 2);
        waiting.remove(rank(9, 1), 1);
        assert_eq!(waiting.len(), 2);
        assert_eq!(order(&mut waiting), [1, 3]);
    }
}

//! What was measured of one load.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::table::table;
use crate::cli::units::duration;
use crate::measure::traffic::answer::{Answer, Outcome};
use crate::measure::traffic::arrivals::Arrival;

/// Percentiles of times, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50_s: f64,
    /// Nine in ten are at most so long.
    pub p90_s: f64,
    /// 99 in 100 are at most so long.
    pub p99_s: f64,
}

/// What counts as a good answer.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// Seconds to the first token, at most.
    pub first_s: Option<f64>,
    /// Seconds between tokens on average, at most.
    pub gap_s: Option<f64>,
}

/// What was measured of one load.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Requests at once, where the next was sent when one had ended.
    pub at_once: Option<usize>,
    /// Requests a second, where they came at random moments.
    pub arrivals_per_s: Option<f64>,
    /// Requests sent.
    pub requests: usize,
    /// Of them answered whole.
    pub complete: usize,
    /// Of them refused for lack of room (429).
    pub refused: usize,
    /// Of them failed otherwise.
    pub failed: usize,
    /// Seconds from the first request to the last end.
    pub time_s: f64,
    /// Tokens of the prompts that were answered whole.
    pub prompt_tokens: usize,
    /// Of them in the server's cache.
    pub cached_tokens: usize,
    /// Tokens of whole answers.
    pub output_tokens: usize,
    /// These a second.
    pub output_tokens_per_s: f64,
    /// Whole answers a second.
    pub requests_per_s: f64,
    /// Whole answers a second that met the goal, where there is one.
    pub good_per_s: Option<f64>,
    /// To the first text.
    pub first: Option<Percentiles>,
    /// From an event with text to the next, of all answers together.
    pub between: Option<Percentiles>,
    /// To the end.
    pub total: Option<Percentiles>,
    /// Energy of the whole answers, where the server tells it.
    pub energy_j: Option<f64>,
}

/// Columns of a CSV file.
pub const COLUMNS: &str = "at_once,arrivals_per_s,requests,complete,refused,failed,time_s,prompt_tokens,cached_tokens,\
                           output_tokens,output_tokens_per_s,requests_per_s,good_per_s,ttft_p50_s,ttft_p90_s,ttft_p99_s,\
                           inter_token_p50_s,inter_token_p90_s,inter_token_p99_s,total_p50_s,total_p90_s,total_p99_s,energy_j";

impl Percentiles {
    /// Of times in any order; `None` of none.
    pub fn of(mut times_s: Vec<f64>) -> Option<Self> {
        times_s.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * times_s.len() as f64).ceil() as usize;
            times_s.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            p50_s: rank(0.5)?,
            p90_s: rank(0.9)?,
            p99_s: rank(0.99)?,
        })
    }
}

impl Goal {
    fn is_met_by(&self, answer: &Answer) -> bool {
        let within = |time_s: Option<f64>, most_s: Option<f64>| match (time_s, most_s) {
            (Some(time_s), Some(most_s)) => time_s <= most_s,
            // An answer of one token has no time between tokens.
            _ => true,
        };
        within(answer.first_s, self.first_s) && within(answer.mean_gap_s(), self.gap_s)
    }
}

impl Row {
    /// What the answers say. `energy_j`: what a counter of the server's says of all of them, where they do not say it themselves.
    pub fn new(arrival: Arrival, answers: &[Answer], goal: Goal, energy_j: Option<f64>) -> Self {
        let whole = |answer: &&Answer| matches!(answer.outcome, Outcome::Complete);
        let whole: Vec<&Answer> = answers.iter().filter(whole).collect();
        let refused = |answer: &&Answer| matches!(answer.outcome, Outcome::Refused);
        let refused = answers.iter().filter(refused).count();
        let time_s = time_s(answers);
        let sum = |part: fn(&Answer) -> usize| whole.iter().map(|answer| part(answer)).sum::<usize>();
        let output_tokens = sum(|answer| answer.usage.completion_tokens);
        let good = whole.iter().filter(|answer| goal.is_met_by(answer)).count();
        let has_goal = goal.first_s.is_some() || goal.gap_s.is_some();
        let told_j: Option<f64> = whole.iter().map(|answer| answer.usage.energy_j).sum();
        let (at_once, arrivals_per_s) = match arrival {
            Arrival::AtOnce(count) => (Some(count), None),
            Arrival::PerSecond(rate) => (None, Some(rate)),
        };
        Self {
            at_once,
            arrivals_per_s,
            requests: answers.len(),
            complete: whole.len(),
            refused,
            failed: answers.len() - whole.len() - refused,
            time_s,
            prompt_tokens: sum(|answer| answer.usage.prompt_tokens),
            cached_tokens: sum(|answer| answer.usage.cached_tokens()),
            output_tokens,
            output_tokens_per_s: output_tokens as f64 / time_s,
            requests_per_s: whole.len() as f64 / time_s,
            good_per_s: has_goal.then(|| good as f64 / time_s),
            first: Percentiles::of(whole.iter().filter_map(|answer| answer.first_s).collect()),
            between: Percentiles::of(whole.iter().flat_map(|answer| &answer.gaps_s).copied().collect()),
            total: Percentiles::of(whole.iter().map(|answer| answer.total_s).collect()),
            energy_j: told_j.filter(|_| !whole.is_empty()).or(energy_j),
        }
    }

    /// For a person.
    pub fn text(&self) -> String {
        let load = match (self.at_once, self.arrivals_per_s) {
            (Some(count), _) => Arrival::AtOnce(count).text(),
            (None, rate) => Arrival::PerSecond(rate.unwrap_or(0.0)).text(),
        };
        let mut text = format!(
            "{load}: {} of {} requests answered in {}, {} refused for lack of room, {} failed\n",
            self.complete,
            self.requests,
            duration(self.time_s),
            self.refused,
            self.failed
        );
        let mean = |tokens: usize| tokens as f64 / self.complete.max(1) as f64;
        let _ = writeln!(
            text,
            "{:.1} output tokens/s, {:.2} requests/s; on average {:.1} prompt tokens ({:.1} cached) and {:.1} output tokens",
            self.output_tokens_per_s,
            self.requests_per_s,
            mean(self.prompt_tokens),
            mean(self.cached_tokens),
            mean(self.output_tokens)
        );
        if let Some(good) = self.good_per_s {
            let _ = writeln!(text, "{good:.2} requests/s met the goal");
        }
        if let Some(energy_j) = self.energy_j {
            let per_token = energy_j / self.output_tokens.max(1) as f64;
            let _ = writeln!(text, "{energy_j:.1} J, {per_token:.4} J an output token");
        }
        text + &self.times()
    }

    fn times(&self) -> String {
        let line = |what: &str, times: Option<Percentiles>| {
            let times = times?;
            let cells =
                [times.p50_s, times.p90_s, times.p99_s].map(|time_s| format!("{:.2} ms", 1e3 * time_s));
            Some([vec![what.to_owned()], cells.to_vec()].concat())
        };
        let lines = [
            line("to the first token", self.first),
            line("between tokens", self.between),
            line("to the end", self.total),
        ];
        table(
            &["time", "p50", "p90", "p99"],
            &lines.into_iter().flatten().collect::<Vec<_>>(),
        )
    }

    /// As a line of a CSV file, by [`COLUMNS`].
    pub fn csv(&self) -> String {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6}"));
        let mut cells = vec![
            self.at_once.map_or(String::new(), |count| count.to_string()),
            self.arrivals_per_s.map_or(String::new(), |rate| rate.to_string()),
        ];
        let counts = [self.requests, self.complete, self.refused, self.failed];
        cells.extend(counts.map(|count| count.to_string()));
        cells.push(number(Some(self.time_s)));
        let tokens = [self.prompt_tokens, self.cached_tokens, self.output_tokens];
        cells.extend(tokens.map(|count| count.to_string()));
        cells.extend(
            [
                Some(self.output_tokens_per_s),
                Some(self.requests_per_s),
                self.good_per_s,
            ]
            .map(number),
        );
        for times in [self.first, self.between, self.total] {
            let percentiles = [
                times.map(|times| times.p50_s),
                times.map(|times| times.p90_s),
                times.map(|times| times.p99_s),
            ];
            cells.extend(percentiles.map(number));
        }
        cells.push(number(self.energy_j));
        cells.join(",") + "\n"
    }
}

fn time_s(answers: &[Answer]) -> f64 {
    let begun = answers.iter().map(|answer| answer.begun).min();
    let ended = answers.iter().map(|answer| answer.ended).max();
    match (begun, ended) {
        (Some(begun), Some(ended)) => (ended - begun).as_secs_f64(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::{Duration, Instant};

    use super::*;
    use crate::measure::traffic::events::Usage;

    fn answer(first_ms: u64, gaps: usize, outcome: Outcome) -> Answer {
        let begun = Instant::now();
        let total = Duration::from_millis(first_ms + 10 * gaps as u64);
        Answer {
            outcome,
            first_s: Some(first_ms as f64 / 1e3),
            gaps_s: vec![0.01; gaps],
            total_s: total.as_secs_f64(),
            usage: serde_json::from_value::<Usage>(json!({
                "completion_tokens": gaps + 1, "prompt_tokens": 5, "energy_joules": 2.0
            }))
            .unwrap(),
            begun,
            ended: begun + total,
        }
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = Percentiles::of((1..=200).rev().map(f64::from).collect()).unwrap();
        assert_eq!((times.p50_s, times.p90_s, times.p99_s), (100.0, 180.0, 198.0));
        assert!(Percentiles::of(Vec::new()).is_none());
        assert_eq!(Percentiles::of(vec![3.0]).unwrap().p99_s, 3.0);
    }

    #[test]
    fn only_whole_answers_count_and_good_ones_meet_the_goal() {
        let answers = [
            answer(100, 9, Outcome::Complete),
            answer(900, 9, Outcome::Complete),
            answer(1, 0, Outcome::Refused),
            answer(1, 5, Outcome::Failed(None, "broken".into())),
        ];
        let goal = Goal {
            first_s: Some(0.5),
            gap_s: Some(0.02),
        };
        let row = Row::new(Arrival::AtOnce(2), &answers, goal, Some(99.0));
        assert_eq!((row.complete, row.refused, row.failed), (2, 1, 1));
        assert_eq!(
            (row.output_tokens, row.prompt_tokens, row.energy_j),
            (20, 10, Some(4.0))
        );
        let good = row.good_per_s.unwrap() * row.time_s;
        assert!((good - 1.0).abs() < 1e-9, "{good}");
        assert_eq!(
            row.csv().trim_end().split(',').count(),
            COLUMNS.split(',').count()
        );
        assert!(row.text().contains("2 of 4 requests"), "{}", row.text());
    }
}

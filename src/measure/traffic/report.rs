//! What `bench serve` gives back: text, one JSON object, or CSV.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cli::arguments::BenchServe;
use crate::measure::machine;
use crate::measure::revision::REVISION;
use crate::measure::traffic::questions::Questions;
use crate::measure::traffic::row::{COLUMNS, Row};
use crate::measure::traffic::target::Target;

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    /// Version of the program that asked.
    pub version: &'static str,
    /// Sources it was built from.
    pub revision: &'static str,
    /// The processor that it ran on.
    pub cpu: Option<String>,
    /// The server.
    pub url: String,
    /// What the server calls its model.
    pub model: String,
    /// Of words, lengths and moments.
    pub seed: u64,
    /// Tokens of a prompt that were asked for.
    pub asked_prompt_tokens: usize,
    /// Tokens of an answer that were asked for.
    pub asked_output_tokens: usize,
    /// One for each load, in the order they were timed.
    pub rows: Vec<Row>,
}

impl Report {
    /// Before anything is timed.
    pub fn new(options: &BenchServe, questions: &Questions<'_>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            revision: REVISION,
            cpu: machine::cpu_name(),
            url: options.url.clone(),
            model: questions.model.clone(),
            seed: questions.seed,
            asked_prompt_tokens: options.prompt_tokens,
            asked_output_tokens: options.generate_tokens,
            rows: Vec::new(),
        }
    }

    /// For a person.
    pub fn text(&self) -> String {
        let rows: Vec<String> = self.rows.iter().map(Row::text).collect();
        format!(
            "{} at {}, seed {}\n\n{}",
            self.model,
            self.url,
            self.seed,
            rows.join("\n")
        )
    }

    /// Writes the rows to the file that was asked for.
    pub fn write_csv(&self, options: &BenchServe) -> Result<()> {
        let Some(path) = &options.csv else {
            return Ok(());
        };
        std::fs::write(path, self.csv()).with_context(|| format!("writing {}", path.display()))
    }

    fn csv(&self) -> String {
        let rows: String = self.rows.iter().map(Row::csv).collect();
        format!(
            "# {} at {}, {} prompt and {} output tokens asked for, seed {}; asked from {} by git {}\n{COLUMNS}\n{rows}",
            self.model,
            self.url,
            self.asked_prompt_tokens,
            self.asked_output_tokens,
            self.seed,
            self.cpu.as_deref().unwrap_or("an unknown processor"),
            self.revision
        )
    }
}

/// The sum of the server's counters of joules, where it has any.
pub async fn counted_energy_j(target: &Target) -> Option<f64> {
    let (status, body) = target.get("/metrics").await.ok()?;
    let text = std::str::from_utf8(&body).ok().filter(|_| status.is_success())?;
    joules(text)
}

fn joules(metrics: &str) -> Option<f64> {
    let counters = metrics.lines().filter(|line| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        name.ends_with("joules_total")
    });
    let values: Option<Vec<f64>> = counters
        .map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    values
        .filter(|values| !values.is_empty())
        .map(|values| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joules_are_summed_over_their_counters() {
        let text = "# TYPE x_joules counter\nx_joules_total{part=\"a b\"} 1.5\ny_total 7\nx_joules_total{part=\"c\"} 2\n";
        assert_eq!(joules(text), Some(3.5));
        assert_eq!(joules("y_total 7\n"), None);
    }
}

//! `bench serve`: how fast a server answers, by requests as its clients send them. One thread sends and reads all of them, so that
//! it takes little from a server on the same machine.

mod answer;
mod arrivals;
mod events;
mod questions;
mod report;
mod row;
mod target;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use crate::cli::arguments::BenchServe;
use crate::cli::interruption::interrupt_flag;
use crate::cli::output_file;
use crate::cli::terminal::Terminal;
use answer::{Answer, Outcome, Question};
use arrivals::{Arrival, Asking};
use questions::Questions;
use report::Report;
use row::{Goal, Row};
use target::Target;

/// Requests that warm the server up, at most, where the number was not given.
const MAX_WARMING: usize = 64;
/// Requests for each that runs at once, and the least number of all, where the number was not given.
const ROUNDS: usize = 4;
const MIN_REQUESTS: usize = 16;

/// Times every load that is asked for.
pub fn run(options: &BenchServe, terminal: &Terminal) -> Result<()> {
    if let Some(path) = &options.csv {
        output_file::check(path, output_file::TRAFFIC, options.replacing.replace)?;
    }
    let target = Arc::new(Target::new(&options.url, options.api_key_file.as_deref())?);
    let interrupted = interrupt_flag()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let questions = Questions::prepare(&target, options, seed(options)).await?;
        let reservations = questions.reservations().into_iter();
        reservations.for_each(|said| terminal.say(said));
        let mut report = Report::new(options, &questions);
        report.write_csv(options)?;
        let mut timing = Timing {
            options,
            terminal,
            target: &target,
            questions,
            interrupted: &interrupted,
        };
        let outcome = timing.all(&mut report).await;
        // What was measured before an error or Ctrl-C is not thrown away.
        if !report.rows.is_empty() {
            terminal.result(&report, &report.text())?;
        }
        outcome
    })
}

/// A seed that was not given is another one every time, so that no cache holds the prompts.
fn seed(options: &BenchServe) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    options
        .seed
        .unwrap_or_else(|| since.map_or(0, |since| since.as_micros() as u64))
}

struct Timing<'a> {
    options: &'a BenchServe,
    terminal: &'a Terminal,
    target: &'a Arc<Target>,
    questions: Questions<'a>,
    interrupted: &'a AtomicBool,
}

impl Timing<'_> {
    async fn all(&mut self, report: &mut Report) -> Result<()> {
        for arrival in arrivals(self.options) {
            let row = self.row(arrival).await?;
            report.rows.push(row);
            report.write_csv(self.options)?;
        }
        Ok(())
    }

    async fn row(&mut self, arrival: Arrival) -> Result<Row> {
        let num_warming = self.options.warmup.unwrap_or(match arrival {
            Arrival::AtOnce(count) => count.min(MAX_WARMING),
            Arrival::PerSecond(_) => 1,
        });
        let warming = self.questions.warming(num_warming);
        self.ask(warming, Arrival::AtOnce(num_warming.max(1)), "warming up")
            .await?;
        let timed = self.questions.timed(num_requests(self.options, arrival));
        let before_j = report::counted_energy_j(self.target).await;
        let answers = self.ask(timed, arrival, "timing").await?;
        let after_j = report::counted_energy_j(self.target).await;
        self.tell_failures(&answers)?;
        let goal = Goal {
            first_s: self.options.slo_ttft,
            gap_s: self.options.slo_inter_token,
        };
        // A counter that work does not move is none: a server without one shows 0.
        let energy_j = before_j.zip(after_j).map(|(before, after)| after - before);
        let energy_j = energy_j.filter(|&used| used > 0.0);
        Ok(Row::new(arrival, &answers, goal, energy_j))
    }

    async fn ask(&self, questions: Vec<Question>, arrival: Arrival, what: &str) -> Result<Vec<Answer>> {
        let total = (questions.len() * self.options.generate_tokens) as u64;
        let watch = |seen: u64| {
            self.terminal
                .progress(what, &arrival.text(), seen.min(total), total);
            !self.interrupted.load(Ordering::Relaxed)
        };
        let asking = Asking {
            target: self.target,
            watch: &watch,
        };
        asking.all(questions, arrival, self.questions.seed).await
    }

    /// Says why requests failed; when all did, that is the end.
    fn tell_failures(&self, answers: &[Answer]) -> Result<()> {
        let failures = answers.iter().filter_map(|answer| match &answer.outcome {
            Outcome::Failed(_, message) => Some(message),
            _ => None,
        });
        let failures: Vec<&String> = failures.collect();
        let Some(first) = failures.first() else {
            return Ok(());
        };
        ensure!(
            failures.len() < answers.len(),
            "every request failed; the first: {first}"
        );
        self.terminal.say(&format!(
            "{} of {} requests failed; the first: {first}",
            failures.len(),
            answers.len()
        ));
        Ok(())
    }
}

/// Each load once, in the order asked for.
fn arrivals(options: &BenchServe) -> Vec<Arrival> {
    match options.rate.is_empty() {
        true => options
            .concurrency
            .iter()
            .map(|&count| Arrival::AtOnce(count))
            .collect(),
        false => options
            .rate
            .iter()
            .map(|&rate| Arrival::PerSecond(rate))
            .collect(),
    }
}

fn num_requests(options: &BenchServe, arrival: Arrival) -> usize {
    options.requests.unwrap_or(match arrival {
        Arrival::AtOnce(count) => (ROUNDS * count).max(MIN_REQUESTS),
        Arrival::PerSecond(_) => ROUNDS * MIN_REQUESTS,
    })
}

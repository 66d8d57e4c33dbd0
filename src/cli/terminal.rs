//! What a person sees: a progress bar with an ETA on a terminal, plain lines in a log, one JSON object for machines.
//!
//! Results go to stdout, everything else to stderr.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

use crate::cli::units::duration;

/// A log shows at most one progress line in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Where messages, progress and results go.
pub struct Terminal {
    json: bool,
    verbose: u8,
    interactive: bool,
    /// When a task ends at the latest.
    deadline: Cell<Option<Instant>>,
    current: RefCell<Option<Running>>,
}

struct Running {
    task: String,
    bar: Option<ProgressBar>,
    started: Instant,
    deadline: Option<Instant>,
    last_line: Instant,
}

impl Terminal {
    /// `json` keeps stdout for a single object; `verbose` counts `-v`.
    pub fn new(json: bool, verbose: u8) -> Self {
        let interactive = std::io::stderr().is_terminal();
        Self {
            json,
            verbose,
            interactive,
            deadline: Cell::new(None),
            current: RefCell::new(None),
        }
    }

    /// Whether stderr is a terminal.
    pub fn interactive(&self) -> bool {
        self.interactive
    }

    /// Prints the one result of a verb: `value` as JSON, or `text`.
    pub fn result<T: Serialize>(&self, value: &T, text: &str) -> anyhow::Result<()> {
        self.finish();
        match self.json {
            true => write_stdout(&(versioned(value).context("writing JSON")? + "\n")),
            false => write_stdout(&format!("{}\n", text.trim_end())),
        }
    }

    /// A line for the person who watches.
    pub fn say(&self, line: &str) {
        self.line(line);
    }

    /// A line that is shown with `-v` only.
    pub fn detail(&self, line: &str) {
        if self.verbose > 0 {
            self.line(line);
        }
    }

    fn line(&self, line: &str) {
        match self
            .current
            .borrow()
            .as_ref()
            .and_then(|running| running.bar.as_ref())
        {
            Some(bar) => bar.suspend(|| tell(line)),
            None => tell(line),
        }
    }

    /// The task that is shown is meant to end after `budget`, however much is left of it.
    pub fn ends_within(&self, budget: Duration) {
        self.deadline.set(Instant::now().checked_add(budget));
    }

    /// Shows that `done` of `total` units of `task` are finished; `detail` says what is being done just now.
    pub fn progress(&self, task: &str, detail: &str, done: u64, total: u64) {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_none_or(|known| known.task != task) {
            if let Some(old) = current.take() {
                old.end();
            }
            *current = Some(Running::new(task, self.interactive, self.deadline.get()));
        }
        if let Some(known) = current.as_mut() {
            known.update(detail, done, total);
        }
    }

    /// Ends the current progress display.
    pub fn finish(&self) {
        if let Some(running) = self.current.borrow_mut().take() {
            running.end();
        }
    }
}

/// What is left of a task that has a deadline: no more than until then.
fn within(deadline: Option<Instant>, left: Duration) -> Duration {
    match deadline {
        Some(deadline) => left.min(deadline.saturating_duration_since(Instant::now())),
        None => left,
    }
}

impl Running {
    fn new(task: &str, interactive: bool, deadline: Option<Instant>) -> Self {
        let bar = interactive.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style =
                ProgressStyle::with_template("{msg:44!} {wide_bar} {percent:>3} % {elapsed} eta {eta}");
            let eta = move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                // What cannot be written to a bar cannot be shown either.
                let _ = write!(text, "{:#}", HumanDuration(within(deadline, state.eta())));
            };
            bar.set_style(
                style
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    .with_key("eta", eta),
            );
            bar
        });
        let now = Instant::now();
        Self {
            task: task.to_owned(),
            bar,
            started: now,
            deadline,
            last_line: now,
        }
    }

    fn update(&mut self, detail: &str, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_message(label(&self.task, detail));
            bar.set_length(total);
            bar.set_position(done);
        } else if self.last_line.elapsed() >= LOG_INTERVAL && done > 0 {
            self.last_line = Instant::now();
            let left = self.started.elapsed().as_secs_f64() * total.saturating_sub(done) as f64 / done as f64;
            let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
            let percent = 100.0 * done as f64 / total.max(1) as f64;
            tell(&format!(
                "{}: {percent:.0} %, about {} left",
                label(&self.task, detail),
                duration(within(self.deadline, left).as_secs_f64())
            ));
        }
    }

    fn end(self) {
        match self.bar {
            Some(bar) => bar.finish_and_clear(),
            None if self.started.elapsed() >= LOG_INTERVAL => {
                let time_s = self.started.elapsed().as_secs_f64();
                tell(&format!("{}: done in {}", self.task, duration(time_s)));
            }
            None => {}
        }
    }
}

/// The version of the keys that `--json` prints: it grows when one goes away or changes its meaning.
const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Versioned<'a, T> {
    schema_version: u32,
    #[serde(flatten)]
    result: &'a T,
}

/// A result as JSON; an object says which version its keys have, a list has no place for that.
fn versioned<T: Serialize>(result: &T) -> serde_json::Result<String> {
    let versioned = Versioned {
        schema_version: SCHEMA_VERSION,
        result,
    };
    serde_json::to_string_pretty(&versioned).or_else(|_| serde_json::to_string_pretty(result))
}

/// A line on stderr. When nobody listens any more (`2>&1 | head`) the work goes on.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn label(task: &str, detail: &str) -> String {
    if detail.is_empty() {
        task.to_owned()
    } else {
        format!("{task}: {detail}")
    }
}

/// Writes text to stdout at once. A reader that went away (`| head`) is no error.
pub fn write_stdout(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to stdout"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_with_a_deadline_has_no_more_left_than_until_then() {
        let hour = Duration::from_secs(3_600);
        assert_eq!(within(None, hour), hour);
        let left = within(Instant::now().checked_add(hour), 10 * hour);
        assert!(left <= hour && left > hour / 2, "{left:?}");
        assert_eq!(
            within(Instant::now().checked_add(hour), Duration::ZERO),
            Duration::ZERO
        );
        assert_eq!(within(Some(Instant::now()), hour), Duration::ZERO);
    }

    #[test]
    fn objects_say_their_version_and_lists_stay_lists() {
        let object = versioned(&std::collections::BTreeMap::from([("a", 0.1_f32)])).unwrap();
        let value: serde_json::Value = serde_json::from_str(&object).unwrap();
        assert_eq!(value["schema_version"], 1);
        assert!(object.contains("\"a\": 0.1\n"), "{object}");
        assert!(versioned(&[1, 2]).unwrap().starts_with('['));
    }
}

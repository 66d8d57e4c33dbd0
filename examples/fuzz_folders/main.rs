//! Opens many damaged folders and says what became of them: no panic, no case over a second, no message without a file's name.
//!
//!     cargo run --release --example fuzz_folders -- --kind model --cases 100000
//!     cargo run --release --example fuzz_folders -- --kind measurements --cases 100000
//!     cargo run --release --example fuzz_folders -- --kind model --only 4711
#![forbid(unsafe_code)]

#[path = "../../fuzz/folders/mod.rs"]
mod folders;
#[path = "../../tests/synthetic/mod.rs"]
mod synthetic;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use folders::{Case, Kind, Outcome, Place, Seed};

/// No case may take longer.
const MOST_TIME: Duration = Duration::from_secs(1);
/// A case that has not come back by then never will; the process ends and says which one it was.
const HANGS: Duration = Duration::from_secs(60);
/// Examples of each kind of trouble that are printed.
const SHOWN: usize = 12;

#[derive(Parser)]
struct Arguments {
    /// What is damaged.
    #[arg(long, value_enum, default_value_t = What::Model)]
    kind: What,
    /// How many folders.
    #[arg(long, default_value_t = 1_000)]
    cases: u64,
    /// Where the numbers of the cases begin.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    workers: u64,
    /// One case alone, with what it says.
    #[arg(long)]
    only: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Model,
    Measurements,
}

/// What became of all cases.
#[derive(Default)]
struct Summary {
    taken: u64,
    refused: u64,
    panicked: Vec<String>,
    nameless: BTreeMap<String, String>,
    slow: Vec<String>,
    slowest: (Duration, String),
}

impl Summary {
    fn note(&mut self, number: u64, case: Case) {
        let known = format!("case {number} ({})", case.damage);
        match case.outcome {
            Outcome::Taken => self.taken += 1,
            Outcome::Refused(_) => self.refused += 1,
            Outcome::Nameless(text) => drop(self.nameless.entry(text).or_insert(known.clone())),
            Outcome::Panicked => self.panicked.push(known.clone()),
        }
        if case.time > MOST_TIME {
            self.slow
                .push(format!("{known}: {:.2} s", case.time.as_secs_f64()));
        }
        if case.time > self.slowest.0 {
            self.slowest = (case.time, known);
        }
    }

    fn is_clean(&self) -> bool {
        self.panicked.is_empty() && self.nameless.is_empty() && self.slow.is_empty()
    }

    fn print(&self, time: Duration) {
        let Self {
            taken,
            refused,
            panicked,
            nameless,
            slow,
            slowest,
        } = self;
        let all = taken + refused + panicked.len() as u64;
        println!(
            "{all} folders in {:.1} s: {taken} taken, {refused} refused",
            time.as_secs_f64()
        );
        println!(
            "panics: {}; over {} s: {}; messages without a file: {}",
            panicked.len(),
            MOST_TIME.as_secs(),
            slow.len(),
            nameless.len()
        );
        println!("slowest: {:.3} s, {}", slowest.0.as_secs_f64(), slowest.1);
        panicked
            .iter()
            .chain(slow)
            .take(SHOWN)
            .for_each(|text| println!("  {text}"));
        nameless
            .iter()
            .take(SHOWN)
            .for_each(|(text, case)| println!("  {case}: {text}"));
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let kind = match arguments.kind {
        What::Model => Kind::Model,
        What::Measurements => Kind::Measurements,
    };
    let seeds = folders::seeds(kind);
    if let Some(number) = arguments.only {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let case = Place::new(folder.path()).run(&seeds, number);
        println!(
            "{}\n{:?} after {:.3} s",
            case.damage,
            case.outcome,
            case.time.as_secs_f64()
        );
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let summary = run_all(&arguments, &seeds);
    summary.print(started.elapsed());
    if summary.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_all(arguments: &Arguments, seeds: &[Seed]) -> Summary {
    let summary = Mutex::new(Summary::default());
    let next = AtomicU64::new(0);
    // What each worker is at, and since when.
    let at: Vec<_> = (0..arguments.workers).map(|_| Mutex::new(None)).collect();
    thread::scope(|scope| {
        let workers: Vec<_> = at
            .iter()
            .map(|at| scope.spawn(|| work(arguments, seeds, &next, at, &summary)))
            .collect();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(200));
            at.iter().for_each(end_if_it_hangs);
        }
    });
    summary.into_inner().expect("no worker panicked")
}

type At = Mutex<Option<(u64, Instant)>>;

fn work(arguments: &Arguments, seeds: &[Seed], next: &AtomicU64, at: &At, summary: &Mutex<Summary>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("folder");
    let mut place = Place::new(&dir);
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= arguments.cases {
            return;
        }
        let number = arguments.seed + index;
        *at.lock().expect("not poisoned") = Some((number, Instant::now()));
        let case = place.run(seeds, number);
        *at.lock().expect("not poisoned") = None;
        summary.lock().expect("not poisoned").note(number, case);
    }
}

fn end_if_it_hangs(at: &At) {
    if let Some((number, since)) = *at.lock().expect("not poisoned")
        && since.elapsed() > HANGS
    {
        println!("case {number} has not come back after {} s", HANGS.as_secs());
        std::process::exit(1);
    }
}

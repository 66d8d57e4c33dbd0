//! Counts in a file, and whether new ones are worse.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};

/// More instructions than recorded, times this, are a regression; as many fewer are worth a new record.
fn limit(isa: &str) -> f64 {
    match isa {
        // What the compiler inlines into the portable loops changes with sources far from them: 15 % for the same loop.
        "portable" => 1.2,
        _ => 1.03,
    }
}

/// One operation on one instruction set.
pub struct Count {
    pub op: &'static str,
    pub isa: &'static str,
    pub shape: String,
    pub instructions: u64,
    /// Multiply-adds or elements.
    pub units: usize,
    pub unit: &'static str,
}

impl Count {
    pub fn key(&self) -> String {
        format!("{},{},{}", self.op, self.isa, self.shape)
    }

    pub fn per_unit(&self) -> f64 {
        self.instructions as f64 / self.units as f64
    }
}

/// What a command prints, if it can be run.
pub fn output(command: &mut Command) -> Option<String> {
    let out = command.output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

pub fn csv(valgrind: &str, counts: &[Count]) -> String {
    let unknown = || "unknown".to_owned();
    let revision = output(Command::new("git").args(["describe", "--always", "--dirty"]));
    let compiler = output(Command::new("rustc").arg("--version"));
    let mut csv = format!(
        "# callgrind of {valgrind}; instructions of one call on one thread; {}; git {}\n\
         op,isa,shape,instructions,per_unit,unit\n",
        compiler.unwrap_or_else(unknown),
        revision.unwrap_or_else(unknown),
    );
    for count in counts {
        let per_unit = count.per_unit();
        let _ = writeln!(
            csv,
            "{},{},{per_unit:.5},{}",
            count.key(),
            count.instructions,
            count.unit
        );
    }
    csv
}

/// Compares with a recorded file; fails for regressions, and when there was nothing to compare.
pub fn check(path: &str, counts: &[Count]) -> ExitCode {
    let recorded = recorded(&read(path));
    let (mut compared, mut regressions) = (0, 0);
    for count in counts {
        let Some(&before) = recorded.get(&count.key()) else {
            println!("{} is not in {path}", count.key());
            continue;
        };
        compared += 1;
        let ratio = count.instructions as f64 / before as f64;
        if ratio > limit(count.isa) {
            regressions += 1;
            println!(
                "REGRESSION: {} needs {} instructions, {:.1} % more than the {before} recorded",
                count.key(),
                count.instructions,
                100.0 * (ratio - 1.0)
            );
        } else if ratio < 2.0 - limit(count.isa) {
            println!(
                "{} needs {:.1} % fewer: record it",
                count.key(),
                100.0 * (1.0 - ratio)
            );
        }
    }
    println!(
        "{compared} operations compared with {path}, {regressions} need more instructions than they may"
    );
    if compared == 0 || regressions > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Why counts of this build say nothing beside those recorded: another compiler.
pub fn other_build(text: &str) -> Option<String> {
    let recorded = text
        .lines()
        .next()?
        .split("; ")
        .find(|part| part.starts_with("rustc "))?;
    let here = output(Command::new("rustc").arg("--version")).unwrap_or_default();
    (recorded != here).then(|| format!("SKIPPED: recorded with {recorded}, this is {here}"))
}

/// Instructions by `op,isa,shape`. The portable path was once called naive.
fn recorded(text: &str) -> BTreeMap<String, u64> {
    let rows = text
        .lines()
        .filter(|line| !line.starts_with(['#']) && !line.starts_with("op,"));
    rows.map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let instructions = fields.get(3).and_then(|count| count.parse().ok());
        let instructions = instructions.unwrap_or_else(|| panic!("no number of instructions in {line:?}"));
        let isa = if fields[1] == "naive" {
            "portable"
        } else {
            fields[1]
        };
        (format!("{},{isa},{}", fields[0], fields[2]), instructions)
    })
    .collect()
}

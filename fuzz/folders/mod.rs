//! Whole folders, damaged: a model folder as every command opens one, and a measured set with a fitted model.
//!
//! A case takes one of the small sound folders, damages one to three of its files and opens it. It must come back within a second,
//! without a panic, with a result or with a message that names a file. `examples/fuzz_folders` runs as many cases as wanted,
//! tests/fuzz.rs a few.

mod damages;
mod entries;
mod seeds;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use dualgrain_device::cases::Random;

pub use entries::Kind;
use seeds::write;
pub use seeds::{Seed, seeds};

/// What became of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The folder was taken, as far as the entry goes.
    Taken,
    /// It was refused in these words.
    Refused(String),
    /// It was refused in words that name no file.
    Nameless(String),
    /// The code panicked.
    Panicked,
}

/// A case that was run.
pub struct Case {
    /// What became of it.
    pub outcome: Outcome,
    /// How long opening took.
    pub time: Duration,
    /// The sound folder, and what was done to its files.
    pub damage: String,
}

/// A folder that cases are run in, one after the other.
pub struct Place<'a> {
    dir: &'a Path,
    /// What lies in it: a seed, by its place among all.
    holds: Option<usize>,
    /// Files that a case has changed.
    changed: Vec<String>,
}

impl<'a> Place<'a> {
    /// A place in an empty folder.
    pub fn new(dir: &'a Path) -> Self {
        Self {
            dir,
            holds: None,
            changed: Vec::new(),
        }
    }

    /// Runs the case `number`, which always is the same one for the same seeds.
    pub fn run(&mut self, seeds: &[Seed], number: u64) -> Case {
        let random = &mut Random(number.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let which = random.below(seeds.len());
        let seed = &seeds[which];
        self.lay_out(seed, which);
        let damages = self.damage(seed, random);
        let started = Instant::now();
        let opened = catch_unwind(AssertUnwindSafe(|| entries::open(seed.kind, self.dir, random)));
        let time = started.elapsed();
        let outcome = match opened {
            Ok(Ok(())) => Outcome::Taken,
            Ok(Err(text)) if names_a_file(&text, seed) => Outcome::Refused(text),
            Ok(Err(text)) => Outcome::Nameless(text),
            Err(_) => Outcome::Panicked,
        };
        Case {
            outcome,
            time,
            damage: format!("{}: {}", seed.name, damages.join("; ")),
        }
    }

    /// The sound folder again: whole where another lay here, else only what was changed.
    fn lay_out(&mut self, seed: &Seed, which: usize) {
        if self.holds == Some(which) {
            for name in self.changed.drain(..) {
                clear(&self.dir.join(&name));
                write(self.dir, &name, &seed.files[&name]);
            }
            return;
        }
        clear(self.dir);
        seed.files
            .iter()
            .for_each(|(name, bytes)| write(self.dir, name, bytes));
        self.changed.clear();
        self.holds = Some(which);
    }

    fn damage(&mut self, seed: &Seed, random: &mut Random) -> Vec<String> {
        let names: Vec<&String> = seed.files.keys().collect();
        let mut done = Vec::new();
        for _ in 0..[1, 1, 1, 2, 3][random.below(5)] {
            let name = names[random.below(names.len())];
            if self.changed.contains(name) {
                continue;
            }
            self.changed.push(name.clone());
            let path = self.dir.join(name);
            done.push(format!(
                "{name} {}",
                damages::damage_file(random, &path, &seed.files[name])
            ));
        }
        done
    }
}

/// Whether a message says which file is meant: one of the folder's, or one that it should have.
fn names_a_file(text: &str, seed: &Seed) -> bool {
    let expected = ["model.safetensors", "chat_template.jinja", "rows.csv.gz"];
    let names = seed
        .files
        .keys()
        .map(|name| name.rsplit('/').next().unwrap_or(name));
    names.chain(expected).any(|name| text.contains(name))
}

fn clear(path: &Path) {
    let _ = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
}

//! What was not tested.

use std::env;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::thread;

/// Names what tests may go without, separated by commas: whatever else they lack is a failure. Unset, they may lack anything.
const MAY_LACK: &str = "DUALGRAIN_MAY_LACK";

/// Names a file that gets a line for everything that was skipped. cargo hides what a passing test prints; a file it does not.
const LOG: &str = "DUALGRAIN_SKIPPED_LOG";

/// Says on stdout that something was not tested because this machine lacks `need`, one word, and why. The same goes to the file
/// that `DUALGRAIN_SKIPPED_LOG` names: a line with the need, the test and the reason, tabs between them.
///
/// # Panics
/// If `DUALGRAIN_MAY_LACK` is set and does not name `need`. If the file cannot be written: a list that lacks lines would say
/// that more was tested than was.
pub fn skipped(need: &str, why: impl Display) {
    let why = one_line(why);
    println!("SKIPPED: {why}");
    if let Ok(list) = env::var(MAY_LACK) {
        assert!(names(&list, need), "{MAY_LACK} does not name {need}: {why}");
    }
    if let Some(log) = env::var_os(LOG).filter(|log| !log.is_empty()) {
        let log = Path::new(&log);
        let line = format!("{need}\t{}\t{why}\n", this_test());
        append(log, &line).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    }
}

fn names(list: &str, need: &str) -> bool {
    list.split(',').any(|name| name.trim() == need)
}

fn one_line(why: impl Display) -> String {
    why.to_string().replace(['\n', '\r', '\t'], " ")
}

/// The program, without the hash that cargo adds to it, and the test, whose thread has its name.
fn this_test() -> String {
    let path = env::current_exe().unwrap_or_default();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let program = stem.rsplit_once('-').map_or(&*stem, |(program, _)| program);
    match thread::current().name() {
        None | Some("main") => program.to_owned(),
        Some(test) => format!("{program}::{test}"),
    }
}

/// Tests of several processes write at the same time: a line is one write to a file opened for appending.
fn append(log: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(log)?;
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs the test below in a process of its own, whose environment can be set.
    fn skip(may_lack: &str, log: &Path) -> bool {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "skipped::tests::a_test_without_its_card"]);
        let output = command.env(MAY_LACK, may_lack).env(LOG, log).output();
        output.unwrap().status.success()
    }

    #[test]
    #[ignore = "other tests run it as a child"]
    fn a_test_without_its_card() {
        skipped("gpu", "no card:\nnone found");
    }

    #[test]
    fn what_is_skipped_becomes_a_line_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("skipped");
        assert!(skip("avx2, gpu", &log) && skip("gpu", &log));
        let line = "gpu\tdualgrain_testing::skipped::tests::a_test_without_its_card\tno card: none found\n";
        assert_eq!(std::fs::read_to_string(&log).unwrap(), line.repeat(2));
    }

    #[test]
    fn a_test_fails_without_what_it_may_not_lack() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("skipped");
        for may_lack in ["", "nothing", "avx2", "gpus"] {
            assert!(!skip(may_lack, &log), "{may_lack}");
        }
        assert!(!log.exists());
    }
}

//! Files that verbs write: never over a file that dualgrain did not write, unless that was asked for.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A kind of file, known by how it begins, comment lines aside.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    what: &'static str,
    beginning: &'static str,
    /// Stands near the beginning too.
    mark: &'static str,
}

/// Pages that open in a browser.
pub const PAGE: Kind = Kind {
    what: "a page of dualgrain",
    beginning: "<!doctype html>",
    mark: "<meta name=\"generator\" content=\"dualgrain\">",
};
/// Models of costs.
pub const FITTED: Kind = Kind::begun("a fitted model", "DUALGRNM");
/// Rows of `bench`.
pub const BENCH: Kind = Kind::begun("rows of `dualgrain bench`", "revision,cpu,kernels,");
/// Rows of `bench serve`.
pub const TRAFFIC: Kind = Kind::begun("rows of `dualgrain bench serve`", "at_once,arrivals_per_s,");
/// Rows of `bench gemm`.
#[cfg(feature = "cuda")]
pub const PRODUCTS: Kind = Kind::begun("rows of `dualgrain bench gemm`", "shape,kernel,config,");
/// Rows of `profile --check-energy`.
pub const COUNTER: Kind = Kind::begun(
    "rows of `dualgrain profile --check-energy`",
    "load,region_s,counter_j",
);
/// Samples that `profile --check-energy` writes beside them.
#[cfg(feature = "cuda")]
pub const SAMPLES: Kind = Kind::begun("samples of `dualgrain profile --check-energy`", "at_s,counter_j,");
/// The table that a card's kernels are chosen by.
#[cfg(feature = "cuda")]
pub const TABLE: Kind = Kind::begun("a table of `dualgrain select`", "dualgrain-selection");

/// Bytes of a file in which its beginning and its mark stand.
const BEGINNING: u64 = 4096;

/// Refuses a place for an output before the work for it is done. Pipes and devices are written as they are.
pub fn check(path: &Path, kind: Kind, replace: bool) -> Result<()> {
    ensure!(!path.is_dir(), "{}: it is a folder; name a file", path.display());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    ensure!(
        folder.is_dir(),
        "{}: there is no folder {}",
        path.display(),
        folder.display()
    );
    if replace || !path.is_file() {
        return Ok(());
    }
    let mut beginning = Vec::new();
    let file = File::open(path).with_context(|| format!("looking into {}", path.display()))?;
    let read = file.take(BEGINNING).read_to_end(&mut beginning);
    read.with_context(|| format!("looking into {}", path.display()))?;
    let text = String::from_utf8_lossy(&beginning);
    let is_ours = beginning.is_empty() || kind.is_begun_by(&text);
    ensure!(
        is_ours,
        "{}: there is a file already that is not {}: choose another name, or write over it with --replace",
        path.display(),
        kind.what
    );
    Ok(())
}

/// Fails where a file could not be written later. One that is there stays as it is, one that is not is not made.
pub fn can_write(path: &Path) -> Result<()> {
    let existed = path.symlink_metadata().is_ok();
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.with_context(|| format!("writing {}", path.display()))?;
    if !existed {
        std::fs::remove_file(path).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

impl Kind {
    /// A kind that its beginning alone tells.
    const fn begun(what: &'static str, beginning: &'static str) -> Self {
        Self {
            what,
            beginning,
            mark: "",
        }
    }

    fn is_begun_by(&self, text: &str) -> bool {
        let first = text.lines().find(|line| !line.starts_with('#'));
        first.is_some_and(|line| line.starts_with(self.beginning)) && text.contains(self.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::write;

    #[test]
    fn only_files_of_the_same_kind_are_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let may = |kind, replace| check(&path, kind, replace).map_err(|error| error.to_string());
        assert!(may(PAGE, false).is_ok());
        write(&path, "my letter").unwrap();
        for kind in [PAGE, FITTED, BENCH, TRAFFIC] {
            let error = may(kind, false).unwrap_err();
            assert!(
                error.contains("--replace") && error.contains(kind.what),
                "{error}"
            );
            assert!(may(kind, true).is_ok());
        }
        write(&path, b"DUALGRNM\xff\x00").unwrap();
        assert!(may(FITTED, false).is_ok() && may(PAGE, false).is_err());
        write(&path, "").unwrap();
        assert!(may(BENCH, false).is_ok());
        write(&path, "# a comment\nrevision,cpu,kernels,device\n").unwrap();
        assert!(may(BENCH, false).is_ok() && may(TRAFFIC, false).is_err());
        // A script that speaks of such rows is no such rows.
        write(&path, "import csv\nrevision,cpu,kernels,device\n").unwrap();
        assert!(may(BENCH, false).is_err());
        write(
            &path,
            "<!doctype html><meta name=\"generator\" content=\"dualgrain\">",
        )
        .unwrap();
        assert!(may(PAGE, false).is_ok());
        assert!(check(dir.path(), PAGE, true).is_err());
        assert!(check(&dir.path().join("none/file"), PAGE, true).is_err());
        assert!(check(Path::new("/dev/null"), BENCH, false).is_ok());
    }

    #[test]
    fn file_that_cannot_be_written_is_found_before_anything_is_timed() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new.csv"), folder.path().join("old.csv"));
        can_write(&new).unwrap();
        assert!(!new.exists(), "nothing is left behind");
        std::fs::write(&old, "rows").unwrap();
        can_write(&old).unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "rows");
        for path in [folder.path().to_owned(), folder.path().join("no/such.csv")] {
            let error = can_write(&path).unwrap_err();
            assert!(error.to_string().contains("writing"), "{error}");
        }
    }
}

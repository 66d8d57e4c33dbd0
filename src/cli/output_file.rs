//! Files that verbs write: never over a file that dualgrain did not write, unless that was asked for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// A kind of file, known by words that stand near its beginning.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    what: &'static str,
    marks: &'static [&'static str],
}

/// Pages that open in a browser.
pub const PAGE: Kind = Kind {
    what: "a page of dualgrain",
    marks: &["<meta name=\"generator\" content=\"dualgrain\">"],
};
/// Models of costs.
pub const FITTED: Kind = Kind {
    what: "a fitted model",
    marks: &["DUALGRNM"],
};
/// Rows of the verbs that time something.
pub const ROWS: Kind = Kind {
    what: "rows of `dualgrain bench` or `profile`",
    marks: &[
        "prefill_tokens_per_s",
        "output_tokens_per_s,requests_per_s",
        "shape,kernel,config,",
        "load,region_s,counter_j",
    ],
};
/// The table that a card's kernels are chosen by.
#[cfg(feature = "cuda")]
pub const TABLE: Kind = Kind {
    what: "a table of `dualgrain select`",
    marks: &["dualgrain-selection"],
};

/// Bytes of a file in which its marks stand.
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
    let is_ours = beginning.is_empty() || kind.marks.iter().any(|mark| text.contains(mark));
    ensure!(
        is_ours,
        "{}: there is a file already that is not {}: choose another name, or write over it with --replace",
        path.display(),
        kind.what
    );
    Ok(())
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
        for kind in [PAGE, FITTED, ROWS] {
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
        assert!(may(ROWS, false).is_ok());
        assert!(check(dir.path(), PAGE, true).is_err());
        assert!(check(&dir.path().join("none/file"), PAGE, true).is_err());
        assert!(check(Path::new("/dev/null"), ROWS, false).is_ok());
    }
}

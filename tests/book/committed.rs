//! Committed files that are made by tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Text of a file of the repository.
pub fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Fails where the committed file differs from `made`, or writes it where DUALGRAIN_WRITE_BOOK is set.
#[track_caller]
pub fn assert_is(name: &str, made: &str) {
    if std::env::var_os("DUALGRAIN_WRITE_BOOK").is_some() {
        fs::write(file(name), made).unwrap();
        return;
    }
    let committed = fs::read_to_string(file(name)).unwrap_or_default();
    if committed == made {
        return;
    }
    let (line, was, is) = difference(&committed, made);
    panic!(
        "{name}:{line} is stale\n  committed: {was}\n  now:       {is}\n\
         DUALGRAIN_WRITE_BOOK=1 cargo test --release --workspace --test book writes it anew"
    );
}

/// The first line that differs, and what stands there.
fn difference(old: &str, new: &str) -> (usize, String, String) {
    let longest = old.lines().count().max(new.lines().count()) + 1;
    let line = |text: &str, index| text.lines().nth(index).unwrap_or("(nothing)").to_owned();
    let differs = |index: &usize| line(old, *index) != line(new, *index);
    let index = (0..longest).find(differs).unwrap_or(longest - 1);
    (index + 1, line(old, index), line(new, index))
}

#[test]
fn the_first_line_that_differs_is_told() {
    let told = |line, was: &str, is: &str| (line, was.to_owned(), is.to_owned());
    assert_eq!(difference("a\nb\n", "a\nc\n"), told(2, "b", "c"));
    assert_eq!(difference("a\n", "a\nb\n"), told(2, "(nothing)", "b"));
}

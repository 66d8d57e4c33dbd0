//! The paths that DESIGN.md names.
//!
//! A word in backticks or in the layout tree (the indented block that begins with `dualgrain/`) is a path from the root of
//! the repository when it consists of letters, digits and `_ - . /`, does not begin with `/` or `../`, and has a slash or
//! ends like a source file. A span of several words in backticks is a command or a formula, and names none. What a link
//! leads to is a path unless it is an address or a place on the page.

use crate::house::{House, read};

/// Endings by which a word without a slash is a path.
const ENDINGS: [&str; 5] = [".rs", ".cu", ".cuh", ".md", ".toml"];

/// Paths that DESIGN.md names and that do not exist.
pub fn lost_paths(house: &House) -> Vec<String> {
    let text = read(&house.root.join("DESIGN.md"));
    let words = quoted_words(&text).into_iter().chain(layout_words(&text));
    let paths = words.filter(|(_, word)| is_path(word)).chain(links(&text));
    let mut lost: Vec<_> = paths
        .filter(|(_, path)| !house.root.join(path).exists())
        .collect();
    lost.sort_unstable();
    let messages = lost
        .into_iter()
        .map(|(line, path)| format!("DESIGN.md:{line}: {path} does not exist"));
    messages.collect()
}

fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let inside = !word.starts_with('/') && !word.starts_with("../");
    let named = word.contains('/') || ENDINGS.iter().any(|ending| word.ends_with(ending));
    word.chars().all(plain) && inside && named
}

/// Spans of one word in backticks, with their lines.
fn quoted_words(text: &str) -> Vec<(usize, &str)> {
    let (mut words, mut line) = (Vec::new(), 1);
    let mut in_span = false;
    for span in text.split('`') {
        if in_span && !span.contains(char::is_whitespace) {
            words.push((line, span));
        }
        line += span.matches('\n').count();
        in_span = !in_span;
    }
    words
}

/// The words of the layout tree, without the punctuation around them.
fn layout_words(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate();
    let tree = lines.skip_while(|(_, line)| line.trim() != "dualgrain/").skip(1);
    let tree = tree.take_while(|(_, line)| line.starts_with("    "));
    let words = tree.flat_map(|(at, line)| line.split_whitespace().map(move |word| (at + 1, word)));
    let bare = words.map(|(line, word)| {
        (
            line,
            word.trim_start_matches('(')
                .trim_end_matches([')', ',', ';', ':', '.']),
        )
    });
    bare.collect()
}

/// Where links lead in the repository.
fn links(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate();
    let targets = lines.flat_map(|(at, line)| {
        let behind = line.split("](").skip(1);
        behind.map(move |rest| (at + 1, rest.split([')', '#']).next().unwrap_or_default()))
    });
    let inside = targets.filter(|(_, target)| !target.is_empty() && !target.contains("://"));
    inside.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::invented;

    #[test]
    fn a_path_that_does_not_exist_is_found() {
        let design = "`src/a.rs` and `src/b.rs`, `c.md`\nin `crates/d`, `X.q`, `a / b`, `cu/*.cu`, `../shared/x`, `/v1/y`,\n\
                      `cargo run --example x/y`, words/outside, `rows.csv`\n\
                      [a](src/a.rs) [h](docs/h.md#top) [i](#i) [j](https://k.l/m)\n\n    dualgrain/\n      src/a.rs   glue (src/e.rs), 1/x2.\n\
                      \x20     src/f/     g\n\nwords/behind\n";
        let (_folder, house) = invented(&[("DESIGN.md", design), ("src/a.rs", "")]);
        assert_eq!(
            lost_paths(&house),
            [
                "DESIGN.md:1: c.md does not exist",
                "DESIGN.md:1: src/b.rs does not exist",
                "DESIGN.md:2: crates/d does not exist",
                "DESIGN.md:4: docs/h.md does not exist",
                "DESIGN.md:7: 1/x2 does not exist",
                "DESIGN.md:7: src/e.rs does not exist",
                "DESIGN.md:8: src/f/ does not exist"
            ]
        );
    }
}

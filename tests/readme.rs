//! Holds README.md and the pages of docs to what they show.
//!
//! Commands: every line of a `console` block that starts with `$ ` runs, page after page, in one scratch folder that has the
//! bundled model and a measured set; a command that an earlier page has shown is not run again. What follows `  #` is a comment for people. Lines below a command are its output and must
//! be in it. A block whose first line begins with `# needs` (a card, minutes, files of others) is not run; its options must exist.
//!
//! Links: every relative link of a page leads to a file, and its anchor to a heading.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dualgrain_testing::copy_folder;

/// Begins the first line of a block that is not run.
const NEEDS: &str = "# needs ";

/// Lines of README.md at most: a page that a stranger reads in one go.
const README_LINES: usize = 130;

/// A command as a page shows it.
struct Shown {
    /// Page and line.
    place: String,
    line: String,
    /// The lines below it.
    output: Vec<String>,
    /// It cannot run everywhere.
    needs: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown pages among what matches `folder`, sorted.
fn pages_in(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).into_iter().flatten();
    let mut pages: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    pages
}

/// Folders of pages that become the book.
const BOOK: [&str; 3] = ["docs", "docs/guides", "docs/reference"];

/// README.md, then the pages of the book.
fn pages_with_commands() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    pages.extend(BOOK.into_iter().flat_map(pages_in));
    pages
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

fn name(page: &Path) -> String {
    page.strip_prefix(root()).unwrap().display().to_string()
}

/// The commands of a page's `console` blocks.
fn commands(page: &Path) -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    let (mut inside, mut is_first, mut needs) = (false, false, false);
    for (number, line) in read(page).lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
            (is_first, needs) = (inside, false);
            continue;
        }
        if !inside {
            continue;
        }
        needs |= is_first && line.starts_with(NEEDS);
        is_first = false;
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push(Shown {
                place: format!("{}:{}", name(page), number + 1),
                line: command.split("  #").next().unwrap_or(command).trim().to_owned(),
                output: Vec::new(),
                needs,
            });
        } else if let (Some(last), false) = (commands.last_mut(), line.starts_with('#')) {
            last.output.push(line.trim().to_owned());
        }
    }
    commands
}

/// Words of a shell line; double quotes keep spaces together.
fn words(line: &str) -> Vec<String> {
    let pieces = line.split('"').enumerate();
    let mut words = Vec::new();
    for (index, piece) in pieces {
        match index % 2 {
            1 => words.push(piece.to_owned()),
            _ => words.extend(piece.split_whitespace().map(str::to_owned)),
        }
    }
    words
}

/// The arguments of a `dualgrain` command, or of the program run by cargo; a variable set before it is left out.
fn arguments(line: &str) -> Option<Vec<String>> {
    let command = line.trim_start_matches(|c: char| c.is_ascii_uppercase() || c == '_');
    let command = match command.strip_prefix('=') {
        Some(rest) => rest.split_once(' ')?.1,
        None => line,
    };
    let arguments = command
        .strip_prefix("dualgrain ")
        .or(command.strip_prefix("cargo run --release -- "));
    arguments.map(words)
}

fn run(arguments: &[String], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dualgrain"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn the_commands_of_readme_and_docs_work_and_print_what_is_shown() {
    let shown: Vec<Shown> = pages_with_commands()
        .iter()
        .flat_map(|page| commands(page))
        .collect();
    let runnable = || shown.iter().filter(|shown| !shown.needs);
    assert!(runnable().count() >= 10, "README and docs show too few commands");
    let scratch = scratch();
    let mut printed: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for Shown {
        place, line, output, ..
    } in runnable()
    {
        let arguments = arguments(line).unwrap_or_else(|| {
            panic!("{place}: only dualgrain can run here; begin the block with `{NEEDS}...`: {line}")
        });
        let text = printed.entry(arguments).or_insert_with_key(|arguments| {
            standard_output(arguments, &scratch, &format!("{place}: {line}"))
        });
        let absent = output.iter().find(|shown| !text.contains(shown.as_str()));
        assert_eq!(
            absent, None,
            "{place}: {line} does not print this line, but\n{text}"
        );
    }
}

/// What a command prints that must succeed.
fn standard_output(arguments: &[String], folder: &Path, place: &str) -> String {
    let printed = run(arguments, folder);
    let message = String::from_utf8_lossy(&printed.stderr);
    assert_eq!(printed.status.code(), Some(0), "{place}: {message}");
    String::from_utf8_lossy(&printed.stdout).into_owned()
}

#[test]
fn the_commands_that_need_more_than_a_test_has_name_options_that_exist() {
    let shown = pages_with_commands().into_iter().flat_map(|page| commands(&page));
    let mut checked = 0;
    for Shown { place, line, .. } in shown.filter(|shown| shown.needs) {
        if let Some(mut arguments) = arguments(&line) {
            // Everything before --help is read, and refused when it is wrong.
            arguments.push("--help".to_owned());
            let printed = run(&arguments, root());
            let message = String::from_utf8_lossy(&printed.stderr);
            assert_eq!(printed.status.code(), Some(0), "{place}: {line}: {message}");
            checked += 1;
        } else if let Some((_, rest)) = line.split_once(" --example ") {
            let example = rest.split(' ').next().unwrap();
            assert!(
                has_example(example),
                "{place}: {line}: no example is called {example}"
            );
        }
    }
    assert!(checked >= 5, "too few commands were found: {checked}");
}

/// Whether the program or a crate has an example of this name, a file or a folder.
fn has_example(name: &str) -> bool {
    let crates = fs::read_dir(root().join("crates")).unwrap();
    let folders = crates.map(|entry| entry.unwrap().path().join("examples"));
    let is_there = |folder: PathBuf| {
        folder.join(format!("{name}.rs")).is_file() || folder.join(name).join("main.rs").is_file()
    };
    std::iter::once(root().join("examples"))
        .chain(folders)
        .any(is_there)
}

/// An empty folder with what the commands read: the bundled model and the H200's measured set.
fn scratch() -> PathBuf {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    let _ = fs::remove_dir_all(&scratch);
    for folder in ["models/llama-tiny", "bench/data/h200"] {
        copy_folder(&root().join(folder), &scratch.join(folder));
    }
    scratch
}

#[test]
fn the_readme_fits_on_a_screen_and_is_filled_in() {
    let readme = read(&root().join("README.md"));
    let lines = readme.lines().count();
    assert!(
        lines <= README_LINES,
        "README.md has {lines} lines, more than {README_LINES}"
    );
    assert!(
        !readme.contains("_TABLE"),
        "a table of the README was never filled in"
    );
}

#[test]
fn a_container_is_built_by_the_command_of_the_readme() {
    let command = "cargo install --locked --path .";
    for file in ["README.md", "packaging/Containerfile"] {
        assert!(
            read(&root().join(file)).contains(command),
            "{file} lacks {command}"
        );
    }
}

/// Every page of the project that people read.
fn all_pages() -> Vec<PathBuf> {
    let mut pages = pages_in(".");
    pages.extend(BOOK.into_iter().flat_map(pages_in));
    pages.extend(["bench/record", "packaging"].into_iter().flat_map(pages_in));
    for folder in ["crates", "models"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            pages.extend(pages_in(&name(&path)));
        }
    }
    pages
}

/// The lines of a page outside code blocks, without what stands between backticks.
fn prose(page: &Path) -> Vec<String> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in read(page).lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push(line.split('`').step_by(2).collect());
        }
    }
    lines
}

/// Targets of a line's links and pictures: `[text](target)`, `src="target"`, `srcset="target"`.
fn targets(line: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    for (begin, end) in [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"')] {
        let parts = line.split(begin).skip(1);
        targets.extend(parts.filter_map(|part| part.split(end).next()));
    }
    targets
}

/// The anchors of a page's headings, as code-hosting sites make them.
fn anchors(page: &Path) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut inside = false;
    let mut anchors = Vec::new();
    for line in read(page).lines() {
        inside ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if inside || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let anchor = anchor(title.trim());
        let count = counts.entry(anchor.clone()).or_default();
        anchors.push(match *count {
            0 => anchor,
            count => format!("{anchor}-{count}"),
        });
        *count += 1;
    }
    anchors
}

/// Letters in lower case, digits, `-` and `_`; a space becomes `-`, all else goes.
fn anchor(title: &str) -> String {
    let kept = title.to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// What is wrong with a link, if anything.
fn fault(page: &Path, target: &str) -> Option<String> {
    let (path, wanted) = target.split_once('#').unwrap_or((target, ""));
    let file = match path {
        "" => page.to_owned(),
        path => page.parent().unwrap().join(path),
    };
    if !file.exists() {
        return Some(format!("{} does not exist", file.display()));
    }
    let is_page = file.extension().is_some_and(|extension| extension == "md");
    let is_missing = !wanted.is_empty() && is_page && !anchors(&file).iter().any(|anchor| anchor == wanted);
    is_missing.then(|| format!("{} has no heading with the anchor {wanted}", file.display()))
}

#[test]
fn relative_links_and_anchors_resolve() {
    let mut count = 0;
    let mut faults = Vec::new();
    for page in all_pages() {
        for line in prose(&page) {
            for target in targets(&line)
                .into_iter()
                .filter(|target| !target.contains("://"))
            {
                count += 1;
                faults.extend(
                    fault(&page, target).map(|fault| format!("{}: ({target}): {fault}", name(&page))),
                );
            }
        }
    }
    assert!(count > 100, "too few links were found: {count}");
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn anchors_are_those_of_code_hosting_sites() {
    assert_eq!(anchor("Group scale (s2)"), "group-scale-s2");
    assert_eq!(anchor("Freivalds' check"), "freivalds-check");
    assert_eq!(anchor("quantization_config"), "quantization_config");
    assert_eq!(
        targets("[a](b#c), ![d](e.svg) and <img src=\"f.svg\">"),
        ["b#c", "e.svg", "f.svg"]
    );
}

//! docs/reference/records.md: which records there are, what their heads say, and which pages show them.

use std::fmt::Write;
use std::fs;

use crate::committed::{assert_is, file, read};

const HEAD: &str = "# Records\n\nEvery file of raw results, what its first line says of machine, commands and date, and the pages that show it. \
    [How every figure was measured](../figures.md) leads from a figure to its record. This page is made from the files.\n\n\
    ## Which record holds which figure\n";
const PAGES: [&str; 7] = [
    "quality",
    "speed-cpu",
    "speed-gpu",
    "cost-model",
    "serve",
    "models",
    "comparison",
];

fn names() -> Vec<String> {
    let entries = fs::read_dir(file("bench/record")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What the comments at the top of a record say.
fn head(name: &str) -> String {
    let text = read(&format!("bench/record/{name}"));
    let lines = text
        .lines()
        .take_while(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches(['#', ' ']));
    let words: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    words
        .join(" ")
        .replace('<', "&lt;")
        .replace('|', "\\|")
        .replace('*', "\\*")
}

/// Links to the pages that name a record.
fn shown(name: &str) -> String {
    let pages = PAGES
        .iter()
        .filter(|page| read(&format!("docs/{page}.md")).contains(name));
    let links: Vec<String> = pages.map(|page| format!("[{page}](../{page}.md)")).collect();
    match links.is_empty() {
        true => "no page".to_owned(),
        false => links.join(", "),
    }
}

#[test]
fn the_page_of_records_lists_them_all() {
    let mut page = HEAD.to_owned();
    for name in names() {
        let head = head(&name);
        let _ = write!(
            page,
            "\n**[{name}](../../bench/record/{name})**, shown by {}\n",
            shown(&name)
        );
        if !head.is_empty() {
            let _ = write!(page, "\n> {head}\n");
        }
    }
    assert_is("docs/reference/records.md", &page);
}

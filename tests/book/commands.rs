//! docs/reference/commands.md is what `dualgrain manual` prints.

use crate::committed::assert_is;
use crate::program::{dualgrain, scratch, stdout, text};

const PAGE: &str = "docs/reference/commands.md";

fn manual() -> String {
    let output = dualgrain(&["manual"]);
    assert_eq!(output.status.code(), Some(0));
    stdout(&output)
}

#[test]
fn the_page_of_commands_is_the_programs_manual() {
    assert_is(PAGE, &manual());
}

#[test]
fn every_command_has_a_section_and_a_man_page() {
    let folder = scratch("book", "man");
    let output = dualgrain(&["manual", "--man", text(&folder)]);
    assert_eq!(output.status.code(), Some(0));
    let manual = manual();
    let names: Vec<&str> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("## dualgrain "))
        .collect();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        let page = folder.join(format!("dualgrain-{}.1", name.replace(' ', "-")));
        let text =
            std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".SH SYNOPSIS"), "{name}: {text}");
    }
}

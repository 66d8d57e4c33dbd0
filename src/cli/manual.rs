//! The manual: every command as clap knows it, as a page of Markdown (docs/reference/commands.md is this page) or as man pages.

use std::fmt::Write;

use clap::{Arg, Command};

/// Above everything.
const HEAD: &str = "# Commands\n\nEvery command with all its options, as `dualgrain manual` prints them. \
    `dualgrain COMMAND --help` says the same about one.\n\n| command | |\n|---|---|\n";

/// What is said of one command.
struct Section {
    /// `dualgrain bench serve`.
    name: String,
    about: String,
    usage: String,
    arguments: Vec<Argument>,
    /// Below the options: an example, and more.
    after: String,
}

struct Argument {
    /// How it is typed: `-p, --prompt-tokens <COUNT>`.
    spelling: String,
    /// What it does; then its values and its default, a line each.
    lines: Vec<String>,
    is_global: bool,
}

/// All commands as a page of Markdown.
pub fn markdown(root: Command) -> String {
    let sections = sections(root);
    let mut page = HEAD.to_owned();
    for Section { name, about, .. } in &sections {
        if let [_, verb] = name.split(' ').collect::<Vec<_>>()[..] {
            let _ = writeln!(page, "| [{verb}](#dualgrain-{verb}) | {} |", in_table(about));
        }
    }
    for section in &sections {
        section.write_markdown(&mut page);
    }
    page
}

/// A man page for each command: the name of its file, and its text.
pub fn man_pages(root: Command) -> Vec<(String, String)> {
    let pages = sections(root).into_iter();
    pages
        .map(|section| (section.name.replace(' ', "-") + ".1", section.man()))
        .collect()
}

/// The program itself, then every command with those below it.
fn sections(mut root: Command) -> Vec<Section> {
    root.build();
    let mut sections = Vec::new();
    collect(&root, "", &mut sections);
    sections
}

fn collect(command: &Command, above: &str, sections: &mut Vec<Section>) {
    let name = format!("{above}{}", command.get_name());
    let below = format!("{name} ");
    sections.push(Section::new(command, name));
    for verb in command.get_subcommands() {
        if verb.get_name() != "help" && !verb.is_hide_set() {
            collect(verb, &below, sections);
        }
    }
}

impl Section {
    fn new(command: &Command, name: String) -> Self {
        let is_shown = |argument: &&Arg| {
            !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str())
        };
        let usage = command.clone().render_usage().to_string();
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        Self {
            name,
            about: words(command.get_long_about().or(command.get_about())),
            usage: usage.trim_start_matches("Usage: ").replace("\n      ", "\n"),
            arguments: command
                .get_arguments()
                .filter(is_shown)
                .map(Argument::new)
                .collect(),
            after: after.trim_end().to_owned(),
        }
    }

    /// Whether it is the program itself, whose options are those of every command.
    fn is_root(&self) -> bool {
        !self.name.contains(' ')
    }

    fn write_markdown(&self, page: &mut String) {
        let Self {
            name,
            about,
            usage,
            after,
            ..
        } = self;
        let _ = match self.is_root() {
            true => writeln!(page, "\n## Options of every command"),
            false => writeln!(page, "\n## {name}\n\n{about}\n\n```text\n{usage}\n```"),
        };
        let mut head = "\n| argument | |\n|---|---|\n";
        for Argument { spelling, lines, .. } in self.own_arguments() {
            let _ = writeln!(page, "{head}| `{spelling}` | {} |", in_table(&lines.join("<br>")));
            head = "";
        }
        if !after.is_empty() {
            let _ = writeln!(page, "\n```text\n{after}\n```");
        }
    }

    /// Arguments that not every command has.
    fn own_arguments(&self) -> impl Iterator<Item = &Argument> {
        self.arguments
            .iter()
            .filter(|argument| !argument.is_global || self.is_root())
    }

    fn man(&self) -> String {
        let dashed = self.name.replace(' ', "-");
        let mut page = format!(
            ".TH {dashed} 1\n.SH NAME\n{dashed} \\- {}\n.SH SYNOPSIS\n.nf\n{}\n.fi\n",
            roff(&self.about),
            roff(&self.usage)
        );
        for (index, Argument { spelling, lines, .. }) in self.arguments.iter().enumerate() {
            let head = if index == 0 { ".SH OPTIONS\n" } else { "" };
            let _ = write!(
                page,
                "{head}.TP\n\\fB{}\\fR\n{}\n",
                roff(spelling),
                roff(&lines.join("\n.br\n"))
            );
        }
        if !self.after.is_empty() {
            let _ = write!(page, ".SH NOTES\n.nf\n{}\n.fi\n", roff(&self.after));
        }
        page
    }
}

impl Argument {
    fn new(argument: &Arg) -> Self {
        let mut lines = vec![words(argument.get_long_help().or(argument.get_help()))];
        if argument.get_action().takes_values() {
            lines.extend(values(argument));
            lines.extend(default(argument));
        }
        Self {
            spelling: spelling(argument),
            lines,
            is_global: argument.is_global_set(),
        }
    }
}

fn spelling(argument: &Arg) -> String {
    let short = argument.get_short().map(|letter| format!("-{letter}"));
    let all = argument.get_visible_aliases().unwrap_or_default();
    let long = argument
        .get_long()
        .into_iter()
        .chain(all)
        .map(|name| format!("--{name}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let value = match argument.get_value_names() {
        Some([name, ..]) if argument.get_action().takes_values() => name.to_string(),
        _ => String::new(),
    };
    match (names.is_empty(), value.is_empty()) {
        (true, _) => value,
        (_, true) => names.join(", "),
        _ => format!("{} <{value}>", names.join(", ")),
    }
}

/// The values an option chooses from, with what is said of each.
fn values(argument: &Arg) -> Vec<String> {
    let values = argument.get_possible_values();
    let shown = values.iter().filter(|value| !value.is_hide_set());
    shown
        .map(|value| match value.get_help() {
            Some(help) => format!(
                "`{}`: {}",
                value.get_name(),
                words(Some(help)).trim_end_matches('.')
            ),
            None => format!("`{}`", value.get_name()),
        })
        .collect()
}

fn default(argument: &Arg) -> Option<String> {
    let values: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    (!values.is_empty()).then(|| format!("Default: `{}`", values.join(",")))
}

/// A text of clap's in one line.
fn words(styled: Option<&clap::builder::StyledStr>) -> String {
    let text = styled.map(ToString::to_string).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text in a cell of a table; the line breaks that join lines stay.
fn in_table(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace("&lt;br>", "<br>")
}

/// A text as troff takes it: backslashes and hyphens for themselves, no line that begins with a request but `.br`.
fn roff(text: &str) -> String {
    let text = text
        .replace('\\', "\\\\")
        .replace('-', "\\-")
        .replace('\n', "\n\\&");
    text.replace("\n\\&.br\n\\&", "\n.br\n\\&")
}

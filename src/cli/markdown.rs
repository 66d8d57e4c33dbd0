//! The manual: every command as clap knows it, as a page of Markdown (docs/reference/commands.md is this page).

use std::fmt::Write;

use clap::{Arg, Command};

/// Above everything.
const HEAD: &str = "# Commands\n\nEvery command with all its options, as `dualgrain manual` prints them. \
    `dualgrain COMMAND --help` says the same about one.\n";

/// All commands, those of commands included.
pub fn manual(mut root: Command) -> String {
    root.build();
    let mut page = HEAD.to_owned();
    let _ = write!(page, "\n| command | |\n|---|---|\n");
    for command in verbs(&root) {
        let name = command.get_name();
        let about = text(command.get_about());
        let _ = writeln!(page, "| [{name}](#dualgrain-{name}) | {about} |");
    }
    page += "\n## Options of every command\n";
    page += &table(root.get_arguments().filter(|argument| argument.is_global_set()));
    page += &after(&root);
    verbs(&root).for_each(|command| section(command, "dualgrain", &mut page));
    page
}

/// Commands of a command, without the one that prints help.
fn verbs(command: &Command) -> impl Iterator<Item = &Command> {
    let shown = |command: &&Command| command.get_name() != "help" && !command.is_hide_set();
    command.get_subcommands().filter(shown)
}

fn section(command: &Command, above: &str, page: &mut String) {
    let name = format!("{above} {}", command.get_name());
    let about = text(command.get_long_about().or(command.get_about()));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace("\n      ", "\n");
    let _ = write!(page, "\n## {name}\n\n{about}\n\n```text\n{usage}\n```\n");
    *page += &table(
        command
            .get_arguments()
            .filter(|argument| !argument.is_global_set()),
    );
    *page += &after(command);
    verbs(command).for_each(|command| section(command, &name, page));
}

/// What stands below a command's options.
fn after(command: &Command) -> String {
    let told = command.get_after_help().map(ToString::to_string);
    told.map_or_else(String::new, |told| {
        format!("\n```text\n{}\n```\n", told.trim_end())
    })
}

fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let shown = |argument: &&Arg| {
        !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str())
    };
    let rows: String = arguments.filter(shown).map(row).collect();
    match rows.is_empty() {
        true => rows,
        false => format!("\n| argument | |\n|---|---|\n{rows}"),
    }
}

fn row(argument: &Arg) -> String {
    let help = text(argument.get_long_help().or(argument.get_help()));
    format!(
        "| `{}` | {help}{}{} |\n",
        spelling(argument),
        values(argument),
        default(argument)
    )
}

/// How an argument is typed: `-p, --prompt-tokens <COUNT>`.
fn spelling(argument: &Arg) -> String {
    let short = argument.get_short().map(|letter| format!("-{letter}"));
    let all = argument.get_visible_aliases().unwrap_or_default();
    let long = argument
        .get_long()
        .into_iter()
        .chain(all)
        .map(|name| format!("--{name}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let takes = argument.get_action().takes_values();
    let value = match argument.get_value_names() {
        Some([name, ..]) if takes && names.is_empty() => name.to_string(),
        Some([name, ..]) if takes => format!(" <{name}>"),
        _ => String::new(),
    };
    names.join(", ") + &value
}

/// The values an option chooses from, with what is said of each.
fn values(argument: &Arg) -> String {
    if !argument.get_action().takes_values() {
        return String::new();
    }
    let values = argument.get_possible_values();
    let named = values.iter().filter(|value| !value.is_hide_set()).map(|value| {
        let help = value
            .get_help()
            .map(|help| format!(": {}", text(Some(help)).trim_end_matches('.')));
        format!("<br>`{}`{}", value.get_name(), help.unwrap_or_default())
    });
    named.collect()
}

fn default(argument: &Arg) -> String {
    let values = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy());
    let values: Vec<_> = values.collect();
    match argument.get_action().takes_values() && !values.is_empty() {
        true => format!("<br>Default: `{}`", values.join(",")),
        false => String::new(),
    }
}

/// A text of clap's in one line of a table.
fn text(styled: Option<&clap::builder::StyledStr>) -> String {
    let words = styled.map(ToString::to_string).unwrap_or_default();
    let words: Vec<&str> = words.split_whitespace().collect();
    words.join(" ").replace('|', "\\|").replace('<', "&lt;")
}

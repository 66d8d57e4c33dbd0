//! The `dualgrain` command. Verbs only glue the libraries together: `run` has those that open a model folder, `measure` those
//! that look at this machine, `decide` those that compute from measurements; `cli` is what a user types and sees.
#![forbid(unsafe_code)]

mod cli;
mod decide;
mod measure;
mod run;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use cli::arguments::{BenchGemm, BenchProduct, Cli, Verb};
use cli::terminal::{self, Terminal};
use cli::{exit_code, interruption, manual};
use decide::{cost, fit, predict, report, select};
use measure::{doctor, machine, profile, traffic};
use run::{bench, chat, eval, export, generate, inspect, pull, quantize, quickstart, serve};

fn main() -> ExitCode {
    // clap prints usage errors itself and exits with 2.
    let cli = Cli::from_arg_matches(&with_negative_numbers(Cli::command()).get_matches());
    let cli = cli.unwrap_or_else(|error| error.exit());
    let terminal = Terminal::new(cli.common.json, cli.common.verbose);
    match run(cli, &terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.finish();
            terminal::tell(&format!("error: {}", sentence(&error)));
            match interruption::was_interrupted() {
                true => ExitCode::from(exit_code::INTERRUPTED),
                false => ExitCode::from(exit_code::FAILED),
            }
        }
    }
}

/// Takes `-1` for the value of an option, so that what is said of it tells what the option takes.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| match argument.get_action().takes_values() {
        true if !argument.is_allow_hyphen_values_set() => argument.allow_negative_numbers(true),
        _ => argument,
    });
    command.mut_subcommands(with_negative_numbers)
}

/// The causes of an error in one line; a cause that the one before it quotes already is left out.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run(mut cli: Cli, terminal: &Terminal) -> anyhow::Result<()> {
    if let Verb::Eval(_) | Verb::Inspect(_) | Verb::Doctor | Verb::Fit(_) | Verb::Select(_) = cli.verb {
        interruption::exit_on_interrupt()?;
    }
    // `bench` has numbers of threads of its own; the others tell what so many threads would take, here or elsewhere.
    if !matches!(
        cli.verb,
        Verb::Bench(_) | Verb::Predict(_) | Verb::Select(_) | Verb::Cost(_)
    ) {
        machine::warn_of_too_many_threads(cli.common.threads, terminal);
    }
    pull::find_models(&mut cli.verb, terminal)?;
    let common = &cli.common;
    match &cli.verb {
        Verb::Bench(options) => match &options.product {
            Some(BenchProduct::Gemm(options)) => bench_gemm(options, terminal),
            Some(BenchProduct::Serve(options)) => traffic::run(options, terminal),
            None => bench::run(options, common, terminal),
        },
        Verb::Eval(options) => eval::run(options, common, terminal),
        Verb::Generate(options) => generate::run(options, common, terminal),
        Verb::Chat(_) if common.json => refuse_chat_in_json(),
        Verb::Chat(options) => chat::run(options, common, terminal),
        Verb::Serve(options) => serve::run(options, common, terminal),
        Verb::Inspect(options) => inspect::run(options, terminal),
        Verb::Pull(options) => pull::run(options, terminal),
        Verb::Quickstart(options) => quickstart::run(options, common, terminal),
        Verb::Quantize(options) => quantize::run(options, common, terminal),
        Verb::Export(options) => export::run(options, terminal),
        Verb::Fit(options) => fit::run(options, common, terminal),
        Verb::Select(options) => select::run(options, common, terminal),
        Verb::Profile(options) => profile::run(options, common, terminal),
        Verb::Predict(options) => predict::run(options, common, terminal),
        Verb::Cost(options) => cost::run(options, common, terminal),
        Verb::Report(options) => report::run(options, common, terminal),
        Verb::Doctor => doctor::run(common, terminal),
        Verb::Completions { shell } => completions(*shell),
        Verb::Manual { man } => print_manual(man.as_deref()),
    }
}

#[cfg(feature = "cuda")]
fn bench_gemm(options: &BenchGemm, terminal: &Terminal) -> anyhow::Result<()> {
    interruption::exit_on_interrupt()?;
    measure::gemm::run(options, terminal)
}

#[cfg(not(feature = "cuda"))]
fn bench_gemm(_: &BenchGemm, _: &Terminal) -> anyhow::Result<()> {
    anyhow::bail!("this program was built without the feature `cuda`")
}

fn refuse_chat_in_json() -> ! {
    let words = "chat is a conversation and has no --json; use generate --json";
    Cli::command().error(ErrorKind::ArgumentConflict, words).exit()
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dualgrain", &mut script);
    terminal::write_stdout(&String::from_utf8_lossy(&script))
}

/// All commands as Markdown on the standard output, or a man page of each in `folder`.
fn print_manual(folder: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = folder else {
        return terminal::write_stdout(&manual::markdown(Cli::command()));
    };
    let pages = manual::man_pages(Cli::command()).into_iter();
    let mut write = pages.map(|(name, text)| std::fs::write(folder.join(name), text));
    let written = std::fs::create_dir_all(folder).and_then(|()| write.try_for_each(|page| page));
    written.with_context(|| format!("{}: man pages could not be written", folder.display()))
}

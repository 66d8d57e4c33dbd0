//! The `dualgrain` command: arguments, exit codes, and one file per verb that only glues the libraries together.
#![forbid(unsafe_code)]

mod arguments;
mod bench;
mod chat;
mod doctor;
mod eval;
mod folder;
mod generate;
mod inspect;
mod machine;
mod plan;
mod quantize;
mod quickstart;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use arguments::{Cli, Verb};
use terminal::Terminal;

/// The work failed.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    // clap prints usage errors itself and exits with 2.
    let cli = Cli::parse();
    let terminal = Terminal::new(cli.common.json, cli.common.verbose);
    match run(cli, &terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.finish();
            eprintln!("error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(cli: Cli, terminal: &Terminal) -> anyhow::Result<()> {
    match cli.verb {
        Verb::Bench(options) => bench::run(&options, &cli.common, terminal),
        Verb::Eval(options) => eval::run(&options, &cli.common, terminal),
        Verb::Generate(options) => generate::run(&options, &cli.common, terminal),
        Verb::Chat(options) => chat::run(&options, &cli.common, terminal),
        Verb::Inspect(options) => inspect::run(&options, terminal),
        Verb::Quickstart(options) => quickstart::run(&options, &cli.common, terminal),
        Verb::Quantize(options) => quantize::run(&options, &cli.common, terminal),
        Verb::Doctor => doctor::run(&cli.common, terminal),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "dualgrain", &mut std::io::stdout());
            Ok(())
        }
    }
}

//! `cost`: what a language model will cost on a machine, from config.json and a fitted model alone.

mod question;
mod text;

use anyhow::{Context, Result};
use dualgrain::cost::{network, workload};
use dualgrain_perf::Model;
use dualgrain_perf::cost::{self, Prices};

use crate::cli::arguments::{Common, Cost as Options};
use crate::cli::output_file;
use crate::cli::terminal::Terminal;
use crate::decide::cost::question::{asked, read_config};
use crate::decide::cost::text::text;
use crate::decide::request::{by, name_other_cpu, shipped};

/// Prices the model and prints the answer.
pub fn run(options: &Options, common: &Common, terminal: &Terminal) -> Result<()> {
    if let Some(path) = &options.html {
        output_file::check(path, output_file::PAGE, options.replacing.replace)?;
    }
    let model = fitted(options)?;
    let (config, name) = read_config(&options.model)?;
    let network = network(&config, name);
    let request = workload(asked(options), &config, model.machine().kind);
    let threads = (common.threads > 0).then_some(common.threads);
    let prices = &mut Prices::of_model(&model, request.group_size, by(options.by), threads)?;
    let cost = cost::cost(&network, model.machine(), &request, prices)?;
    if let Some(path) = &options.html {
        std::fs::write(path, cost::html(&cost)).with_context(|| format!("writing {}", path.display()))?;
        terminal.say(&format!("pictures in {}", path.display()));
    }
    name_other_cpu(&model, terminal);
    terminal.result(&cost, &text(&cost))
}

fn fitted(options: &Options) -> Result<Model> {
    Ok(match &options.fitted {
        Some(path) => Model::read(path)?,
        None => shipped(&options.device)?,
    })
}

//! What the options that several verbs share ask for: a fitted model, a product, what is to be least.

use anyhow::{Result, bail, ensure};
use dualgrain_perf::{
    KernelConfig, Layout, MachineKind, Model, Objective, Prediction, Product, group_number,
};

use crate::cli::arguments::{Aim, Run};
use crate::cli::terminal::Terminal;
use crate::measure::machine;

/// The model that was asked for.
pub fn model(run: &Run) -> Result<Model> {
    Ok(match &run.model {
        Some(path) => Model::read(path)?,
        None => shipped(&run.device)?,
    })
}

/// The model that comes with the program for a machine.
pub fn shipped(device: &str) -> Result<Model> {
    Ok(dualgrain::cost::shipped(device)?)
}

/// Says whose prices they are where they come from another kind of CPU than the one at hand.
pub fn name_other_cpu(model: &Model, terminal: &Terminal) {
    let measured = model.machine();
    let here = machine::cpu_name().unwrap_or_else(|| "an unknown CPU".to_owned());
    if measured.kind == MachineKind::Cpu && measured.name != here {
        terminal.say(&format!(
            "measured on {} cores of {}, not on this machine ({} of {here}); `dualgrain profile --device cpu --out DATA`, `dualgrain fit DATA --out \
             CPU.dgm` and `--model CPU.dgm` give its own figures",
            measured.num_units,
            measured.name,
            machine::cores()
        ));
    }
}

/// Those of a CPU's configurations that run on as many threads as `--threads` says; all where it says nothing.
pub fn of_threads<'a>(
    model: &Model,
    mut ranked: Vec<(&'a KernelConfig, Prediction)>,
    threads: usize,
) -> Result<Vec<(&'a KernelConfig, Prediction)>> {
    if threads > 0 && model.machine().kind == MachineKind::Cpu {
        ranked.retain(|(facts, _)| facts.threads == threads);
        ensure!(
            !ranked.is_empty(),
            "--threads {threads}: nothing of this was measured with so many threads on {}",
            model.machine().name
        );
    }
    Ok(ranked)
}

/// The product that was asked for.
pub fn product(run: &Run, (m, n, k): (usize, usize, usize)) -> Result<Product<'_>> {
    let layout = match run.layout.as_str() {
        "nn" => Layout::Nn,
        "nt" => Layout::Nt,
        "tn" => Layout::Tn,
        "tt" => Layout::Tt,
        other => bail!("--layout {other}: expected nn, nt, tn or tt"),
    };
    Ok(Product {
        group_size: group_number::group_size(run.group_size.parse()?),
        layout,
        alpha: run.alpha,
        beta: run.beta,
        output: run.output.as_deref().unwrap_or(""),
        ..Product::new(m, n, k)
    })
}

/// What is to be least.
pub fn by(aim: Aim) -> Objective {
    match aim {
        Aim::Time => Objective::Time,
        Aim::Energy => Objective::Energy,
        Aim::Edp => Objective::Edp,
    }
}

/// The same in words.
pub fn by_name(aim: Aim) -> &'static str {
    match aim {
        Aim::Time => "time",
        Aim::Energy => "energy",
        Aim::Edp => "energy times time",
    }
}

//! The threads of a CPU. A run keeps to one number of threads, so every product is priced with as many.

use crate::error::PerfError;
use crate::machine::{Machine, MachineKind};
use crate::predict::Model;

/// How many threads products are priced with: those asked for, or the most that were measured; `None` on a GPU.
pub(crate) fn of_model(model: &Model, asked: Option<usize>) -> Result<Option<usize>, PerfError> {
    if model.machine().kind == MachineKind::Gpu {
        return Ok(None);
    }
    let measured = measured(model);
    match asked {
        Some(threads) if !measured.contains(&threads) => {
            let measured: Vec<_> = measured.iter().map(usize::to_string).collect();
            Err(PerfError::Shape {
                what: "--threads",
                expected: format!(
                    "one of the numbers of threads that were measured on {}: {}",
                    model.machine().name,
                    measured.join(", ")
                ),
                got: threads.to_string(),
            })
        }
        _ => Ok(asked.or(measured.last().copied())),
    }
}

/// The numbers of threads that were measured, increasing.
fn measured(model: &Model) -> Vec<usize> {
    let configs = model.kernels().flat_map(|kernel| model.configs(kernel));
    let mut threads: Vec<usize> = configs.map(|facts| facts.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    threads
}

/// The machine with as many of its threads: what its cores reach together in proportion, what a thread takes to wake as it is.
pub(crate) fn limited(machine: &Machine, threads: usize) -> Machine {
    let share = (threads as f64 / machine.num_units.max(1) as f64).min(1.0);
    let mut limited = machine.clone();
    for rate in [
        &mut limited.read_bytes_per_s,
        &mut limited.int8_ops_per_s,
        &mut limited.half_ops_per_s,
        &mut limited.float_ops_per_s,
    ] {
        *rate *= share;
    }
    if let Some(rates) = &mut limited.small_ops {
        rates.prompt_attention_ops_per_s *= share;
        rates.decode_attention_ops_per_s *= share;
        rates.decode_cache_bytes_per_s *= share;
        rates.bytes_per_s *= share;
    }
    limited
}

/// What is assumed of fewer threads than the ceilings were measured with.
pub(crate) fn assumption(machine: &Machine, threads: usize) -> Option<String> {
    (threads < machine.num_units).then(|| {
        format!(
            "Products are priced as measured with {threads} of {} threads; ceilings and rates behind the estimates were measured with \
             all of them and are taken in proportion.",
            machine.num_units
        )
    })
}

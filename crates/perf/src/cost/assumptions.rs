//! The sentences that say what an answer assumes.

use super::workload::Workload;
use super::{phase, threads};
use crate::machine::{Machine, MachineKind};

pub(crate) fn assumptions(
    machine: &Machine,
    limited: &Machine,
    workload: &Workload,
    threads: Option<usize>,
) -> Vec<String> {
    let runs = match machine.kind {
        MachineKind::Gpu => {
            "Costs on a GPU are those of its operations as they were measured on a card of that kind, put together."
        }
        MachineKind::Cpu => "Costs are those of the products as measured on that machine, put together.",
    };
    let mut all = vec![
        runs.to_owned(),
        format!(
            "All prompts start together and are read in steps of at most {} tokens; logits are computed for the last token of each \
             prompt. The last step of a prompt gives the first token, every later one takes a step of its own.",
            workload.step_tokens
        ),
        "Intervals of products are the fitted model's 90 % intervals. In sums the errors of one kernel are taken as fully \
         correlated (they add up), those of different kernels as independent (root of the sum of squares)."
            .to_owned(),
        phase::assumption(limited, workload),
    ];
    all.extend(threads.and_then(|threads| threads::assumption(machine, threads)));
    all
}

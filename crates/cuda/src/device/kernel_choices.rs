//! Which kernel runs each operation on a card, and why: what `doctor` shows. Nothing is compiled or run for it.

use dualgrain_format::{GemmShape, GroupSize};

use crate::attention::prompt_kernel;
use crate::driver::GpuInfo;
use crate::gemm::{GemmProblem, Output, SelectionTable, select};
use crate::linear::{FloatKernel, W8Kernel};

/// Tokens of a step that are shown: decoding one sequence and many, and a prompt.
const TOKENS: [usize; 5] = [1, 16, 64, 256, 2_048];
/// Size of a head, and query heads that share a key.
const HEADS: [(usize, usize); 2] = [(128, 4), (256, 2)];
/// Sides of the layer that is shown.
const N: usize = 4_096;
const K: usize = 4_096;

/// The kernel of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelChoice {
    /// The operation, with the sizes that decide.
    pub operation: String,
    /// The kernel, with its configuration where it has one.
    pub kernel: String,
    /// Why this one.
    pub why: &'static str,
}

/// The kernels that a card runs models with. An operation that no kernel runs there says so.
pub fn kernel_choices(info: &GpuInfo) -> Vec<KernelChoice> {
    let mut choices = Vec::new();
    choices.extend(TOKENS.map(|m| w4_product(info, m)));
    choices.extend(TOKENS.map(|m| product("8-bit", m, W8Kernel::choose(m, N, info.num_sms).name())));
    if info.capability == (9, 0) {
        choices.push(KernelChoice {
            operation: "8-bit output layer, from 17 tokens".to_owned(),
            kernel: "gemm_w8a8_sm90".to_owned(),
            why: "many rows: warp groups go from tile to tile",
        });
    }
    choices.extend(TOKENS.map(|m| product("float", m, FloatKernel::choose(m, N, info.num_sms).name())));
    choices.extend(attention(info));
    choices.extend(rows(info));
    choices
}

fn attention(info: &GpuInfo) -> Vec<KernelChoice> {
    let of_prompts = HEADS.map(|(head_dim, group)| {
        let kernel = prompt_kernel(info, head_dim, group);
        KernelChoice {
            operation: format!("attention of prompts, heads of {head_dim}, {group} a key"),
            kernel: kernel.to_owned(),
            why: match kernel {
                "attention_prompt" => "an INT8 cache: tiles of consecutive tokens in the matrix units",
                "attention_prompt_sm90" => "an INT8 cache: tiles of consecutive tokens by warp groups",
                _ => "token by token: a tile does not fit",
            },
        }
    });
    let mut all = vec![KernelChoice {
        operation: "attention of single tokens".to_owned(),
        kernel: "attention_spans".to_owned(),
        why: "spans of 512 positions, each a thread block",
    }];
    all.extend(of_prompts);
    all.push(KernelChoice {
        operation: "attention of prompts over a float cache".to_owned(),
        kernel: "attention_spans".to_owned(),
        why: "token by token: tiles are for INT8 caches",
    });
    all
}

fn w4_product(info: &GpuInfo, m: usize) -> KernelChoice {
    let problem = GemmProblem {
        shape: GemmShape { m, n: N, k: K },
        group: GroupSize::Along(128),
        output: Output::F32,
    };
    let is_measured = SelectionTable::of(info).is_some();
    KernelChoice {
        operation: operation("4-bit", m),
        kernel: select(&problem, info).map_or_else(
            || "none".to_owned(),
            |config| format!("{} {config}", config.variant.kernel()),
        ),
        why: match is_measured {
            true => "the fastest by this kind of card's measurements",
            false => "the fastest by formula: this kind of card was not measured",
        },
    }
}

fn product(weights: &str, m: usize, kernel: &'static str) -> KernelChoice {
    KernelChoice {
        operation: operation(weights, m),
        kernel: kernel.to_owned(),
        why: "by tokens and multiprocessors",
    }
}

fn operation(weights: &str, m: usize) -> String {
    format!("{weights} product of {N} x {K}, {m} tokens")
}

fn rows(info: &GpuInfo) -> Vec<KernelChoice> {
    let clusters = info.capability >= (9, 0);
    let choice = |operation: &str, kernel: &str, why| KernelChoice {
        operation: operation.to_owned(),
        kernel: kernel.to_owned(),
        why,
    };
    let mut rows = match clusters {
        true => vec![
            choice(
                "gate and quantization, rows to 32,000",
                "gate_quantize",
                "clusters of thread blocks share a row",
            ),
            choice("sampling", "sample", "clusters of thread blocks share a row"),
        ],
        false => vec![
            choice(
                "SwiGLU and quantization",
                "quantize_per_token",
                "a thread block takes a row: no clusters here",
            ),
            choice(
                "sampling",
                "sample",
                "a thread block takes a row: no clusters here",
            ),
        ],
    };
    rows.push(match info.overlaps_launches() {
        true => choice(
            "launches of a decoding step",
            "a recorded graph",
            "each starts while the one before it ends",
        ),
        false => choice(
            "launches of a decoding step",
            "a recorded graph",
            "one after the other: no overlap here",
        ),
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_kernel_on_every_kind_of_card() {
        for capability in [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)] {
            let info = GpuInfo {
                capability,
                ..GpuInfo::h200()
            };
            let choices = kernel_choices(&info);
            assert!(choices.len() > 3 * TOKENS.len());
            for choice in choices {
                assert_ne!(choice.kernel, "none", "{capability:?}: {}", choice.operation);
            }
        }
    }

    #[test]
    fn hopper_takes_its_own_kernels() {
        let of = |capability| {
            let info = GpuInfo {
                capability,
                ..GpuInfo::h200()
            };
            kernel_choices(&info)[4].kernel.clone()
        };
        assert!(of((9, 0)).starts_with("gemm_w4a8_sm90"), "{}", of((9, 0)));
        assert!(of((8, 0)).starts_with("gemm_w4a8_sm80"), "{}", of((8, 0)));
    }
}

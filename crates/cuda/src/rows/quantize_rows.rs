//! Which rows a block holds in registers while it quantizes them, and how many threads that takes.

use super::quantized_input::{Before, Input};
use crate::compiler::Source;
use crate::cu;

/// Neighbours of a thread, as in cu/rows/quantize_rows.cu.
const EACH: usize = 4;
/// Parts of a row that RMSNorm waits for one after the other, each of whole steps of its chains.
const PARTS: usize = 4;
/// Threads of a step.
const STEP: usize = 128;
/// Up to so many rows fewer threads win: a launch ends sooner the fewer instructions a multiprocessor has left at its end.
const FEW_ROWS: usize = 8;
/// Beyond so many rows RMSNorm alone is faster in the blocks of quantize_per_token, which are smaller.
const MOST_NORMED: usize = 1_024;

/// Variants of the kernel: how many times [`EACH`] elements a thread holds, and how many threads there may be.
const VARIANTS: [Variant; 2] = [
    Variant {
        rounds: 1,
        most_threads: 1_024,
    },
    Variant {
        rounds: 4,
        most_threads: 640,
    },
];

#[derive(Debug, Clone, Copy)]
struct Variant {
    rounds: usize,
    most_threads: usize,
}

/// Blocks for rows that are held in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldRows {
    /// Which of [`quantize_rows_sources`].
    pub variant: usize,
    pub threads: usize,
    pub shared_bytes: usize,
}

impl HeldRows {
    /// For `m` rows of `k` elements and `row_bytes` codes on a card of so many multiprocessors; `None` where they are not held.
    pub fn new(before: Before, (m, k): (usize, usize), row_bytes: usize, num_sms: usize) -> Option<Self> {
        if !k.is_multiple_of(EACH) || (before == Before::RmsNorm && m > MOST_NORMED) {
            return None;
        }
        // A row for each multiprocessor: many threads load it sooner. More of them: smaller blocks overlap.
        let spread = (FEW_ROWS + 1..=num_sms).contains(&m);
        let order = if spread { [0, 1] } else { [1, 0] };
        order.into_iter().find_map(|variant| {
            let Variant { rounds, most_threads } = VARIANTS[variant];
            let step = STEP * PARTS / rounds;
            let threads = row_bytes.div_ceil(rounds * EACH).next_multiple_of(step);
            let held = Self {
                variant,
                threads,
                shared_bytes: match before.norms() {
                    true => rounds * threads * EACH * size_of::<f32>(),
                    false => 0,
                },
            };
            (threads <= most_threads).then_some(held)
        })
    }
}

/// The texts and macros of `quantize_rows`, with how many threads each may have; none for kinds of rows that are not held.
pub fn quantize_rows_sources(before: Before, input: Input) -> Vec<(Source, usize)> {
    let added = before == Before::AddRmsNorm;
    if (input != Input::F32 && !added) || before == Before::SwiGlu {
        return Vec::new();
    }
    let source = |Variant { rounds, most_threads }| {
        let source = Source {
            name: "quantize_rows",
            text: cu::QUANTIZE_ROWS,
            headers: cu::MODEL_HEADERS,
            macros: vec![
                ("BEFORE", before.code()),
                ("ADDED", input.code()),
                ("ROUNDS", rounds as i64),
            ],
        };
        (source, most_threads)
    };
    VARIANTS.map(source).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_cover_a_row_in_whole_steps() {
        for before in [Before::Nothing, Before::RmsNorm] {
            for m in [1, 64, 1_000] {
                for k in (4..=10_240usize).step_by(4) {
                    let row_bytes = k.next_multiple_of(16);
                    let held = HeldRows::new(before, (m, k), row_bytes, 132).expect("a short row");
                    let Variant { rounds, most_threads } = VARIANTS[held.variant];
                    assert!(held.threads <= most_threads, "{k}: {held:?}");
                    assert!(held.threads * rounds * EACH >= row_bytes, "{k}: {held:?}");
                    assert!(held.shared_bytes <= 48 << 10, "{k}: {held:?}");
                }
            }
        }
        assert_eq!(HeldRows::new(Before::RmsNorm, (2_048, 4_096), 4_096, 132), None);
        assert_eq!(HeldRows::new(Before::Nothing, (1, 4_098), 4_112, 132), None);
        assert_eq!(HeldRows::new(Before::Nothing, (1, 10_244), 10_256, 132), None);
    }
}

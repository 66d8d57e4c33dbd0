//! What other 4-bit formats compute, for comparison: group scales that are floats, so that the sums of each group leave the
//! tensor cores, become floats and are scaled before they meet. `gemm_w4f_sm90` is `gemm_w4a8_sm90` compiled that way.
//!
//! It is given what can be given: zero points of 8 throughout (cheaper to unpack than any), f16 scales in the bytes that
//! group scale and zero point take otherwise, no token sums. Its sums follow `naive::gemm_w4f` in a fixed order.

use dualgrain_format::GroupSize;

use super::gemm_w4a8_sm90::GemmSm90;
use crate::gemm::operands::BLOCK_K;
use crate::gemm::problem::Output;

/// Blocks of a slot of its ring.
const SLOT_BLOCKS: usize = 2;

/// Whether a size is compiled with these: groups of 128, float outputs, and registers for both kinds of sums.
pub(crate) fn exists(gemm: &GemmSm90, group: GroupSize, output: Output) -> bool {
    let crowded = gemm.warp_groups > 2 && gemm.tile_m > 16 && output.size_bytes() == 4;
    group == GroupSize::Along(BLOCK_K) && output != Output::Sums && gemm.exists(group, output) && !crowded
}

/// Column at which a size's second part of K begins; `None` when one CTA does all of K, or the first part is empty.
pub(crate) fn second_part(gemm: &GemmSm90, k: usize) -> Option<usize> {
    if gemm.split_k < 2 {
        return None;
    }
    let slots = k.div_ceil(BLOCK_K).div_ceil(SLOT_BLOCKS);
    Some(slots / 2 * SLOT_BLOCKS * BLOCK_K).filter(|&cut| cut > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_part_begins_at_a_slot() {
        let [whole, halves] = [1, 2].map(|split_k| GemmSm90 {
            tile_m: 16,
            warp_groups: 3,
            subtiles: 1,
            cluster: 1,
            split_k,
        });
        assert_eq!(second_part(&whole, 4_096), None);
        assert_eq!(second_part(&halves, 4_096), Some(2_048));
        assert_eq!(second_part(&halves, 1_000), Some(512));
        assert_eq!(second_part(&halves, 129), None);
    }
}

//! What other 4-bit formats compute, for comparison: group scales that are floats, so that the sums of each group leave the
//! tensor cores, become floats and are scaled before they meet. `gemm_w4f_sm90` is `gemm_w4a8_sm90` compiled that way.
//!
//! It is given what can be given: zero points of 8 throughout (cheaper to unpack than any), f16 scales in the bytes that
//! group scale and zero point take otherwise, no token sums. Its sums follow `naive::gemm_w4f` in a fixed order.

use dualgrain_format::QuantizedLinear;
use half::f16;

use super::config::{Output, Variant};
use super::gemm_w4a8_sm90::GemmSm90;
use crate::error::CudaError;
use crate::gemm::operands::{BLOCK_K, BLOCK_N, GroupLength, pack, replace_scale};

/// Blocks of a slot of its ring.
const SLOT_BLOCKS: usize = 2;

const fn sized(tile_m: usize, warp_groups: usize, cluster: usize, split_k: usize) -> Variant {
    Variant::FloatScales(GemmSm90 {
        tile_m,
        warp_groups,
        subtiles: 1,
        cluster,
        split_k,
    })
}

/// Every size it is compiled in. Sums as integers and as floats leave no room for more than 160 tokens.
pub const FLOAT_SCALES_TABLE: &[Variant] = &[
    sized(16, 1, 1, 2),
    sized(16, 2, 1, 2),
    sized(16, 3, 1, 1),
    sized(16, 3, 1, 2),
    sized(16, 3, 2, 2),
    sized(64, 1, 1, 2),
    sized(64, 2, 1, 1),
    sized(64, 2, 1, 2),
    sized(64, 3, 1, 1),
    sized(128, 2, 1, 1),
    sized(128, 2, 2, 1),
    sized(160, 2, 2, 1),
];

/// Whether a size is compiled with these: groups of 128, float outputs, and registers for both kinds of sums.
pub(crate) fn exists(gemm: &GemmSm90, group: GroupLength, output: Output) -> bool {
    let crowded = gemm.warp_groups > 2 && gemm.tile_m > 16 && output.size_bytes() == 4;
    group == GroupLength::G128 && output != Output::Sums && gemm.exists(group, output) && !crowded
}

/// Column at which a size's second part of K begins; `None` when one CTA does all of K, or the first part is empty.
pub fn float_scales_cut(variant: &Variant, k: usize) -> Option<usize> {
    let Variant::FloatScales(GemmSm90 { split_k: 2.., .. }) = variant else {
        return None;
    };
    let slots = k.div_ceil(BLOCK_K).div_ceil(SLOT_BLOCKS);
    Some(slots / 2 * SLOT_BLOCKS * BLOCK_K).filter(|&cut| cut > 0)
}

/// The image of a layer's codes with float scales `[N, groups]`.
pub(crate) fn pack_float_scales(layer: &QuantizedLinear, scales: &[f16]) -> Result<Vec<u8>, CudaError> {
    let group = GroupLength::of(layer.group_size())?;
    let k_blocks = layer.k().div_ceil(BLOCK_K);
    let expected = match group {
        GroupLength::G128 => layer.n() * k_blocks,
        _ => 0,
    };
    if scales.is_empty() || scales.len() != expected {
        return Err(CudaError::Length {
            what: "float scales of groups of 128",
            expected: 2 * expected,
            got: size_of_val(scales),
        });
    }
    let mut image = pack(layer)?;
    for row in 0..layer.n().next_multiple_of(BLOCK_N) {
        for group in 0..k_blocks {
            let scale = scales.get(row * k_blocks + group).copied().unwrap_or(f16::ZERO);
            replace_scale(&mut image, k_blocks, (row, group), scale.to_le_bytes());
        }
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_part_begins_at_a_slot() {
        let [whole, halves] = [sized(16, 3, 1, 1), sized(16, 3, 1, 2)];
        assert_eq!(float_scales_cut(&whole, 4_096), None);
        assert_eq!(float_scales_cut(&halves, 4_096), Some(2_048));
        assert_eq!(float_scales_cut(&halves, 1_000), Some(512));
        assert_eq!(float_scales_cut(&halves, 129), None);
    }
}

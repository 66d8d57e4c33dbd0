//! Which kernels exist in which sizes: the one table, and that of the comparison with float group scales.

use super::gemm_w4a8_sm80::GemmSm80;
use super::gemm_w4a8_sm90::GemmSm90;
use super::gemv_w4a8_sm90::GemvSm90;
use super::variant::Variant;

/// Everything that exists.
pub const TABLE: &[Variant] = &[
    gemv(1, 16, 2, 2),
    gemv(1, 16, 4, 1),
    gemv(2, 16, 4, 1),
    gemv(2, 16, 2, 2),
    gemv(4, 16, 4, 1),
    gemv(4, 16, 2, 2),
    gemv(8, 16, 4, 1),
    gemv(8, 16, 2, 2),
    gemv(16, 16, 4, 1),
    gemm(8, [2, 1], 1, 1),
    gemm(16, [1, 1], 1, 1),
    gemm(16, [1, 1], 1, 2),
    gemm(16, [2, 1], 1, 1),
    gemm(16, [2, 1], 1, 2),
    gemm(16, [3, 1], 1, 1),
    gemm(16, [3, 1], 1, 2),
    gemm(16, [3, 1], 2, 2),
    gemm(32, [2, 1], 1, 1),
    gemm(32, [2, 1], 1, 2),
    gemm(32, [3, 1], 1, 1),
    gemm(32, [3, 1], 1, 2),
    gemm(64, [1, 1], 1, 1),
    gemm(64, [1, 1], 1, 2),
    gemm(64, [2, 1], 1, 1),
    gemm(64, [2, 1], 1, 2),
    gemm(64, [3, 1], 1, 1),
    gemm(64, [3, 1], 1, 2),
    gemm(64, [2, 2], 2, 1),
    gemm(128, [1, 1], 2, 1),
    gemm(128, [2, 1], 1, 1),
    gemm(128, [2, 1], 1, 2),
    gemm(128, [2, 2], 2, 1),
    gemm(128, [3, 1], 1, 1),
    gemm(128, [3, 1], 2, 1),
    gemm(256, [2, 1], 1, 1),
    gemm(256, [2, 1], 2, 1),
    gemm(256, [2, 1], 1, 2),
    ampere(16, 1, 8, 2),
    ampere(32, 2, 7, 2),
    ampere(64, 2, 4, 2),
    ampere(128, 2, 3, 2),
    ampere(128, 2, 4, 4),
];

const fn gemm(tile_m: usize, groups: [usize; 2], cluster: usize, split_k: usize) -> Variant {
    Variant::Gemm(GemmSm90 {
        tile_m,
        warp_groups: groups[0],
        subtiles: groups[1],
        cluster,
        split_k,
    })
}

const fn gemv(tile_m: usize, warps: usize, depth: usize, ctas: usize) -> Variant {
    Variant::Gemv(GemvSm90 {
        tile_m,
        warps,
        depth,
        ctas,
    })
}

const fn ampere(tile_m: usize, warps_m: usize, stages: usize, strips: usize) -> Variant {
    Variant::Ampere(GemmSm80 {
        tile_m,
        warps_m,
        stages,
        strips,
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

const fn sized(tile_m: usize, warp_groups: usize, cluster: usize, split_k: usize) -> Variant {
    Variant::FloatScales(GemmSm90 {
        tile_m,
        warp_groups,
        subtiles: 1,
        cluster,
        split_k,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_of_the_table_is_there_twice() {
        for (i, variant) in TABLE.iter().enumerate() {
            assert!(!TABLE[..i].contains(variant), "{variant}");
        }
    }
}

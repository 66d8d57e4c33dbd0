//! Products of experts, beside their texts in cu/experts: each row of a routing with the linear of its expert.

use std::sync::Arc;

use super::expert_table::{ExpertTable, ExpertWeightsKind};
use super::token_routing::TokenRouting;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::{at_least, room};
use crate::gemm::{BLOCK_K, QuantizedTokens};
use crate::linear::FloatKind;

/// Threads of a CTA.
const THREADS: usize = 128;
/// Rows of N of a strip.
const STRIP_ROWS: usize = 16;
/// Rows of N that a CTA for few tokens of 4-bit weights takes when no warps share a strip.
const FEW_N: usize = 64;
/// Blocks of 128 k that each of its warps should have: many, for what a warp begins and ends with takes as long as several; fewer where a
/// multiprocessor has no more than so many warps.
const ENOUGH_BLOCKS: usize = 5;
const LEAST_BLOCKS: usize = 3;
const FEW_WARPS: usize = 16;
/// Bytes behind a row of its codes.
const FEW_GAP: usize = 16;
/// Static shared memory of a kernel that has dynamic one, at most.
const STATIC_BYTES: usize = 8 << 10;
/// Groups of tiles that a launch counts.
const MOST_GROUPS: usize = 65_535;
/// Rows of N of a tile.
const TILE_N: usize = 128;
/// Slots of a tile's ring, and bytes of weights in one, with the most groups.
const STAGES: usize = 4;
const SLOT_WEIGHT_BYTES: usize = 2 * (4_096 + 4 * 128);
/// Columns of a chunk of INT8 weights.
const CHUNK_K: usize = 64;
/// Rows of a strip of float weights.
const FLOAT_STRIP_ROWS: usize = 32;

/// A kernel of these products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExpertKernel {
    /// Weights that it takes.
    pub kind: ExpertWeightsKind,
    /// Rows of a routing that a CTA takes at most.
    pub rows: usize,
}

/// What rows of a product are read from.
#[derive(Clone, Copy)]
pub enum ExpertOperand<'a> {
    /// INT8 activations.
    Int8(&'a QuantizedTokens),
    /// f32 `[.., K]`.
    Float(&'a Buffer),
}

impl ExpertKernel {
    /// Those of weights of one kind, by ascending rows.
    fn of(kind: ExpertWeightsKind) -> impl Iterator<Item = Self> {
        let rows: &[usize] = match kind {
            ExpertWeightsKind::W4 => &[8, 16, 32, 64],
            ExpertWeightsKind::W8 => &[8, 16, 32],
            ExpertWeightsKind::Float(_) => &[8, 32],
        };
        rows.iter().map(move |&rows| Self { kind, rows })
    }

    fn is_tiled(self) -> bool {
        self.kind == ExpertWeightsKind::W4 && self.rows > 16
    }

    /// The kernel's symbol.
    pub fn name(self) -> &'static str {
        match self.kind {
            ExpertWeightsKind::W4 if self.is_tiled() => "gemm_experts_w4a8_tiled",
            ExpertWeightsKind::W4 => "gemm_experts_w4a8_few",
            ExpertWeightsKind::W8 => "gemm_experts_w8a8",
            ExpertWeightsKind::Float(_) => "gemm_experts_float",
        }
    }

    /// Strips of float weights, one feature of each a lane.
    fn strips(self) -> usize {
        if self.rows > 8 { 2 } else { 1 }
    }

    fn source(self) -> Source {
        let (text, macros) = match self.kind {
            ExpertWeightsKind::W4 if self.is_tiled() => (
                cu::GEMM_EXPERTS_W4A8_TILED,
                vec![("TILE_M", self.rows), ("STAGES", STAGES)],
            ),
            ExpertWeightsKind::W4 => (cu::GEMM_EXPERTS_W4A8_FEW, vec![("COLUMNS", self.rows / 8)]),
            ExpertWeightsKind::W8 => (cu::GEMM_EXPERTS_W8A8, vec![("COLUMNS", self.rows / 8)]),
            ExpertWeightsKind::Float(kind) => (
                cu::GEMM_EXPERTS_FLOAT,
                vec![
                    ("BF16", usize::from(kind == FloatKind::Bf16)),
                    ("ROWS", self.rows / 4),
                    ("STRIPS", self.strips()),
                ],
            ),
        };
        Source {
            name: self.name(),
            text,
            headers: cu::EXPERT_HEADERS,
            macros: macros
                .into_iter()
                .map(|(name, value)| (name, value as i64))
                .collect(),
        }
    }

    /// Dynamic shared memory of a CTA for rows of `k`.
    fn shared_bytes(self, k: usize) -> usize {
        match self.kind {
            ExpertWeightsKind::W4 if self.is_tiled() => STAGES * (self.rows * BLOCK_K + SLOT_WEIGHT_BYTES),
            ExpertWeightsKind::W4 => self.rows * (k.next_multiple_of(BLOCK_K) + FEW_GAP),
            ExpertWeightsKind::W8 | ExpertWeightsKind::Float(_) => 0,
        }
    }

    /// Two to this power are the warps that share a strip of products `[n, k]` of `tiles` tiles: as many as leave each of them enough blocks,
    /// fewer of them where that leaves multiprocessors with few warps.
    fn shares(self, (n, k): (usize, usize), tiles: usize, num_sms: usize) -> usize {
        if self.kind != ExpertWeightsKind::W4 || self.is_tiled() {
            return 0;
        }
        let (strips, blocks) = (n.div_ceil(STRIP_ROWS) * tiles, k.div_ceil(BLOCK_K));
        let has_enough = |&shares: &usize| {
            let is_alone = strips << shares <= num_sms * FEW_WARPS;
            let least = if is_alone { LEAST_BLOCKS } else { ENOUGH_BLOCKS };
            blocks >> shares >= least
        };
        [2, 1].into_iter().find(has_enough).unwrap_or(0)
    }

    /// Parts of N that CTAs share, and parts of K as the kernel counts them.
    fn parts(self, (n, k): (usize, usize), shares: usize) -> (usize, usize) {
        match self.kind {
            ExpertWeightsKind::W4 => {
                let rows = match self.is_tiled() {
                    true => TILE_N,
                    false => FEW_N >> shares,
                };
                (n.div_ceil(rows), k.div_ceil(BLOCK_K))
            }
            ExpertWeightsKind::W8 => (n.div_ceil(STRIP_ROWS), k.div_ceil(CHUNK_K)),
            ExpertWeightsKind::Float(kind) => {
                let rows = self.strips() * FLOAT_STRIP_ROWS;
                (n.div_ceil(rows), kind.units(k))
            }
        }
    }
}

/// The texts and macros of all kernels, with the threads of a CTA.
pub fn gemm_experts_sources() -> Vec<(Source, usize)> {
    ExpertWeightsKind::ALL
        .into_iter()
        .flat_map(ExpertKernel::of)
        .map(|kernel| (kernel.source(), THREADS))
        .collect()
}

/// As `ExpertArgs` in cu/experts/experts.cuh.
#[repr(C)]
struct ExpertArgs {
    experts: u64,
    tiles: u64,
    tokens: u64,
    a: u64,
    sums: u64,
    scales: u64,
    d: u64,
    n: i32,
    row: i32,
    k_parts: i32,
    cuts: i32,
    kind: i32,
    shares: i32,
}

/// The kernels that a mixture's weights need, made ready.
pub struct GemmExperts {
    /// By kind, then by ascending rows.
    kernels: Vec<(ExpertKernel, Arc<Kernel>)>,
    num_sms: usize,
    programmatic: bool,
}

impl GemmExperts {
    /// Compiles the kernels for the weights of some experts on a card.
    ///
    /// # Errors
    /// One does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu, experts: &ExpertTable) -> Result<Self, CudaError> {
        let k = experts.shape().1;
        // The kernels' own static shared memory is small.
        let fits = |kernel: &ExpertKernel| kernel.shared_bytes(k) + STATIC_BYTES <= gpu.info().shared_bytes;
        let load = |kernel: ExpertKernel| {
            let loaded = jit.kernel(&kernel.source())?;
            // As much as there is: mixtures of other shapes may have the same kernel.
            if kernel.shared_bytes(k) > 0 {
                loaded.allow_shared(gpu.info().shared_bytes.saturating_sub(STATIC_BYTES))?;
            }
            Ok((kernel, loaded))
        };
        let kinds = experts.kinds().iter();
        let kernels = kinds.flat_map(|&kind| ExpertKernel::of(kind)).filter(fits);
        Ok(Self {
            kernels: kernels.map(load).collect::<Result<_, CudaError>>()?,
            num_sms: gpu.info().num_sms,
            programmatic: gpu.info().overlaps_launches(),
        })
    }

    /// Puts the product of each row of the routing with the linear of its expert on the card's stream: `out` f32 `[rows, N]`. A row reads that
    /// of its token, or its own.
    ///
    /// # Errors
    /// Experts that are not the routing's, buffers too small, sizes the kernels cannot count, or a launch the driver refuses.
    pub fn launch(
        &self,
        out: &Buffer,
        (a, of_tokens): (ExpertOperand<'_>, bool),
        experts: &ExpertTable,
        routing: &TokenRouting,
    ) -> Result<(), CudaError> {
        let (n, k) = experts.shape();
        let rows = routing.num_rows();
        if rows == 0 {
            return Ok(());
        }
        room(
            "experts of a product",
            routing.shape().num_experts,
            experts.num_experts(),
        )?;
        at_least("outputs of experts", 4 * rows * n, out)?;
        let read = if of_tokens { routing.num_tokens() } else { rows };
        let (a, sums, scales, row) = match a {
            ExpertOperand::Int8(tokens) => {
                room("rows that experts read", read, tokens.shape().0)?;
                room("columns that experts read", k, tokens.shape().1)?;
                let (codes, sums, scales) = tokens.addresses();
                (codes, sums, scales, tokens.row_bytes())
            }
            ExpertOperand::Float(x) => {
                at_least("rows that experts read", 4 * read * k, x)?;
                (x.address(), 0, 0, k)
            }
        };
        let (tiles, tokens) = routing.addresses();
        let args = ExpertArgs {
            experts: experts.address(),
            tiles,
            tokens: if of_tokens { tokens } else { 0 },
            a,
            sums,
            scales,
            d: out.address(),
            n: n as i32,
            row: row as i32,
            k_parts: 0,
            cuts: 0,
            kind: 0,
            shares: 0,
        };
        let kinds = experts.kinds().iter();
        kinds.copied().try_for_each(|kind| {
            let is_float = matches!(kind, ExpertWeightsKind::Float(_));
            // Neither kind of weights reads the other kind of activations.
            room(
                "scales of what experts read",
                usize::from(!is_float),
                usize::from(scales != 0),
            )?;
            self.launch_kind(kind, &args, (n, k), routing)
        })
    }

    /// The experts whose weights are of one kind; CTAs of the others leave.
    fn launch_kind(
        &self,
        kind: ExpertWeightsKind,
        args: &ExpertArgs,
        shape: (usize, usize),
        routing: &TokenRouting,
    ) -> Result<(), CudaError> {
        let tile_rows = routing.tile_rows();
        let (kernel, loaded) = self.choose(kind, tile_rows)?;
        let cuts = tile_rows.div_ceil(kernel.rows);
        let tiles = cuts * routing.most_tiles();
        let shares = kernel.shares(shape, tiles, self.num_sms);
        let (n_parts, k_parts) = kernel.parts(shape, shares);
        room("tiles of a product of experts", tiles, MOST_GROUPS)?;
        let mut args = ExpertArgs {
            k_parts: k_parts as i32,
            cuts: cuts.ilog2() as i32,
            kind: kind.code(),
            shares: shares as i32,
            ..*args
        };
        let geometry = Launch {
            grid: [n_parts as u32, tiles as u32, 1],
            threads: THREADS as u32,
            shared_bytes: kernel.shared_bytes(shape.1),
            cluster: 1,
            programmatic: self.programmatic,
        };
        // SAFETY: the kernel's one parameter; output and activations are long enough (checked), the table's weights are of its shape by
        // construction, and tiles and tokens are the routing's, whose rows are below its count.
        unsafe { launch_with(loaded, &geometry, &mut args) }
    }

    /// The kernel for tiles of `tile_rows`: the smallest that takes a tile whole, else the largest, several for a tile.
    fn choose(
        &self,
        kind: ExpertWeightsKind,
        tile_rows: usize,
    ) -> Result<(ExpertKernel, &Kernel), CudaError> {
        let ours = || self.kernels.iter().filter(|(kernel, _)| kernel.kind == kind);
        let whole = ours().find(|(kernel, _)| kernel.rows >= tile_rows);
        let chosen = whole.or_else(|| ours().next_back());
        chosen
            .map(|(kernel, loaded)| (*kernel, &**loaded))
            .ok_or_else(|| CudaError::NoKernel {
                what: format!("experts with {kind:?} weights"),
                capability: "this card".to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<ExpertArgs>(), 80);
    }

    #[test]
    fn rings_fit_the_smallest_shared_memory() {
        let mut kernels = ExpertKernel::of(ExpertWeightsKind::W4);
        assert!(kernels.all(|kernel| kernel.shared_bytes(4_096) + STATIC_BYTES <= 99 << 10));
    }

    #[test]
    fn strips_are_shared_where_rows_are_long_and_warps_few() {
        let kernel = ExpertKernel {
            kind: ExpertWeightsKind::W4,
            rows: 8,
        };
        let shares = |shape, tiles| kernel.shares(shape, tiles, 132);
        assert_eq!(shares((768, 2_048), 8), 2);
        assert_eq!(shares((1_536, 2_048), 8), 1);
        assert_eq!([8, 16].map(|tiles| shares((2_048, 768), tiles)), [1, 0]);
        assert_eq!(shares((1_536, 4_096), 64), 2);
    }
}

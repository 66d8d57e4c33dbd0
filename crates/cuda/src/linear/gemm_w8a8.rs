//! `gemm_w8a8_few` and `gemm_w8a8_tiled`: INT8 weights times INT8 tokens, beside their texts in cu/linear.

use std::sync::Arc;

use super::gemm_w8a8_sm90::GemmW8A8Groups;
use super::linear_w8::LinearW8;
use super::w8_arguments::arguments;
use super::w8_image::STRIP_ROWS;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::count;
use crate::gemm::QuantizedTokens;

/// Threads of a CTA.
const THREADS: usize = 128;
/// Columns of a slot.
const STAGE_K: usize = 128;
/// Rows of a tile.
const TILE_N: usize = 128;
/// A kernel of this product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum W8Kernel {
    /// Weights straight from memory; a CTA takes 8 tokens.
    Few8,
    /// The same, 16 tokens.
    Few16,
    /// The same, 32 tokens.
    Few32,
    /// Tiles of 128 rows by 64 tokens.
    Tiled64,
    /// Tiles of 128 rows by 128 tokens.
    Tiled128,
}

impl W8Kernel {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Few8,
        Self::Few16,
        Self::Few32,
        Self::Tiled64,
        Self::Tiled128,
    ];

    /// The one for `m` tokens and `n` rows on a card with so many multiprocessors. While 128 rows by 32 tokens a multiprocessor
    /// are all there is, reading weights anew for every 32 tokens is faster than tiles; large tiles want to be two a multiprocessor.
    pub fn choose(m: usize, n: usize, num_sms: usize) -> Self {
        let tiles = |tokens: usize| m.div_ceil(tokens) * n.div_ceil(TILE_N);
        match m {
            0..=8 => Self::Few8,
            9..=16 => Self::Few16,
            _ if tiles(32) <= num_sms => Self::Few32,
            _ if m <= 64 || 2 * tiles(128) < 3 * num_sms => Self::Tiled64,
            _ => Self::Tiled128,
        }
    }

    /// Tokens of a CTA.
    fn tokens(self) -> usize {
        match self {
            Self::Few8 => 8,
            Self::Few16 => 16,
            Self::Few32 => 32,
            Self::Tiled64 => 64,
            Self::Tiled128 => 128,
        }
    }

    fn is_tiled(self) -> bool {
        matches!(self, Self::Tiled64 | Self::Tiled128)
    }

    fn shared_bytes(self) -> usize {
        match self.is_tiled() {
            true => self.stages() * STAGE_K * (TILE_N + self.tokens()),
            false => 0,
        }
    }

    /// Slots of the tiled kernel's ring: 96 KiB of them.
    fn stages(self) -> usize {
        if self == Self::Tiled64 { 4 } else { 3 }
    }

    /// The kernel's symbol.
    pub fn name(self) -> &'static str {
        match self.is_tiled() {
            true => "gemm_w8a8_tiled",
            false => "gemm_w8a8_few",
        }
    }

    fn source(self) -> Source {
        let tokens = self.tokens() as i64;
        let (text, macros) = match self.is_tiled() {
            true => (
                cu::GEMM_W8A8_TILED,
                vec![("TILE_M", tokens), ("STAGES", self.stages() as i64)],
            ),
            false => (cu::GEMM_W8A8_FEW, vec![("COLUMNS", tokens / 8)]),
        };
        Source {
            name: self.name(),
            text,
            headers: cu::MODEL_HEADERS,
            macros,
        }
    }

    fn grid(self, m: usize, n: usize) -> [u32; 3] {
        let groups = m.div_ceil(self.tokens());
        match self.is_tiled() {
            true => [(groups * n.div_ceil(TILE_N)) as u32, 1, 1],
            false => [n.div_ceil(STRIP_ROWS) as u32, groups as u32, 1],
        }
    }
}

/// The texts and macros of this product's kernels, with the threads of a CTA.
pub fn gemm_w8a8_sources() -> Vec<(Source, usize)> {
    W8Kernel::ALL
        .iter()
        .map(|kernel| (kernel.source(), THREADS))
        .collect()
}

/// `out = (acc as f32 * ta) * s1 + bias` of INT8 weights and INT8 tokens, made ready.
pub struct GemmW8A8 {
    gpu: Gpu,
    kernels: [Arc<Kernel>; W8Kernel::ALL.len()],
    groups: Option<GemmW8A8Groups>,
}

impl GemmW8A8 {
    /// Compiles the kernels for a card.
    ///
    /// # Errors
    /// One does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        let [a, b, c, d, e] = W8Kernel::ALL.map(|kernel| {
            let loaded = jit.kernel(&kernel.source())?;
            loaded.allow_shared(kernel.shared_bytes())?;
            Ok(loaded)
        });
        Ok(Self {
            gpu: gpu.clone(),
            kernels: [a?, b?, c?, d?, e?],
            groups: GemmW8A8Groups::new(jit, gpu)?,
        })
    }

    /// Puts the product of the first `m` of `tokens` `[.., K]` and `linear` `[N, K]` on the card's stream; `out` f32 `[m, N]`.
    ///
    /// # Errors
    /// Another K, fewer tokens than `m`, an output too small, or a launch the driver refuses.
    pub fn launch(
        &self,
        linear: &LinearW8,
        tokens: &QuantizedTokens,
        m: usize,
        out: &Buffer,
    ) -> Result<(), CudaError> {
        match &self.groups {
            Some(groups) if groups.takes(m, linear.shape()) => self.launch_groups(linear, tokens, m, out),
            _ => {
                let kernel = W8Kernel::choose(m, linear.shape().0, self.gpu.info().num_sms);
                self.launch_with(kernel, linear, tokens, m, out)
            }
        }
    }

    /// Whether [`Self::launch_groups`] can take `m` tokens of `k` columns.
    pub fn has_groups(&self, m: usize, k: usize) -> bool {
        let groups = self.groups.as_ref();
        groups.is_some_and(|groups| groups.has_room(m, k))
    }

    /// [`Self::launch`] by warp groups: the same bits.
    ///
    /// # Errors
    /// As [`Self::launch`].
    ///
    /// # Panics
    /// Where [`Self::has_groups`] says no.
    pub fn launch_groups(
        &self,
        linear: &LinearW8,
        tokens: &QuantizedTokens,
        m: usize,
        out: &Buffer,
    ) -> Result<(), CudaError> {
        let Some(groups) = &self.groups else {
            panic!("no kernel of warp groups on this card")
        };
        match m {
            0 => Ok(()),
            _ => groups.launch(linear, tokens, arguments(linear, tokens, m, out)?),
        }
    }

    /// [`Self::launch`] with a given kernel: all give the same bits.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn launch_with(
        &self,
        kernel: W8Kernel,
        linear: &LinearW8,
        tokens: &QuantizedTokens,
        m: usize,
        out: &Buffer,
    ) -> Result<(), CudaError> {
        if m == 0 {
            return Ok(());
        }
        let mut args = arguments(linear, tokens, m, out)?;
        let grid = kernel.grid(m, linear.shape().0);
        count("CTAs of an INT8 product", grid[0] as usize)?;
        let geometry = Launch {
            grid,
            threads: THREADS as u32,
            shared_bytes: kernel.shared_bytes(),
            cluster: 1,
            programmatic: self.gpu.info().overlaps_launches(),
        };
        // SAFETY: the kernel's one parameter; all buffers are as long as its sizes say (checked, or by construction of
        // the layer and the tokens), and the driver frees none of them before the stream has passed the launch.
        unsafe { launch_with(&self.kernels[kernel as usize], &geometry, &mut args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_chosen_for_some_shape() {
        let chosen = [(1, 64), (16, 64), (64, 4_096), (64, 128_256), (2_048, 4_096)];
        let chosen = chosen.map(|(m, n)| W8Kernel::choose(m, n, 132));
        assert_eq!(chosen, W8Kernel::ALL);
        assert!(W8Kernel::ALL.iter().enumerate().all(|(i, &k)| i == k as usize));
    }
}

//! `gemm_w8a8_sm90`: INT8 weights times INT8 tokens by Hopper's warp groups, beside its text in cu/linear.

use std::sync::Arc;

use super::linear_w8::LinearW8;
use super::w8_arguments::W8Args;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::count;
use crate::gemm::QuantizedTokens;

/// Tokens of a tile, with the stages that shared memory holds beside them.
const TILES: [(usize, usize); 3] = [(64, 8), (128, 6), (256, 4)];
/// Rows of a tile.
const TILE_N: usize = 128;
/// Columns of a stage, and bytes of a token in it.
const STAGE_K: usize = 128;
/// Threads of a CTA: two warp groups, and one that copies.
const THREADS: usize = 384;
/// Threads of a CTA that lays tokens, 16 bytes each.
const LAYING_THREADS: usize = 256;
/// Room for tokens as the kernel takes them: 512 tokens of 16,384 columns.
const LAID_BYTES: usize = 8 << 20;
/// Fewer tokens read weights straight from memory.
const LEAST_TOKENS: usize = 17;

/// As `GroupArgs` in cu/linear/gemm_w8a8_sm90.cu.
#[repr(C)]
struct GroupArgs {
    product: W8Args,
    m_tiles: i32,
    tiles: i32,
    stages: i32,
    rows: i32,
}

/// As `TokenArgs` in cu/linear/w8a8_tokens.cu.
#[repr(C)]
struct TokenArgs {
    codes: u64,
    out: u64,
    m: i32,
    row_bytes: i32,
    rows: i32,
    blocks: i32,
}

/// The product for layers of many rows, as output layers are: thread blocks stay and go from tile to tile.
pub struct GemmW8A8Groups {
    gpu: Gpu,
    lay: Arc<Kernel>,
    kernels: [Arc<Kernel>; TILES.len()],
    /// Tokens of the product that runs.
    laid: Buffer,
}

fn lay_source() -> Source {
    Source {
        name: "w8a8_tokens",
        text: cu::W8A8_TOKENS,
        headers: cu::MODEL_HEADERS,
        macros: Vec::new(),
    }
}

fn source((tokens, stages): (usize, usize)) -> Source {
    Source {
        name: "gemm_w8a8_sm90",
        text: cu::GEMM_W8A8_SM90,
        headers: cu::GROUP_HEADERS,
        macros: vec![("TILE_M", tokens as i64), ("STAGES", stages as i64)],
    }
}

/// The texts and macros of the kernels for Hopper, with the threads of a CTA.
pub fn gemm_w8a8_sm90_sources() -> Vec<(Source, usize)> {
    let tiles = TILES.map(|tile| (source(tile), THREADS));
    tiles
        .into_iter()
        .chain([(lay_source(), LAYING_THREADS)])
        .collect()
}

/// Bytes of a CTA's ring with its barriers.
fn shared_bytes((tokens, stages): (usize, usize)) -> usize {
    stages * (STAGE_K * (tokens + TILE_N) + 2 * 8)
}

/// The tile for so many tokens: as few tiles as there are.
fn tile_for(m: usize) -> usize {
    let fits = TILES.iter().position(|&(tokens, _)| m <= tokens);
    fits.unwrap_or(TILES.len() - 1)
}

impl GemmW8A8Groups {
    /// Compiles the kernels for a card; `None` where it is no Hopper.
    ///
    /// # Errors
    /// One does not compile or load, or no memory.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Option<Self>, CudaError> {
        if gpu.info().capability != (9, 0) {
            return Ok(None);
        }
        let [a, b, c] = TILES.map(|tile| {
            let kernel = jit.kernel(&source(tile))?;
            kernel.allow_shared(shared_bytes(tile))?;
            Ok(kernel)
        });
        Ok(Some(Self {
            gpu: gpu.clone(),
            lay: jit.kernel(&lay_source())?,
            kernels: [a?, b?, c?],
            laid: gpu.uninitialized(LAID_BYTES)?,
        }))
    }

    /// Whether it is the kernel for `m` tokens and a layer `[n, k]`: tokens have room, and tiles of weights alone give every
    /// multiprocessor two.
    pub fn takes(&self, m: usize, (n, k): (usize, usize)) -> bool {
        m >= LEAST_TOKENS && self.has_room(m, k) && n.div_ceil(TILE_N) >= 2 * self.gpu.info().num_sms
    }

    /// Whether tokens have room.
    pub fn has_room(&self, m: usize, k: usize) -> bool {
        let tokens = m.next_multiple_of(TILES[tile_for(m)].0);
        tokens.saturating_mul(k.next_multiple_of(STAGE_K)) <= LAID_BYTES
    }

    /// As [`GemmW8A8::launch`](super::GemmW8A8::launch), where tokens have room.
    pub(super) fn launch(
        &self,
        linear: &LinearW8,
        tokens: &QuantizedTokens,
        args: W8Args,
    ) -> Result<(), CudaError> {
        let (m, (n, k)) = (args.m as usize, linear.shape());
        assert!(self.has_room(m, k), "{m} tokens of {k} columns");
        let variant = tile_for(m);
        let (tile, blocks) = (TILES[variant], k.div_ceil(STAGE_K));
        let m_tiles = m.div_ceil(tile.0);
        let tiles = m_tiles * n.div_ceil(TILE_N);
        count("tiles of an INT8 product", tiles)?;
        let rows = m_tiles * tile.0;
        self.lay_tokens(tokens, (m, rows, blocks))?;
        let mut args = GroupArgs {
            product: W8Args {
                codes: self.laid.address(),
                ..args
            },
            m_tiles: m_tiles as i32,
            tiles: tiles as i32,
            stages: blocks as i32,
            rows: rows as i32,
        };
        let geometry = Launch {
            grid: [tiles.min(self.gpu.info().num_sms) as u32, 1, 1],
            threads: THREADS as u32,
            shared_bytes: shared_bytes(tile),
            cluster: 1,
            programmatic: true,
        };
        // SAFETY: the kernel's one parameter; tokens lie in `laid`, which has room for them (checked), the other buffers are as long as
        // their sizes say (checked by the caller, or by construction of the layer), and none is freed before the stream has passed.
        unsafe { launch_with(&self.kernels[variant], &geometry, &mut args) }
    }

    fn lay_tokens(
        &self,
        tokens: &QuantizedTokens,
        (m, rows, blocks): (usize, usize, usize),
    ) -> Result<(), CudaError> {
        let mut args = TokenArgs {
            codes: tokens.addresses().0,
            out: self.laid.address(),
            m: m as i32,
            row_bytes: tokens.row_bytes() as i32,
            rows: rows as i32,
            blocks: blocks as i32,
        };
        let pieces = rows * blocks * STAGE_K / 16;
        let geometry = Launch {
            grid: [pieces.div_ceil(LAYING_THREADS) as u32, 1, 1],
            threads: LAYING_THREADS as u32,
            shared_bytes: 0,
            cluster: 1,
            programmatic: true,
        };
        // SAFETY: the kernel's one parameter; it reads `m` rows of the tokens and writes `rows * blocks * 128` bytes of `laid`, both checked.
        unsafe { launch_with(&self.lay, &geometry, &mut args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_sizes_of_the_kernels_structures() {
        assert_eq!((size_of::<GroupArgs>(), size_of::<TokenArgs>()), (80, 32));
    }

    #[test]
    fn rings_fit_into_a_multiprocessors_shared_memory() {
        assert!(TILES.iter().all(|&tile| shared_bytes(tile) <= 232_448));
    }
}

//! Integer products of many tokens on AMX: `tdpbsud` multiplies 16 tokens x 64 codes by 64 x 16 weights in 16 cycles,
//! 16,384 multiply-adds and eight times what two `vpdpbusd` a cycle do.
//!
//! Sixteen lines of a W8 panel are a weight tile as AMX wants it (64 k of 16 rows, four k to a lane), and activations are
//! laid out in tiles of 16 tokens x 64 codes when they are quantized (`tensor/quantized.rs`), so nothing is rearranged here. A
//! task owns up to 512 tokens and 16 panels. It takes K in blocks of 512: four panels are widened into the first-level
//! cache (32 KB), all token tiles pass over them, and their sums wait in the second-level cache for the next block.
//! A token tile is loaded once for four panels: 16 bytes a cycle, which the second-level cache can give.
//!
//! Weights are unsigned (w8 + 128), so sums start at -128 * sum a8, as with every widened product.
//!
//! Stable Rust has no AMX intrinsics; one `asm!` block holds a whole tile product, so that no tile register lives
//! between two blocks.

use std::arch::asm;
use std::cell::RefCell;
use std::ops::Range;

use super::choose::widen;
use super::layout::{LINE, PANEL};
use super::packed::{Codes, PackedInt, W4Packing};
use super::task::{AMX_TASK_ROWS, FINISH_PANELS, MAX_TASK_PANELS, Task};
use crate::isa::Isa;
use crate::memory::aligned::Aligned;
use crate::tensor::quantized::{AMX_TILE_CODES, AMX_TILE_ROWS};

/// Bytes of a tile: 16 rows of 64.
const TILE_BYTES: usize = AMX_TILE_ROWS * AMX_TILE_CODES;
/// W8 lines of a weight tile.
const TILE_LINES: usize = TILE_BYTES / LINE;
/// W8 lines of a block of K: four panels of 8 KB stay in the first-level cache.
const BLOCK_LINES: usize = 8 * TILE_LINES;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { w8: None, starts: None, acc: None }) };
}

/// A thread's buffers; they grow to the largest task once.
struct Scratch {
    /// A block of four widened panels.
    w8: Option<Aligned<u8>>,
    /// `[tokens, 16]`: what each token's sums start at, as tiles.
    starts: Option<Aligned<i32>>,
    /// `[groups of four panels][tokens][64]`
    acc: Option<Aligned<i32>>,
}

/// Where a task's weights come from.
enum Weights<'a> {
    /// To be widened.
    W4(W4Packing<'a>),
    /// Panels of this many bytes, the last one followed by half a tile that may be read.
    W8(&'a [u8], usize),
}

/// `asm!` with instructions that change tile registers, which all blocks therefore give away.
macro_rules! tile_asm {
    ($($argument:tt)*) => {
        asm!(
            $($argument)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        )
    };
}

/// Tiles of 16 rows of 64 bytes, while it lives.
struct Configured;

impl Configured {
    /// # Safety
    /// The machine has AMX and the system lets this process use it.
    unsafe fn new() -> Self {
        let mut config = [0u8; 64];
        config[0] = 1; // the palette of eight tiles
        for tile in 0..8 {
            config[16 + 2 * tile] = AMX_TILE_CODES as u8;
            config[48 + tile] = AMX_TILE_ROWS as u8;
        }
        // SAFETY: 64 bytes of a valid configuration.
        unsafe { tile_asm!("ldtilecfg [{}]", in(reg) config.as_ptr(), options(nostack, readonly),) };
        Self
    }
}

impl Drop for Configured {
    /// Lets the processor and the system forget 8 KB of registers.
    fn drop(&mut self) {
        // SAFETY: AMX is there, or there would be no value.
        unsafe { tile_asm!("tilerelease", options(nostack, nomem),) };
    }
}

/// `steps` times four independent tile products in registers, for `machine_peak.rs`; AMX is there.
pub(crate) fn dot_chains(steps: usize) {
    // SAFETY: the caller has a device with AMX, so `Isa::is_available` said yes; no memory is touched.
    unsafe {
        let configured = Configured::new();
        tile_asm!(
            "tilezero tmm4",
            "tilezero tmm5",
            "2:",
            "tdpbsud tmm0, tmm4, tmm5",
            "tdpbsud tmm1, tmm4, tmm5",
            "tdpbsud tmm2, tmm4, tmm5",
            "tdpbsud tmm3, tmm4, tmm5",
            "dec {steps}",
            "jnz 2b",
            steps = inout(reg) steps.max(1) => _,
            options(nostack, nomem),
        );
        drop(configured);
    }
}

/// All tokens of a task times `panels`.
pub(super) fn run(task: &Task<'_>, panels: Range<usize>) {
    let weights = Weights::of(task.weights);
    SCRATCH.with_borrow_mut(|scratch| task.amx(&weights, panels, scratch));
}

impl Task<'_> {
    fn amx(&self, weights: &Weights<'_>, panels: Range<usize>, scratch: &mut Scratch) {
        let rows = self.rows.len().next_multiple_of(AMX_TILE_ROWS);
        let w8 = Aligned::at_least(&mut scratch.w8, 0, FINISH_PANELS * BLOCK_LINES * LINE);
        let starts = Aligned::at_least(&mut scratch.starts, 0, AMX_TASK_ROWS * PANEL);
        let acc = Aligned::at_least(&mut scratch.acc, 0, AMX_TASK_ROWS * MAX_TASK_PANELS * PANEL);
        self.start_tiles(starts);
        // Sums of a token lie side by side for all panels, so that its outputs are written in one run.
        let stride = panels.len() * PANEL;
        // SAFETY: a device holds `Isa::Amx` only after `Isa::is_available` said yes.
        let configured = unsafe { Configured::new() };
        let num_lines = self.weights.padded_k() / 4;
        for first in (0..num_lines).step_by(BLOCK_LINES) {
            let lines = first..(first + BLOCK_LINES).min(num_lines);
            for first in panels.clone().step_by(FINISH_PANELS) {
                let group = first..(first + FINISH_PANELS).min(panels.end);
                let acc = &mut acc[(first - panels.start) * PANEL..rows * stride];
                let panels = group.map(|place| self.panel(place));
                let block = weights.block(panels, lines.clone(), w8);
                self.over_token_tiles(&block, lines.clone(), starts, (acc, stride));
            }
        }
        drop(configured);
        self.finish(self.rows.clone(), panels, acc);
    }

    /// Every token tile of the task over a block of some panels.
    fn over_token_tiles(
        &self,
        block: &Block<'_>,
        lines: Range<usize>,
        starts: &[i32],
        (acc, stride): (&mut [i32], usize),
    ) {
        let row_bytes = stride * size_of::<i32>();
        for (tile, acc) in acc.chunks_mut(AMX_TILE_ROWS * stride).enumerate() {
            assert!(
                acc.len() >= (AMX_TILE_ROWS - 1) * stride + block.panels * PANEL,
                "sums of the tile"
            );
            let codes = self.a.amx_tiles(self.rows.start / AMX_TILE_ROWS + tile);
            let codes = &codes[lines.start / TILE_LINES * TILE_BYTES..];
            let num_tiles = lines.len().div_ceil(TILE_LINES);
            assert!(codes.len() >= num_tiles * TILE_BYTES, "tiles of the activations");
            let start = match lines.start {
                0 => Start {
                    sums: starts[tile * AMX_TILE_ROWS * PANEL..][..AMX_TILE_ROWS * PANEL].as_ptr(),
                    row_bytes: LINE,
                    panel_bytes: 0,
                },
                _ => Start {
                    sums: acc.as_ptr(),
                    row_bytes,
                    panel_bytes: LINE,
                },
            };
            let product = Product {
                codes: codes.as_ptr(),
                weights: block.bytes.as_ptr(),
                panel_bytes: block.panel_bytes,
                num_tiles,
                start,
                acc: acc.as_mut_ptr(),
                row_bytes,
            };
            // SAFETY: tiles are configured; codes, weights (see `Weights::block`), starts and sums hold what the
            // product reads and writes.
            unsafe { product.run(block.panels) };
        }
    }

    /// A tile of 16 equal columns for every 16 tokens; tokens beyond the last start anywhere.
    fn start_tiles(&self, starts: &mut [i32]) {
        for (row, start) in self.rows.clone().zip(starts.as_chunks_mut::<PANEL>().0) {
            start.fill(self.start(row));
        }
    }
}

/// Some lines of up to four W8 panels.
struct Block<'a> {
    bytes: &'a [u8],
    panel_bytes: usize,
    panels: usize,
}

impl<'a> Weights<'a> {
    fn of(weights: &'a PackedInt) -> Self {
        match weights.codes() {
            Codes::W8(codes) => Self::W8(codes, PANEL * weights.padded_k()),
            Codes::W4 {
                q,
                groups,
                group_size,
            } => Self::W4(W4Packing::new(weights, q, groups, *group_size)),
        }
    }

    /// `lines` of `panels`, widened into `w8` if need be; whole tiles can be read from each panel.
    fn block<'b>(
        &'b self,
        panels: impl ExactSizeIterator<Item = usize> + Clone,
        lines: Range<usize>,
        w8: &'b mut [u8],
    ) -> Block<'b> {
        let tile_lines = lines.len().next_multiple_of(TILE_LINES);
        let (bytes, panel_bytes) = match self {
            Self::W4(packing) => {
                let panel_bytes = tile_lines * LINE;
                let source = lines.start / 2..lines.end / 2;
                for (panel, w8) in panels.clone().zip(w8.chunks_exact_mut(panel_bytes)) {
                    let (q, groups) = packing.panels(panel..panel + 1);
                    let w8 = &mut w8[..lines.len() * LINE];
                    widen(Isa::Amx, q, groups, packing.lines_per_group, source.clone(), w8);
                }
                (&w8[..], panel_bytes)
            }
            Self::W8(codes, panel_bytes) => {
                // Panels of int8 weights are taken as they come.
                let first = panels.clone().next().unwrap_or(0);
                let start = first * panel_bytes + lines.start * LINE;
                (&codes[start..], *panel_bytes)
            }
        };
        let last = (panels.len() - 1) * panel_bytes + tile_lines * LINE;
        assert!(bytes.len() >= last, "lines of the panels");
        Block {
            bytes,
            panel_bytes,
            panels: panels.len(),
        }
    }
}

/// What sums begin with: one tile a panel.
#[derive(Clone, Copy)]
struct Start {
    sums: *const i32,
    row_bytes: usize,
    /// From one panel's tile to the next; 0 when all begin alike.
    panel_bytes: usize,
}

/// 16 tokens times some panels over `num_tiles` x 64 of K.
struct Product {
    /// Tiles of 1,024 bytes.
    codes: *const i8,
    weights: *const u8,
    panel_bytes: usize,
    num_tiles: usize,
    start: Start,
    /// Sums [16, 16 * panels] to write.
    acc: *mut i32,
    row_bytes: usize,
}

/// The product with as many panels as `$weights` names pointers and `$acc`, `$tile` name tile registers.
macro_rules! tile_product {
    ($product:expr; $($panel:literal $weights:ident $acc:literal $tile:literal),*) => {{
        let Product { codes, weights, panel_bytes, num_tiles, start, acc, row_bytes } = $product;
        tile_asm!(
            $(concat!("tileloadd ", $acc, ", [{start} + {start_row}*1]"), "add {start}, {start_panel}",)*
            "2:",
            "tileloadd tmm4, [{codes} + {row}*1]",
            "add {codes}, 1024",
            $(
                concat!("tileloadd ", $tile, ", [{", stringify!($weights), "} + {row}*1]"),
                concat!("add {", stringify!($weights), "}, 1024"),
                concat!("tdpbsud ", $acc, ", tmm4, ", $tile),
            )*
            "dec {num_tiles}",
            "jnz 2b",
            $(concat!("tilestored [{acc} + {acc_row}*1], ", $acc), "add {acc}, 64",)*
            start = inout(reg) start.sums => _,
            start_row = in(reg) start.row_bytes,
            start_panel = in(reg) start.panel_bytes,
            codes = inout(reg) codes => _,
            row = in(reg) AMX_TILE_CODES,
            $($weights = inout(reg) weights.wrapping_add($panel * panel_bytes) => _,)*
            num_tiles = inout(reg) num_tiles => _,
            acc = inout(reg) acc => _,
            acc_row = in(reg) row_bytes,
            options(nostack),
        );
    }};
}

impl Product {
    /// # Safety
    /// Tiles are configured; there are `num_tiles` (at least one) tiles of codes and of each panel's weights, a start
    /// for each panel, and room for the sums.
    unsafe fn run(self, panels: usize) {
        // SAFETY: passed on. Tile registers belong to nobody else: the compiler does not know them.
        unsafe {
            match panels {
                1 => tile_product!(self; 0 w0 "tmm0" "tmm5"),
                2 => tile_product!(self; 0 w0 "tmm0" "tmm5", 1 w1 "tmm1" "tmm6"),
                3 => tile_product!(self; 0 w0 "tmm0" "tmm5", 1 w1 "tmm1" "tmm6", 2 w2 "tmm2" "tmm7"),
                _ => {
                    tile_product!(self; 0 w0 "tmm0" "tmm5", 1 w1 "tmm1" "tmm6", 2 w2 "tmm2" "tmm7", 3 w3 "tmm3" "tmm5")
                }
            }
        }
    }
}

//! Some tokens times some panels: what one thread does at a time.

use std::cell::RefCell;
use std::ops::Range;

use dualgrain_format::GroupSize;

use super::choose;
use super::epilogue::Sink;
use super::layout::{LINE, PANEL};
use super::packed::{Codes, PackedInt, W4Packing};
use super::tile::{W4Tile, W8Tile};
use crate::isa::Isa;
use crate::memory::aligned::Aligned;
use crate::tensor::quantized::{CodeRows, FEW_ROWS, SUM_BLOCK, TILE_ROWS};

/// Tokens of a task: at K = 4,096 their codes fill half of a 2 MB second-level cache.
pub(super) const TASK_ROWS: usize = 20 * TILE_ROWS;
/// Tokens of a task on AMX: widening a panel costs what the product with 48 tokens does, so there are many.
pub(super) const AMX_TASK_ROWS: usize = 512;
/// Panels of a task when there is work enough for all threads.
pub(super) const MAX_TASK_PANELS: usize = 16;
/// W8 lines of a panel that tokens pass over at a time: 16 KB of a pair of panels and 6 KB of codes, both in the
/// first-level cache.
const BLOCK_LINES: usize = 128;
/// Panels whose sums are written together.
pub(super) const FINISH_PANELS: usize = 4;
/// Sums of the largest W4 tile: 12 tokens x 1 panel, 4 x 2, 2 x 4.
const MAX_W4_SUMS: usize = TILE_ROWS * PANEL;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { w8: None, sums: Vec::new(), acc: Vec::new() }) };
}

/// A thread's buffers, grown to the longest K once.
struct Scratch {
    /// A block of two widened panels.
    w8: Option<Aligned<u8>>,
    /// Sums of codes: `[tokens, groups]`, or what each token's sums start at.
    sums: Vec<i32>,
    /// Sums [tokens, 16 * panels] of a pair of panels.
    acc: Vec<i32>,
}

/// Some tokens and panels of the output.
pub(super) struct Task<'a> {
    pub(super) isa: Isa,
    pub(super) a: CodeRows<'a>,
    pub(super) weights: &'a PackedInt,
    pub(super) sink: &'a Sink<'a>,
    pub(super) rows: Range<usize>,
}

impl Task<'_> {
    /// All tokens of the task times some panels.
    pub(super) fn run(&self, panels: Range<usize>) {
        SCRATCH.with_borrow_mut(|scratch| match self.weights.codes() {
            Codes::W8(codes) => self.int8(codes, panels, scratch),
            Codes::W4 {
                q,
                groups,
                group_size,
            } => {
                let packing = W4Packing::new(self.weights, q, groups, *group_size);
                if choose::widens(self.isa, self.a.rows) {
                    self.widened(&packing, panels, scratch);
                } else {
                    self.nibbles(&packing, panels, scratch);
                }
            }
        });
    }

    /// Writes sums [rows, 16 * places] of the panels at some places.
    pub(super) fn finish(&self, rows: Range<usize>, places: Range<usize>, acc: &[i32]) {
        let scales = &self.a.scales[rows.clone()];
        self.sink
            .write(self.isa, self.weights, scales, (rows, places), acc);
    }

    /// The panel at a place of the task.
    pub(super) fn panel(&self, place: usize) -> usize {
        self.sink.panel(place, self.weights.num_panels())
    }

    /// Nibbles straight from the packing.
    fn nibbles(&self, packing: &W4Packing<'_>, panels: Range<usize>, scratch: &mut Scratch) {
        let Scratch { sums, .. } = scratch;
        self.sum_groups(packing.group_size, sums);
        let width = choose::w4_panels(self.isa, self.a.rows);
        let mut acc = [0; MAX_W4_SUMS];
        for first in panels.clone().step_by(width) {
            let panels = first..(first + width).min(panels.end);
            let (q, groups) = packing.panels(panels.clone());
            self.prefetch_channels(panels.clone());
            let tile_rows = self.a.most_tile_rows();
            for row in self.rows.clone().step_by(tile_rows) {
                let rows = row..(row + tile_rows).min(self.rows.end);
                let sums = &sums[(row - self.rows.start) * packing.num_groups..];
                let tile = W4Tile {
                    q: q.as_ptr(),
                    lines: packing.panel_bytes / LINE,
                    panel_bytes: packing.panel_bytes,
                    groups: groups.as_ptr(),
                    lines_per_group: packing.lines_per_group,
                    a: self.a.tile(row).as_ptr().cast(),
                    a_step: 4 * self.a.tile_rows(),
                    group_sums: sums.as_ptr(),
                    num_groups: packing.num_groups,
                    acc: acc[..rows.len() * panels.len() * PANEL].as_mut_ptr(),
                    acc_stride: panels.len() * PANEL,
                };
                // SAFETY: each panel has `lines` lines and `num_groups` groups, a tile of A eight codes a line (K is
                // padded alike), `sums` and `acc` a place for each of its rows.
                unsafe { choose::w4(self.isa, &tile, rows.len(), panels.len()) };
                self.finish(rows, panels.clone(), &acc);
            }
        }
    }

    /// Panels widened to int8 first, a block of K at a time.
    fn widened(&self, packing: &W4Packing<'_>, panels: Range<usize>, scratch: &mut Scratch) {
        let Scratch { w8, sums, acc, .. } = scratch;
        self.starts(sums);
        let w8 = Aligned::at_least(w8, 0, 2 * BLOCK_LINES * LINE);
        let num_lines = packing.panel_bytes / LINE;
        self.over_pairs(panels, acc, |pair, acc, acc_stride| {
            for first in (0..num_lines).step_by(BLOCK_LINES / 2) {
                let lines = first..(first + BLOCK_LINES / 2).min(num_lines);
                let block_bytes = 2 * lines.len() * LINE;
                for (place, w8) in pair.clone().zip(w8.chunks_exact_mut(block_bytes)) {
                    let panel = self.panel(place);
                    let (q, groups) = packing.panels(panel..panel + 1);
                    choose::widen(self.isa, q, groups, packing.lines_per_group, lines.clone(), w8);
                }
                let lines = 2 * lines.start..2 * lines.end;
                self.over_rows((w8, block_bytes), lines, pair.len(), sums, (acc, acc_stride));
            }
        });
    }

    /// Int8 weights as they are packed.
    fn int8(&self, codes: &[u8], panels: Range<usize>, scratch: &mut Scratch) {
        let Scratch { sums, acc, .. } = scratch;
        self.starts(sums);
        let panel_bytes = PANEL * self.weights.padded_k();
        let num_lines = panel_bytes / LINE;
        self.over_pairs(panels, acc, |pair, acc, acc_stride| {
            // Few rows stream whole panels; a block would only break the stream.
            let block_lines = if self.a.rows <= FEW_ROWS {
                num_lines
            } else {
                BLOCK_LINES
            };
            for first in (0..num_lines).step_by(block_lines) {
                let lines = first..(first + block_lines).min(num_lines);
                let w8 = &codes[pair.start * panel_bytes + first * LINE..];
                self.over_rows((w8, panel_bytes), lines, pair.len(), sums, (acc, acc_stride));
            }
        });
    }

    /// Runs `f(pair, acc, acc_stride)` for each pair of panels (or what the instruction set takes at a time) and writes
    /// the sums of four panels at once: a page border and four cache lines per row of D instead of two of each.
    fn over_pairs(
        &self,
        panels: Range<usize>,
        acc: &mut Vec<i32>,
        mut f: impl FnMut(Range<usize>, &mut [i32], usize),
    ) {
        let width = choose::w8_shape(self.isa).1;
        for first in panels.clone().step_by(FINISH_PANELS) {
            let group = first..(first + FINISH_PANELS).min(panels.end);
            let stride = group.len() * PANEL;
            acc.resize(self.rows.len() * stride, 0);
            for start in group.clone().step_by(width) {
                let pair = start..(start + width).min(group.end);
                f(pair, &mut acc[(start - first) * PANEL..], stride);
            }
            self.finish(self.rows.clone(), group, acc);
        }
    }

    /// All tokens of the task over `lines` of one or two W8 panels; `w8` begins with the first of these lines, `acc`
    /// with their first sum.
    fn over_rows(
        &self,
        (w8_lines, panel_bytes): (&[u8], usize),
        lines: Range<usize>,
        panels: usize,
        starts: &[i32],
        (acc, acc_stride): (&mut [i32], usize),
    ) {
        let last_line = (panels - 1) * panel_bytes + lines.len() * LINE;
        assert!(w8_lines.len() >= last_line, "lines of the panels");
        let tile_rows = choose::w8_shape(self.isa).0;
        for row in self.rows.clone().step_by(tile_rows) {
            let (rows, row_in_task) = (tile_rows.min(self.rows.end - row), row - self.rows.start);
            let a_tile = &self.a.tile(row)[lines.start * self.a.tile_rows()..];
            let acc = &mut acc[row_in_task * acc_stride..][..(rows - 1) * acc_stride + panels * PANEL];
            let tile = W8Tile {
                w: w8_lines.as_ptr(),
                lines: lines.len(),
                panel_bytes,
                a: a_tile.as_ptr().cast(),
                a_step: 4 * self.a.tile_rows(),
                start: match lines.start {
                    0 => starts[row_in_task..][..rows].as_ptr(),
                    _ => std::ptr::null(),
                },
                acc: acc.as_mut_ptr(),
                acc_stride,
            };
            // SAFETY: the panels hold these lines (checked), a tile of A four codes a line (K is padded alike), and
            // there is a start and a row of sums for each row; rows of a tile lie in one tile of A.
            unsafe { choose::w8(self.isa, &tile, rows, panels) };
        }
    }

    /// Sums of each token's codes within each group: `[tokens, groups]`.
    fn sum_groups(&self, group_size: GroupSize, sums: &mut Vec<i32>) {
        let blocks_per_group = group_size.len(self.a.columns).div_ceil(SUM_BLOCK);
        sums.clear();
        for row in self.rows.clone() {
            sums.extend(
                self.a
                    .block_sums(row)
                    .chunks(blocks_per_group)
                    .map(|blocks| blocks.iter().sum::<i32>()),
            );
        }
    }

    /// Where each token's W8 sums start: the 128 that every weight is too large by, taken out.
    fn starts(&self, starts: &mut Vec<i32>) {
        starts.clear();
        starts.extend(self.rows.clone().map(|row| self.start(row)));
    }

    /// Where a token's sums start.
    pub(super) fn start(&self, row: usize) -> i32 {
        self.a.block_sums(row).iter().sum::<i32>().wrapping_mul(-128)
    }

    /// The epilogue of few tokens would wait for each line of scales and biases: 2 % of decoding.
    fn prefetch_channels(&self, panels: Range<usize>) {
        let columns = panels.start * PANEL..panels.end * PANEL;
        let (s1, bias) = self.weights.channels(columns);
        for channels in [s1, bias] {
            channels.chunks(LINE / size_of::<f32>()).for_each(prefetch);
        }
    }
}

/// Asks for the line that a slice begins in.
fn prefetch<T>(slice: &[T]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch may point anywhere, and every x86-64 processor has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(slice.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}

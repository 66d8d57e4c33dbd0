//! Integer products `D[M,N] = A[M,K] * B[N,K]^T` with 4-bit (or int8) weights: packing, sharing out, epilogue.
//!
//! The tiles and packings are described in `gemm_w4a8_tile.rs`, one file of instructions per instruction set beside it.
//! Few tokens: a task streams its panels once past all tokens; only reading the weights costs. Many tokens: a task
//! owns a block of tokens that stays in the second-level cache and some panels; it widens a pair of panels and passes
//! all its tokens over them.

use std::cell::RefCell;
use std::ops::Range;

use dualgrain_format::{GroupSize, Int8Linear, QuantizedLinear, int4};

#[cfg(target_arch = "x86_64")]
use super::amx::Weights as TiledWeights;
use super::epilogue::Sink;
use super::tile::{
    GROUP_BYTES, K_STEP, LINE, PANEL, W4_LINE_K, W4Tile, W8_LINE_K, W8Tile, w4, w4_panels, w8, w8_shape,
    widen, widens,
};
use crate::isa::Isa;
use crate::memory::aligned::Aligned;
use crate::tensor::quantized::{FEW_ROWS, Quantized, SUM_BLOCK, TILE_ROWS};
use dualgrain_device::DeviceError;
use dualgrain_threads::Pool;
use dualgrain_threads::SharedSlice;
use dualgrain_threads::Stream;

/// Tokens of a task: at K = 4,096 their codes fill half of a 2 MB second-level cache.
const TASK_ROWS: usize = 20 * TILE_ROWS;
/// Tokens of a task on AMX: widening a panel costs what the product with 48 tokens does, so there are many.
pub(super) const TILED_TASK_ROWS: usize = 512;
/// W8 lines of a panel that tokens pass over at a time: 16 KB of a pair of panels and 6 KB of codes, both in the
/// first-level cache.
const BLOCK_LINES: usize = 128;
/// Panels whose sums are written together.
pub(super) const FINISH_PANELS: usize = 4;
/// Sums of the largest W4 tile: 12 tokens x 1 panel, 4 x 2, 2 x 4.
const MAX_W4_SUMS: usize = TILE_ROWS * PANEL;
/// Panels of a task when there is work enough for all threads.
pub(super) const MAX_TASK_PANELS: usize = 16;

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

/// Integer weights in panels of 16 rows.
#[derive(Debug)]
pub(crate) struct PackedInt {
    n: usize,
    k: usize,
    codes: Codes,
    /// Channel scales and biases, padded to whole panels; a missing bias is -0, which changes no sum.
    s1: Vec<f32>,
    bias: Vec<f32>,
}

#[derive(Debug)]
enum Codes {
    W4 {
        q: Aligned<u8>,
        groups: Aligned<u8>,
        group_size: GroupSize,
    },
    W8(Aligned<u8>),
}

impl PackedInt {
    /// Room for a layer `[n,k]` in the groups of `like`.
    pub(crate) fn empty_w4((n, k): (usize, usize), like: &QuantizedLinear) -> Result<Self, DeviceError> {
        let (num_panels, padded_k) = checked_panels(n, k)?;
        let codes = Codes::W4 {
            q: Aligned::weights(num_panels * PANEL * padded_k / 2)?,
            groups: Aligned::weights(num_panels * like.num_groups() * GROUP_BYTES)?,
            group_size: like.group_size(),
        };
        Ok(Self::with_codes((n, k), codes))
    }

    /// Packs rows from `first` on, the first of a panel.
    pub(crate) fn put_w4(&mut self, pool: &Pool, first: usize, linear: &QuantizedLinear) {
        let (num_groups, padded_k) = (linear.num_groups(), self.padded_k());
        let Codes::W4 {
            q,
            groups,
            group_size,
        } = &mut self.codes
        else {
            panic!("slices of a layer in different schemes")
        };
        assert_eq!(*group_size, linear.group_size(), "group sizes of slices");
        let (panel_bytes, group_bytes) = (PANEL * padded_k / 2, num_groups * GROUP_BYTES);
        let (q, groups) = (SharedSlice::new(q), SharedSlice::new(groups));
        pool.run(linear.n().div_ceil(PANEL), |panel| {
            let rows = panel * PANEL..((panel + 1) * PANEL).min(linear.n());
            let panel = first / PANEL + panel;
            // SAFETY: each panel is written by one task.
            let (q, groups) = unsafe {
                let q = q.range(panel * panel_bytes..(panel + 1) * panel_bytes);
                (q, groups.range(panel * group_bytes..(panel + 1) * group_bytes))
            };
            pack_w4_panel(linear, rows, q, groups);
        });
        self.put_channels(first, linear.s1(), linear.bias());
    }

    /// Room for an int8 layer `[n,k]`.
    pub(crate) fn empty_w8((n, k): (usize, usize)) -> Result<Self, DeviceError> {
        let (num_panels, padded_k) = checked_panels(n, k)?;
        // AMX reads whole tiles of 64 k: half a tile follows the last panel.
        let w8 = Aligned::weights(num_panels * PANEL * padded_k + PANEL * K_STEP)?;
        Ok(Self::with_codes((n, k), Codes::W8(w8)))
    }

    /// Packs rows from `first` on, the first of a panel.
    pub(crate) fn put_w8(&mut self, pool: &Pool, first: usize, linear: &Int8Linear) {
        let panel_bytes = PANEL * self.padded_k();
        let Codes::W8(w8) = &mut self.codes else {
            panic!("slices of a layer in different schemes")
        };
        let w8 = SharedSlice::new(w8);
        pool.run(linear.n().div_ceil(PANEL), |panel| {
            let rows = panel * PANEL..((panel + 1) * PANEL).min(linear.n());
            let panel = first / PANEL + panel;
            // SAFETY: each panel is written by one task.
            let w8 = unsafe { w8.range(panel * panel_bytes..(panel + 1) * panel_bytes) };
            pack_w8_panel(linear, rows, w8);
        });
        self.put_channels(first, linear.s1(), linear.bias());
    }

    fn with_codes((n, k): (usize, usize), codes: Codes) -> Self {
        let padded = n.next_multiple_of(PANEL);
        Self {
            n,
            k,
            codes,
            s1: vec![0.0; padded],
            bias: vec![-0.0; padded],
        }
    }

    fn put_channels(&mut self, first: usize, s1: &[f32], bias: Option<&[f32]>) {
        self.s1[first..first + s1.len()].copy_from_slice(s1);
        if let Some(bias) = bias {
            self.bias[first..first + bias.len()].copy_from_slice(bias);
        }
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn bytes(&self) -> usize {
        let codes = match &self.codes {
            Codes::W4 { q, groups, .. } => q.bytes() + groups.bytes(),
            Codes::W8(w8) => w8.bytes(),
        };
        codes + 4 * (self.s1.len() + self.bias.len())
    }

    /// The codes as a product of few tokens reads them, a task at a time.
    pub(crate) fn stream(&self, pool: &Pool) -> Stream {
        let num_panels = self.n.div_ceil(PANEL);
        let task_panels = panels_per_task(pool, num_panels);
        let (codes, panel_bytes) = match &self.codes {
            Codes::W4 { q, .. } => (q, PANEL * self.padded_k() / 2),
            Codes::W8(w8) => (w8, PANEL * self.padded_k()),
        };
        Stream {
            start: codes.as_ptr().addr(),
            chunk_bytes: task_panels * panel_bytes,
            num_chunks: num_panels.div_ceil(task_panels),
        }
    }

    /// Scales and biases of some output features.
    pub(super) fn channels(&self, columns: Range<usize>) -> (&[f32], &[f32]) {
        (&self.s1[columns.clone()], &self.bias[columns])
    }

    /// Whether many tokens of `a` can be gated on the way out: weights are widened panel by panel, in any order.
    pub(crate) fn can_gate(&self, isa: Isa, a: &Quantized) -> bool {
        matches!(self.codes, Codes::W4 { .. }) && widens(isa) && a.rows > FEW_ROWS && Sink::can_gate(self.n)
    }

    pub(super) fn padded_k(&self) -> usize {
        self.k.next_multiple_of(K_STEP)
    }
}

#[cfg(target_arch = "x86_64")]
impl PackedInt {
    fn tiled(&self) -> TiledWeights<'_> {
        match &self.codes {
            Codes::W8(codes) => TiledWeights::W8(codes, PANEL * self.padded_k()),
            Codes::W4 {
                q,
                groups,
                group_size,
            } => TiledWeights::W4(W4Packing::new(self, q, groups, *group_size)),
        }
    }
}

/// One panel of W8 codes from `rows` of a layer; padding has the weight zero.
fn pack_w8_panel(linear: &Int8Linear, rows: Range<usize>, w8: &mut [u8]) {
    w8.fill(128);
    let weights = &linear.w8()[rows.start * linear.k()..rows.end * linear.k()];
    for (lane, weights) in weights.chunks_exact(linear.k()).enumerate() {
        for (line, weights) in w8.chunks_exact_mut(LINE).zip(weights.chunks(W8_LINE_K)) {
            for (byte, w) in line[lane * 4..].iter_mut().zip(weights) {
                *byte = (*w as u8) ^ 0x80;
            }
        }
    }
}

/// One panel of W4 codes and groups from `rows` of a layer.
fn pack_w4_panel(linear: &QuantizedLinear, rows: Range<usize>, q: &mut [u8], groups: &mut [u8]) {
    let mut codes = vec![0u8; linear.k().next_multiple_of(K_STEP)];
    for (lane, row) in rows.enumerate() {
        let zeros = linear.zero_row(row);
        for (group, s2) in linear.s2_row(row).iter().enumerate() {
            groups[group * GROUP_BYTES + lane] = *s2;
            groups[group * GROUP_BYTES + PANEL + lane] = int4::at(zeros, group);
        }
        int4::unpack_row(linear.q_row(row), &mut codes[..linear.k()]);
        // Padding has the weight zero, as the format wants it.
        codes[linear.k()..].fill(int4::at(zeros, linear.num_groups() - 1));
        for (line, codes) in q.chunks_exact_mut(LINE).zip(codes.as_chunks::<W4_LINE_K>().0) {
            for (b, byte) in line[lane * 4..lane * 4 + 4].iter_mut().enumerate() {
                *byte = codes[b] | codes[b + 4] << 4;
            }
        }
    }
}

/// Panels of N and padded K; their product must fit memory.
fn checked_panels(n: usize, k: usize) -> Result<(usize, usize), DeviceError> {
    let (num_panels, padded_k) = (n.div_ceil(PANEL), k.next_multiple_of(K_STEP));
    let bytes = padded_k
        .checked_mul(PANEL)
        .and_then(|panel| panel.checked_mul(num_panels));
    match bytes {
        Some(_) => Ok((num_panels, padded_k)),
        None => Err(DeviceError::TooLarge {
            what: "N * K",
            got: n,
        }),
    }
}

/// `d[M,N]` (or the sums) of `a[M,K]` and the weights. Threads that wait during and after it read ahead in `next`.
///
/// # Panics
/// When the shapes do not fit, or `a` was made for an instruction set that lays codes out in another way.
pub(crate) fn gemm(
    isa: Isa,
    pool: &Pool,
    a: &Quantized,
    weights: &PackedInt,
    next: Option<Stream>,
    sink: &Sink<'_>,
) {
    assert_eq!(a.columns, weights.k, "columns of A and K of the weights");
    assert!(
        a.is_laid_out_for(isa),
        "activations are laid out for {}, the product is one of {}",
        a.isa().name(),
        isa.name()
    );
    let num_panels = weights.n.div_ceil(PANEL);
    let task_rows = if a.is_in_amx_tiles() {
        TILED_TASK_ROWS
    } else {
        TASK_ROWS
    };
    let row_blocks = a.rows.div_ceil(task_rows);
    let task_panels = panels_per_task(pool, num_panels * row_blocks);
    // Reading a weight costs about half an operation, a token's product with it a 32nd.
    let operations = weights.n * weights.k / 2 * (16 + a.rows) / 16;
    let num_tasks = row_blocks * num_panels.div_ceil(task_panels);
    // Many tokens multiply much longer than they read.
    let next = next.filter(|_| a.rows <= FEW_ROWS).unwrap_or_default();
    pool.run_in_runs(operations, num_tasks, next, |task| {
        let (row_block, first) = (task % row_blocks, task / row_blocks * task_panels);
        let rows = row_block * task_rows..((row_block + 1) * task_rows).min(a.rows);
        let panels = first..(first + task_panels).min(num_panels);
        let task = Task {
            isa,
            a,
            weights,
            sink,
            rows,
        };
        #[cfg(target_arch = "x86_64")]
        if a.is_in_amx_tiles() {
            return task.amx(&weights.tiled(), panels);
        }
        SCRATCH.with_borrow_mut(|scratch| match &weights.codes {
            Codes::W8(codes) => task.w8(codes, panels, scratch),
            Codes::W4 {
                q,
                groups,
                group_size,
            } => {
                let packing = W4Packing::new(weights, q, groups, *group_size);
                if widens(isa) && a.rows > FEW_ROWS {
                    task.widened(&packing, panels, scratch);
                } else {
                    task.w4(&packing, panels, scratch);
                }
            }
        });
    });
}

/// A multiple of four, so that tiles of several panels have work; four tasks a thread even the load out.
fn panels_per_task(pool: &Pool, panels_and_blocks: usize) -> usize {
    (panels_and_blocks / (4 * pool.num_threads()))
        .next_multiple_of(4)
        .clamp(4, MAX_TASK_PANELS)
}

/// A W4 matrix cut into panels.
pub(super) struct W4Packing<'a> {
    q: &'a [u8],
    groups: &'a [u8],
    panel_bytes: usize,
    panel_group_bytes: usize,
    num_groups: usize,
    pub(super) lines_per_group: usize,
    group_size: GroupSize,
}

impl<'a> W4Packing<'a> {
    fn new(weights: &PackedInt, q: &'a [u8], groups: &'a [u8], group_size: GroupSize) -> Self {
        let (padded_k, num_groups) = (weights.padded_k(), group_size.num_groups(weights.k));
        let lines_per_group = group_size.len(weights.k).next_multiple_of(K_STEP) / W4_LINE_K;
        Self {
            q,
            groups,
            panel_bytes: PANEL * padded_k / 2,
            panel_group_bytes: num_groups * GROUP_BYTES,
            num_groups,
            lines_per_group,
            group_size,
        }
    }

    /// Codes and groups of some panels.
    pub(super) fn panels(&self, panels: Range<usize>) -> (&'a [u8], &'a [u8]) {
        let q = &self.q[panels.start * self.panel_bytes..panels.end * self.panel_bytes];
        let groups = panels.start * self.panel_group_bytes..panels.end * self.panel_group_bytes;
        (q, &self.groups[groups])
    }
}

/// Some tokens and panels of the output.
pub(super) struct Task<'a> {
    pub(super) isa: Isa,
    pub(super) a: &'a Quantized,
    pub(super) weights: &'a PackedInt,
    pub(super) sink: &'a Sink<'a>,
    pub(super) rows: Range<usize>,
}

impl Task<'_> {
    /// The panel at a place of the task.
    pub(super) fn panel(&self, place: usize) -> usize {
        self.sink.panel(place, self.weights.n.div_ceil(PANEL))
    }

    /// Nibbles straight from the packing.
    fn w4(&self, packing: &W4Packing<'_>, panels: Range<usize>, scratch: &mut Scratch) {
        let Scratch { sums, .. } = scratch;
        self.sum_groups(packing.group_size, sums);
        let width = w4_panels(self.isa, self.a.rows);
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
                unsafe { w4(self.isa, &tile, rows.len(), panels.len()) };
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
                    widen(self.isa, q, groups, packing.lines_per_group, lines.clone(), w8);
                }
                let lines = 2 * lines.start..2 * lines.end;
                self.over_rows((w8, block_bytes), lines, pair.len(), sums, (acc, acc_stride));
            }
        });
    }

    /// Int8 weights as they are packed.
    fn w8(&self, codes: &[u8], panels: Range<usize>, scratch: &mut Scratch) {
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
        let width = w8_shape(self.isa).1;
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
        let tile_rows = w8_shape(self.isa).0;
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
            unsafe { w8(self.isa, &tile, rows, panels) };
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
        for channels in [
            &self.weights.s1[columns.clone()],
            &self.weights.bias[columns.clone()],
        ] {
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

//! Float products `D[M,N] = A[M,K] * B[N,K]^T`, bit-identical to the specification for every M and thread count.
//!
//! B is packed once in panels of 16 output columns, `[N/16][K][16]`, in f32 or bf16 (widened when loaded: half the
//! memory traffic, which is all that counts for one token). A tile (`tile.rs`) multiplies a few rows of A by one or two
//! panels.
//!
//! Few rows (decode): every thread streams whole panels past the rows; the only cost is reading B.
//! Many rows (prefill), the BLIS scheme: a task owns `mc` rows and `nc` columns of D and walks K in blocks of `kc`; the
//! block of A is repacked to `[mc/mr][kc][mr]` (second-level cache), a panel pair's kc slice is widened into the first level
//! once and stays there while all row tiles pass over it, the next slice is asked for meanwhile, and D holds the partial sums.

use std::cell::RefCell;
use std::ops::Range;

use dualgrain_device::DeviceError;
use dualgrain_format::{FloatLinear, FloatValues};
use dualgrain_threads::{Pool, SharedSlice};
use half::bf16;

use super::lanes::{Element, LANES};
use super::packing::{pack_rows, transpose_to_panel};
use super::tile::{FloatTile, multiply, tile_shape, tile_vectors};
use crate::isa::Isa;
use crate::memory::aligned::Aligned;
use crate::memory::prefetch::{part_of, prefetch};

/// Up to this many rows A is used as it lies.
const MAX_UNPACKED_ROWS: usize = 24;
const KC: usize = 256;
/// Whole tiles of every instruction set.
const TILE_ROWS: usize = 12;
/// Most rows of A a task keeps packed: a multiple of 12 and of 6.
const MC: usize = 240;
/// Panels of a task when there is work enough for all threads.
const MAX_TASK_PANELS: usize = 64;

thread_local! {
    /// The packed block of A of this thread, which grows to MC * KC once, and the slice of B that meets it.
    static PACKED: RefCell<(Vec<f32>, Option<Aligned<f32>>)> = const { RefCell::new((Vec::new(), None)) };
}

/// Weights of a float layer in panels.
#[derive(Debug)]
pub(crate) struct PackedFloat {
    n: usize,
    k: usize,
    panels: Panels,
    bias: Option<Vec<f32>>,
}

#[derive(Debug)]
enum Panels {
    F32(Aligned<f32>),
    Bf16(Aligned<bf16>),
}

impl PackedFloat {
    /// Room for a layer `[n,k]` in the precision of `like`.
    pub(crate) fn empty_for(
        device: &str,
        (n, k): (usize, usize),
        like: &FloatLinear,
    ) -> Result<Self, DeviceError> {
        let len = n.div_ceil(LANES).checked_mul(LANES * k);
        let len = len.ok_or_else(|| DeviceError::TooLarge {
            what: "packed layer",
            device: device.to_owned(),
            sizes: format!("{n} x {k}"),
        })?;
        let panels = match like.weight() {
            FloatValues::F32(_) => Panels::F32(Aligned::weights(device, len)?),
            FloatValues::Bf16(_) => Panels::Bf16(Aligned::weights(device, len)?),
        };
        let bias = like.bias().map(|_| vec![0.0; n]);
        Ok(Self { n, k, panels, bias })
    }

    /// Packs rows from `first` on, the first of a panel.
    pub(crate) fn put(&mut self, isa: Isa, pool: &Pool, first: usize, linear: &FloatLinear) {
        let k = self.k;
        let panel_len = LANES * k;
        let start = first / LANES * panel_len;
        let len = linear.n().div_ceil(LANES) * panel_len;
        let rows_of = |panel: usize| panel * LANES * k..((panel + 1) * LANES).min(linear.n()) * k;
        match (&mut self.panels, linear.weight()) {
            (Panels::F32(panels), FloatValues::F32(values)) => {
                pool.for_each_chunk(&mut panels[start..start + len], panel_len, |panel, out| {
                    transpose_to_panel(isa, &values[rows_of(panel)], k, out);
                });
            }
            (Panels::Bf16(panels), FloatValues::Bf16(values)) => {
                pool.for_each_chunk(&mut panels[start..start + len], panel_len, |panel, out| {
                    pack_panel(&values[rows_of(panel)], k, out);
                });
            }
            _ => panic!("slices of a layer in different precisions"),
        }
        if let (Some(bias), Some(of_slice)) = (&mut self.bias, linear.bias()) {
            bias[first..first + of_slice.len()].copy_from_slice(of_slice);
        }
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn bytes(&self) -> usize {
        let panels = match &self.panels {
            Panels::F32(panels) => panels.bytes(),
            Panels::Bf16(panels) => panels.bytes(),
        };
        panels + self.bias.as_ref().map_or(0, |bias| 4 * bias.len())
    }
}

/// At most 16 rows of `k` to `[k][16]`; missing rows keep what was there.
fn pack_panel(rows: &[bf16], k: usize, panel: &mut [bf16]) {
    for (lane, row) in rows.chunks_exact(k).enumerate() {
        for (line, value) in panel.as_chunks_mut::<LANES>().0.iter_mut().zip(row) {
            line[lane] = *value;
        }
    }
}

/// `d[M,N] = a[M,K] * weights^T + bias`.
pub(crate) fn gemm(isa: Isa, pool: &Pool, a: &[f32], weights: &PackedFloat, d: &mut [f32]) {
    match &weights.panels {
        Panels::F32(panels) => product(isa, pool, a, weights, panels, d),
        Panels::Bf16(panels) => product(isa, pool, a, weights, panels, d),
    }
}

fn product<E: Element>(isa: Isa, pool: &Pool, a: &[f32], weights: &PackedFloat, panels: &[E], d: &mut [f32]) {
    let (n, k) = (weights.n, weights.k);
    let m = a.len() / k;
    assert_eq!((a.len(), d.len()), (m * k, m * n), "float product {m}x{n}x{k}");
    let d = SharedSlice::new(d);
    let num_panels = n.div_ceil(LANES);
    let block_rows = rows_per_block(m);
    let row_blocks = m.div_ceil(block_rows);
    let task_panels = panels_per_task(isa, pool, m, num_panels, row_blocks);
    let column_blocks = num_panels.div_ceil(task_panels);
    // Reading a weight costs about three operations, a row's product with it a quarter.
    let operations = n * k * (12 + m) / 4;
    pool.run_if_worth(operations, row_blocks * column_blocks, |task| {
        let (row_block, column_block) = (task % row_blocks, task / row_blocks);
        let rows = if row_blocks == 1 {
            0..m
        } else {
            row_block * block_rows..((row_block + 1) * block_rows).min(m)
        };
        let first = column_block * task_panels;
        let last = (first + task_panels).min(num_panels);
        let block = Block {
            isa,
            a,
            k,
            n,
            panels,
            rows,
            d: &d,
            bias: weights.bias.as_deref(),
        };
        if m <= MAX_UNPACKED_ROWS {
            block.stream(first, last);
        } else {
            block.blocked(first, last);
        }
    });
}

/// Rows of A that a task takes: whole tiles, as many for all but the last, which may have few.
fn rows_per_block(m: usize) -> usize {
    match m {
        ..=MAX_UNPACKED_ROWS => m.max(1),
        _ => m.div_ceil(m.div_ceil(MC)).next_multiple_of(TILE_ROWS),
    }
}

/// Panels a task takes: enough tasks for the threads, few enough that packing A is paid back.
fn panels_per_task(isa: Isa, pool: &Pool, m: usize, num_panels: usize, row_blocks: usize) -> usize {
    let smallest = tile_vectors(isa, m);
    let wanted = (num_panels * row_blocks) / (4 * pool.num_threads());
    let limit = if m <= MAX_UNPACKED_ROWS {
        num_panels.max(smallest)
    } else {
        MAX_TASK_PANELS
    };
    (wanted / smallest * smallest).clamp(smallest, limit)
}

/// One task: some rows and panels of the output.
struct Block<'a, E> {
    isa: Isa,
    a: &'a [f32],
    k: usize,
    n: usize,
    panels: &'a [E],
    rows: Range<usize>,
    d: &'a SharedSlice<'a, f32>,
    bias: Option<&'a [f32]>,
}

impl<E: Element> Block<'_, E> {
    /// Few rows: panels stream past A as it lies.
    fn stream(&self, first: usize, last: usize) {
        let a = self.a[self.rows.start * self.k..].as_ptr();
        self.over_panels(first, last, 0..self.k, |panel, vectors, c, c_row| {
            let tile = self.tile(a, (self.k, 1), panel, 0..self.k, (c, c_row));
            // SAFETY: A has `rows` rows of k, the panels are inside `panels`, C is this task's.
            unsafe { multiply(self.isa, tile, self.rows.len(), vectors) };
        });
        self.add_bias(first, last);
    }

    /// Many rows: K in blocks, A repacked per block.
    fn blocked(&self, first: usize, last: usize) {
        let mr = tile_shape(self.isa).0;
        // A last block of few rows takes more panels at once than others.
        let vectors = tile_vectors(self.isa, self.rows.len());
        PACKED.with_borrow_mut(|(packed, slice)| {
            let slice = Aligned::at_least(slice, 0.0, vectors * LANES * KC);
            let slice = RefCell::new(slice);
            for k_start in (0..self.k).step_by(KC) {
                let ks = k_start..(k_start + KC).min(self.k);
                pack_rows(
                    self.isa,
                    self.a,
                    self.k,
                    self.rows.clone(),
                    ks.clone(),
                    mr,
                    packed,
                );
                self.over_panels(first, last, ks.clone(), |panel, vectors, c, c_row| {
                    let next = match panel + vectors < last {
                        true => (panel + vectors)..(panel + 2 * vectors).min(last),
                        false => first..first,
                    };
                    let slice = &mut *slice.borrow_mut();
                    self.widen(panel..panel + vectors, &ks, slice);
                    self.rows_past((slice, vectors), (packed, mr), &ks, next, (c, c_row));
                });
            }
        });
        self.add_bias(first, last);
    }

    /// All row tiles past `slice` `[vectors][ks][16]`, while the same slice of the panels `next` is asked for.
    fn rows_past(
        &self,
        (slice, vectors): (&[f32], usize),
        (packed, mr): (&[f32], usize),
        ks: &Range<usize>,
        next: Range<usize>,
        (c, c_row): (*mut f32, usize),
    ) {
        let tiles = self.rows.len().div_ceil(mr);
        for (tile_idx, row) in (0..self.rows.len()).step_by(mr).enumerate() {
            for panel in next.clone() {
                prefetch(part_of(self.panel_slice(panel, ks), tile_idx, tiles));
            }
            let tile = FloatTile {
                a: packed[tile_idx * mr * ks.len()..][..mr * ks.len()].as_ptr(),
                a_row: 1,
                a_k: mr,
                b: slice[..vectors * LANES * ks.len()].as_ptr(),
                b_vector: LANES * ks.len(),
                b_k: LANES,
                k: ks.len(),
                // SAFETY: the row is inside this task's rows of C.
                c: unsafe { c.add(row * c_row) },
                c_row,
                c_vector: LANES,
                from_zero: ks.start == 0,
            };
            // SAFETY: A is packed for this tile, the slice holds its vectors, C is this task's.
            unsafe { multiply(self.isa, tile, mr.min(self.rows.len() - row), vectors) };
        }
    }

    /// Lines `ks` of a panel.
    fn panel_slice(&self, panel: usize, ks: &Range<usize>) -> &[E] {
        &self.panels[(panel * self.k + ks.start) * LANES..][..ks.len() * LANES]
    }

    /// Lines `ks` of `panels` as floats, `[panels][ks][16]`.
    fn widen(&self, panels: Range<usize>, ks: &Range<usize>, slice: &mut [f32]) {
        for (panel, slice) in panels.zip(slice.chunks_exact_mut(ks.len() * LANES)) {
            E::widen(self.isa, self.panel_slice(panel, ks), slice);
        }
    }

    fn tile(
        &self,
        a: *const f32,
        (a_row, a_k): (usize, usize),
        panel: usize,
        ks: Range<usize>,
        (c, c_row): (*mut f32, usize),
    ) -> FloatTile<E> {
        FloatTile {
            a,
            a_row,
            a_k,
            b: self.panels[panel * LANES * self.k + ks.start * LANES..].as_ptr(),
            b_vector: LANES * self.k,
            b_k: LANES,
            k: ks.len(),
            c,
            c_row,
            c_vector: LANES,
            from_zero: ks.start == 0,
        }
    }

    /// Calls `f(panel, vectors, c, c_row)` for runs of panels; a last panel with fewer than 16 columns goes through a
    /// buffer, since a tile writes whole vectors.
    fn over_panels(
        &self,
        first: usize,
        last: usize,
        ks: Range<usize>,
        f: impl Fn(usize, usize, *mut f32, usize),
    ) {
        let width = tile_vectors(self.isa, self.rows.len());
        let whole = last.min(self.n / LANES);
        for panel in (first..whole).step_by(width) {
            // SAFETY: this task alone writes these rows and columns.
            let c = unsafe { self.d.pointer(self.rows.start * self.n + panel * LANES) };
            f(panel, width.min(whole - panel), c, self.n);
        }
        if whole < last {
            let mut edge = [0.0; MC * LANES];
            self.copy_edge(whole, &mut edge, ks.start > 0, true);
            f(whole, 1, edge.as_mut_ptr(), LANES);
            self.copy_edge(whole, &mut edge, true, false);
        }
    }

    /// Copies the last panel's columns of D to (`load`) or from the buffer.
    fn copy_edge(&self, panel: usize, edge: &mut [f32], wanted: bool, load: bool) {
        let columns = self.n - panel * LANES;
        for (row, edge) in self
            .rows
            .clone()
            .zip(edge.chunks_exact_mut(LANES))
            .filter(|_| wanted)
        {
            let start = row * self.n + panel * LANES;
            // SAFETY: this task alone touches these rows and columns.
            let d = unsafe { self.d.range(start..start + columns) };
            if load {
                edge[..columns].copy_from_slice(d);
            } else {
                d.copy_from_slice(&edge[..columns]);
            }
        }
    }

    fn add_bias(&self, first: usize, last: usize) {
        let Some(bias) = self.bias else { return };
        let columns = first * LANES..(last * LANES).min(self.n);
        for row in self.rows.clone() {
            // SAFETY: this task alone touches these rows and columns.
            let d = unsafe {
                self.d
                    .range(row * self.n + columns.start..row * self.n + columns.end)
            };
            for (d, bias) in d.iter_mut().zip(&bias[columns.clone()]) {
                *d += bias;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::available;
    use crate::sentinels::between_sentinels;

    #[test]
    fn outputs_are_written_completely_and_nothing_beside_them() {
        let pool = Pool::new(2);
        for isa in available() {
            for (m, n, k) in [
                (1, 1, 1),
                (1, 130, 7),
                (4, 65, 3),
                (7, 17, 5),
                (25, 33, 300),
                (130, 47, 20),
            ] {
                let weights = FloatLinear::new(n, k, FloatValues::F32(vec![1.0; n * k]), None);
                let layer = weights.expect("valid layer");
                let mut packed = PackedFloat::empty_for("the CPU", (n, k), &layer).expect("fits");
                packed.put(isa, &pool, 0, &layer);
                let d = between_sentinels(m * n, &format!("{m}x{n} on {}", isa.name()), |d| {
                    gemm(isa, &pool, &vec![2.0; m * k], &packed, d);
                });
                assert!(
                    d.iter().all(|v| *v == 2.0 * k as f32),
                    "{} {m}x{n}x{k}",
                    isa.name()
                );
            }
        }
    }
}

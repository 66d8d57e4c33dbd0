//! What float group scales cost: a kernel made for the comparison, as good as we can, and nothing else uses it.
//!
//! 4-bit codes with an f32 scale and a zero point per group of 128, INT8 activations. Each group's sum
//! `sum_k a8 * (q - zero)` is exact in i32; then it becomes a float and joins the others in order,
//! `sum = fma(group as f32, scale, sum)` from 0, and `d = sum * ta`. The rest is as in our products, or kinder: panels of 16
//! rows of N, nibbles in the same lines, weights in huge pages, panels widened to bytes once per 512 k and 240 (AMX:
//! 512) tokens, tiles as large as sums of both kinds leave room for. Kinder: sums of codes are there beforehand, codes
//! lie exactly as each tile reads them, and D is written in blocks of 64 columns, not in rows far apart.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;

use std::ops::Range;

use dualgrain_cpu::{CpuDevice, Isa};

use crate::operands::{matrix, quantized, random};
use crate::table::Table;
use crate::{LAYERS, ROTATION_BYTES, SQUARE};

/// Columns of B that share a scale and a zero point.
const GROUP: usize = 128;
/// Rows of N in a panel.
const PANEL: usize = 16;
/// Bytes of a line: 8 k of a panel as nibbles, 4 k as bytes.
const LINE: usize = 64;
/// Lines of nibbles in a group of a panel.
const GROUP_LINES: usize = GROUP / 8;
/// Bytes of a widened group of a panel.
const GROUP_BYTES: usize = GROUP * PANEL;
/// Panels of a block of D.
const PANELS: usize = 4;
/// Columns of a block of D.
const COLUMNS: usize = PANELS * PANEL;
/// Groups widened at a time.
const BLOCK_GROUPS: usize = 4;

/// As weights are read from memory: a whole cache line each.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(align(64))]
struct Line<T>(T);

/// Copies of a layer, one after the other.
struct Weights {
    n: usize,
    k: usize,
    /// `[copies][N / 16][K / 8]` lines; byte b of row r at `4 * r + b`: low nibble k + b, high nibble k + 4 + b.
    q: Vec<Line<[u8; LINE]>>,
    /// `[copies][N / 16][groups][16]`
    scales: Vec<Line<[f32; PANEL]>>,
    /// `[copies][N / 16][groups][16]`, 0..=15
    zeros: Vec<[u8; PANEL]>,
}

impl Weights {
    fn random((n, k): (usize, usize), copies: usize) -> Self {
        assert!(n.is_multiple_of(COLUMNS) && k.is_multiple_of(GROUP), "{n}x{k}");
        let (mut next, panels) = (random(11), copies * n / PANEL);
        let mut q = in_huge_pages(panels * k / 8);
        for _ in 0..panels * k / 8 {
            let words: [[u8; 4]; LINE / 4] = std::array::from_fn(|_| (next() as u32).to_le_bytes());
            let mut bytes = words.as_flattened().iter();
            q.push(Line(std::array::from_fn(|_| bytes.next().copied().unwrap_or(0))));
        }
        let mut scales = in_huge_pages(panels * k / GROUP);
        let mut zeros = in_huge_pages(panels * k / GROUP);
        for _ in 0..panels * k / GROUP {
            scales.push(Line(std::array::from_fn(|_| {
                0.001 + (next() & 0xffff) as f32 / 6.4e6
            })));
            zeros.push(std::array::from_fn(|_| next() as u8 & 15));
        }
        Self {
            n,
            k,
            q,
            scales,
            zeros,
        }
    }

    fn groups(&self) -> usize {
        self.k / GROUP
    }

    /// Bytes of one copy of a layer of this shape.
    fn bytes((n, k): (usize, usize)) -> usize {
        n * k / 2 + n * k / GROUP * 5
    }

    /// Code `q[n,k]` of the first copy.
    fn q(&self, row: usize, k: usize) -> u8 {
        let Line(line) = &self.q[row / PANEL * (self.k / 8) + k / 8];
        line[row % PANEL * 4 + k % 4] >> (k % 8 / 4 * 4) & 15
    }

    /// Scale and zero point of a row's group in the first copy.
    fn group(&self, row: usize, group: usize) -> (f32, u8) {
        let place = row / PANEL * self.groups() + group;
        (self.scales[place].0[row % PANEL], self.zeros[place][row % PANEL])
    }

    /// Four panels of a copy.
    fn panels(&self, copy: usize, block: usize) -> Panels<'_> {
        let first = copy * (self.n / PANEL) + block * PANELS;
        let groups = first * self.groups()..(first + PANELS) * self.groups();
        Panels {
            q: &self.q[groups.start * GROUP_LINES..groups.end * GROUP_LINES],
            scales: &self.scales[groups.clone()],
            zeros: &self.zeros[groups],
            groups: self.groups(),
        }
    }
}

/// An empty vector with room for `capacity` elements, in huge pages where the system has them.
fn in_huge_pages<T>(capacity: usize) -> Vec<T> {
    let mut new: Vec<T> = Vec::with_capacity(capacity);
    #[cfg(target_os = "linux")]
    {
        use rustix::mm::{Advice, madvise};
        const PAGE: usize = 2 << 20;
        let (bytes, start) = (
            size_of_val(new.spare_capacity_mut()),
            new.as_mut_ptr().cast::<u8>(),
        );
        let to_page = start.align_offset(PAGE);
        if bytes >= to_page + PAGE {
            let whole = (bytes - to_page) / PAGE * PAGE;
            // SAFETY: whole pages inside the buffer; the advice changes no contents, and nothing is lost without it.
            let _ = unsafe { madvise(start.add(to_page).cast(), whole, Advice::LinuxHugepage) };
        }
    }
    new
}

/// Four panels of weights, each `groups` groups long.
#[derive(Clone, Copy)]
struct Panels<'a> {
    q: &'a [Line<[u8; LINE]>],
    scales: &'a [Line<[f32; PANEL]>],
    zeros: &'a [[u8; PANEL]],
    groups: usize,
}

#[cfg(target_arch = "x86_64")]
impl Panels<'_> {
    /// What is left without the first `panels`.
    fn from(mut self, panels: usize) -> Self {
        let groups = panels * self.groups;
        self.q = &self.q[groups * GROUP_LINES..];
        self.scales = &self.scales[groups..];
        self.zeros = &self.zeros[groups..];
        self
    }
}

/// How a product is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Path {
    /// `maddubs` on nibbles, 256 bits.
    Avx2,
    /// `vpdpbusd` on nibbles, one token at a time.
    Nibbles,
    /// `vpdpbusd` on panels widened to bytes.
    Widened,
    /// AMX tiles on panels widened to bytes.
    Tiles,
}

impl Path {
    /// The best way to run `m` tokens; there is none for the portable path and AVX-VNNI.
    fn of(isa: Isa, m: usize) -> Option<Self> {
        match isa {
            Isa::Avx2 => Some(Self::Avx2),
            Isa::Avx512Vnni | Isa::Amx if m == 1 => Some(Self::Nibbles),
            Isa::Avx512Vnni => Some(Self::Widened),
            Isa::Amx => Some(Self::Tiles),
            Isa::Portable | Isa::AvxVnni => None,
        }
    }

    /// Tokens that pass over a widened block.
    fn block_rows(self) -> usize {
        match self {
            Self::Tiles => 512,
            _ => 240,
        }
    }

    /// Tokens of the first tile of `rows` that remain.
    fn tile_rows(self, rows: usize) -> usize {
        match (self, rows) {
            (Self::Avx2, rows) => rows.min(4),
            (Self::Nibbles, _) => 1,
            // Two tiles of four run faster than one of six and one of two.
            (Self::Widened, 7 | 8) => 4,
            (Self::Widened, rows) => rows.min(6),
            (Self::Tiles, _) => 16,
        }
    }

    /// What a tile's sums of a group start at, from the sum of its codes.
    fn start(self, sum: i32) -> i32 {
        match self {
            // Widened weights are 128 too large.
            Self::Widened => -128 * sum,
            // To be multiplied by the zero point.
            Self::Avx2 | Self::Nibbles => -sum,
            // Signed weights.
            Self::Tiles => 0,
        }
    }
}

/// Tokens in tiles.
struct Activations {
    path: Path,
    /// `[tiles][K / 4][tokens][4]`; for AMX `[tiles][K / 64][16][64]`.
    codes: Vec<i8>,
    /// `[tiles][groups][tokens]`
    starts: Vec<i32>,
    /// `[tokens]`
    ta: Vec<f32>,
    /// Tokens of each tile.
    tiles: Vec<Range<usize>>,
}

impl Activations {
    fn new(path: Path, rows: &[(Vec<i8>, f32)]) -> Self {
        let (m, k) = (rows.len(), rows[0].0.len());
        let (mut tiles, mut codes, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        while first < m {
            let block_end = m.min((first / path.block_rows() + 1) * path.block_rows());
            let tile = first..first + path.tile_rows(block_end - first);
            let code = |row: usize, k: usize| rows.get(row).map_or(0, |(codes, _)| codes[k]);
            // Codes of a row that lie side by side.
            let run = if path == Path::Tiles { 64 } else { 4 };
            for k in (0..k).step_by(run) {
                codes.extend(
                    tile.clone()
                        .flat_map(|row| (k..k + run).map(move |k| code(row, k))),
                );
            }
            for k in (0..k).step_by(GROUP) {
                let sum = |row| (k..k + GROUP).map(|k| i32::from(code(row, k))).sum();
                starts.extend(tile.clone().map(|row| path.start(sum(row))));
            }
            first = tile.end;
            tiles.push(tile);
        }
        let mut ta: Vec<f32> = rows.iter().map(|(_, ta)| *ta).collect();
        ta.resize(m.max(first), 0.0);
        Self {
            path,
            codes,
            starts,
            ta,
            tiles,
        }
    }

    /// Rows of a block of D.
    fn block_rows(&self) -> usize {
        let rows = self.tiles.last().map_or(0, |tile| tile.end);
        self.path.block_rows().min(rows)
    }

    /// Tiles whose tokens lie in a block of rows.
    fn tiles(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let of_block = move |tile: &&Range<usize>| rows.contains(&tile.start);
        self.tiles.iter().filter(of_block).cloned()
    }
}

/// Some groups of a tile's tokens times two or four panels.
#[derive(Clone, Copy)]
struct Tile {
    /// The tokens' codes and starts, from the first of the groups on.
    codes: *const i8,
    starts: *const i32,
    /// Nibbles or bytes, scales and zero points, from the first panel's first of the groups on.
    weights: *const u8,
    scales: *const f32,
    zeros: *const u8,
    /// Groups from a panel's scales (and nibbles) to the next panel's.
    panel_groups: usize,
    groups: usize,
    /// Whether sums start at zero; else they go on from those in `d`.
    first: bool,
    /// Scales of the tokens once the last group is there, or null.
    ta: *const f32,
    /// `[tokens][64]`
    d: *mut f32,
}

/// `d` is `[blocks of rows][N / 64][rows][64]`.
fn gemm(device: &CpuDevice, a: &Activations, weights: &Weights, copy: usize, d: &mut [f32]) {
    let (rows, blocks) = (a.block_rows(), weights.n / COLUMNS);
    device.pool().for_each_chunk(d, rows * COLUMNS, |chunk, d| {
        let (row_block, column_block) = (chunk / blocks, chunk % blocks);
        let rows = row_block * rows..(row_block + 1) * rows;
        let panels = weights.panels(copy, column_block);
        match a.path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => avx2::block(a, rows, panels, d),
            #[cfg(target_arch = "x86_64")]
            Path::Nibbles => avx512vnni::nibbles(a, rows, panels, d),
            #[cfg(target_arch = "x86_64")]
            Path::Widened => avx512vnni::widened(a, rows, panels, d),
            #[cfg(target_arch = "x86_64")]
            Path::Tiles => amx::block(a, rows, panels, d),
            #[cfg(not(target_arch = "x86_64"))]
            path => unreachable!(
                "{path:?} needs x86-64: {rows:?} of {}, {}",
                panels.groups,
                d.len()
            ),
        }
    });
}

/// A tile of a block: `tile` tokens of A, groups from `first_group` on, sums at `d[token][column]` of the block.
fn tile(a: &Activations, tile: &Range<usize>, panels: Panels<'_>, groups: Range<usize>, d: *mut f32) -> Tile {
    let last = groups.end == panels.groups;
    let (start, rows, k) = (tile.start, tile.len(), panels.groups * GROUP);
    Tile {
        codes: a.codes[start * k + groups.start * GROUP * rows..].as_ptr(),
        starts: a.starts[start * panels.groups + groups.start * rows..].as_ptr(),
        weights: panels.q[groups.start * GROUP_LINES..].as_ptr().cast(),
        scales: panels.scales[groups.start..].as_ptr().cast(),
        zeros: panels.zeros[groups.start..].as_ptr().cast(),
        panel_groups: panels.groups,
        groups: groups.len(),
        first: groups.start == 0,
        ta: if last {
            a.ta[start..].as_ptr()
        } else {
            std::ptr::null()
        },
        d,
    }
}

/// Runs `f` for every run of groups that is widened at a time.
fn group_blocks(groups: usize) -> impl Iterator<Item = Range<usize>> {
    (0..groups)
        .step_by(BLOCK_GROUPS)
        .map(move |first| first..(first + BLOCK_GROUPS).min(groups))
}

/// The specification: an output of the first copy.
fn naive(codes: &[i8], ta: f32, weights: &Weights, row: usize) -> f32 {
    let sum = codes
        .chunks_exact(GROUP)
        .enumerate()
        .fold(0.0, |sum: f32, (group, codes)| {
            let (scale, zero) = weights.group(row, group);
            let q = |k: usize| i32::from(weights.q(row, group * GROUP + k)) - i32::from(zero);
            let exact: i32 = codes.iter().enumerate().map(|(k, a)| i32::from(*a) * q(k)).sum();
            (exact as f32).mul_add(scale, sum)
        });
    sum * ta
}

/// Every output of small products, bit for bit.
fn check(device: &CpuDevice) {
    let (n, k) = (2 * COLUMNS, 9 * GROUP);
    let weights = Weights::random((n, k), 1);
    for m in [1, 2, 7, 14, 23, 250, 530] {
        let Some(path) = Path::of(device.isa(), m) else {
            return;
        };
        let mut next = random(m as u64);
        let extremes = [127, -127];
        let mut code = |row: usize| match row % 5 {
            0 => extremes[(next() & 1) as usize],
            1 => 127,
            _ => (next() as i8).max(-127),
        };
        let rows: Vec<(Vec<i8>, f32)> = (0..m)
            .map(|row| ((0..k).map(|_| code(row)).collect(), 0.25 + row as f32 / 3.0))
            .collect();
        let a = Activations::new(path, &rows);
        let block = a.block_rows();
        let mut d = vec![f32::NAN; m.div_ceil(block) * block * n];
        gemm(device, &a, &weights, 0, &mut d);
        for (row, (codes, ta)) in rows.iter().enumerate() {
            for column in 0..n {
                let place = (row / block * (n / COLUMNS) + column / COLUMNS) * block + row % block;
                let got = d[place * COLUMNS + column % COLUMNS];
                let expected = naive(codes, *ta, &weights, column);
                assert!(
                    got.to_bits() == expected.to_bits(),
                    "{path:?} {m}x{n}x{k} at {row}, {column}: {got}, expected {expected}"
                );
            }
        }
    }
}

/// Rows `gemm_w4f` of the table.
pub fn float_groups(device: &CpuDevice, table: &mut Table) {
    if !table.wants("gemm_w4f") || Path::of(device.isa(), 1).is_none() {
        return;
    }
    check(device);
    for (n, k) in LAYERS.into_iter().chain([SQUARE]) {
        for m in [1, 128, 512] {
            let (shape, bytes) = (format!("{m}x{n}x{k}"), Weights::bytes((n, k)));
            let Some(path) = Path::of(device.isa(), m).filter(|_| table.wants_shape(&shape)) else {
                continue;
            };
            let copies = match m {
                1 => ROTATION_BYTES.div_ceil(bytes).min(24),
                _ => 1,
            };
            let weights = Weights::random((n, k), copies);
            let codes = quantized(device, &matrix(device, m, k));
            let rows: Vec<_> = (0..m).map(|row| codes.row(row)).collect();
            let a = Activations::new(path, &rows);
            let mut d = in_huge_pages(m.div_ceil(a.block_rows()) * a.block_rows() * n);
            d.resize(d.capacity(), 0.0);
            let (amount, unit) = match m {
                1 => (bytes as f64, "GB/s"),
                _ => (2.0 * (m * n * k) as f64, "GOPS"),
            };
            let mut turn = 0;
            table.row(device, "gemm_w4f", &shape, amount, unit, || {
                turn = (turn + 1) % copies;
                gemm(device, &a, &weights, turn, &mut d);
            });
        }
    }
}

//! How weights, activations and outputs of the comparison lie in memory.

use std::ops::Range;

use super::path::Path;
use crate::operands::random;

/// Columns of B that share a scale and a zero point.
pub(super) const GROUP: usize = 128;

/// Rows of N in a panel.
pub(super) const PANEL: usize = 16;

/// Bytes of a line: 8 k of a panel as nibbles, 4 k as bytes.
pub(super) const LINE: usize = 64;

/// Lines of nibbles in a group of a panel.
pub(super) const GROUP_LINES: usize = GROUP / 8;

/// Bytes of a widened group of a panel.
pub(super) const GROUP_BYTES: usize = GROUP * PANEL;

/// Panels of a block of D.
pub(super) const PANELS: usize = 4;

/// Columns of a block of D.
pub(super) const COLUMNS: usize = PANELS * PANEL;

/// Groups widened at a time.
pub(super) const BLOCK_GROUPS: usize = 4;

/// As weights are read from memory: a whole cache line each.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(align(64))]
pub(super) struct Line<T>(pub(super) T);

/// Copies of a layer, one after the other.
pub(super) struct Weights {
    pub(super) n: usize,
    pub(super) k: usize,
    /// `[copies][N / 16][K / 8]` lines; byte b of row r at `4 * r + b`: low nibble k + b, high nibble k + 4 + b.
    pub(super) q: Vec<Line<[u8; LINE]>>,
    /// `[copies][N / 16][groups][16]`
    pub(super) scales: Vec<Line<[f32; PANEL]>>,
    /// `[copies][N / 16][groups][16]`, 0..=15
    pub(super) zeros: Vec<[u8; PANEL]>,
}

impl Weights {
    pub(super) fn random((n, k): (usize, usize), copies: usize) -> Self {
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

    pub(super) fn groups(&self) -> usize {
        self.k / GROUP
    }

    /// Bytes of one copy of a layer of this shape.
    pub(super) fn bytes((n, k): (usize, usize)) -> usize {
        n * k / 2 + n * k / GROUP * 5
    }

    /// Code `q[n,k]` of the first copy.
    pub(super) fn q(&self, row: usize, k: usize) -> u8 {
        let Line(line) = &self.q[row / PANEL * (self.k / 8) + k / 8];
        line[row % PANEL * 4 + k % 4] >> (k % 8 / 4 * 4) & 15
    }

    /// Scale and zero point of a row's group in the first copy.
    pub(super) fn group(&self, row: usize, group: usize) -> (f32, u8) {
        let place = row / PANEL * self.groups() + group;
        (self.scales[place].0[row % PANEL], self.zeros[place][row % PANEL])
    }

    /// Four panels of a copy.
    pub(super) fn panels(&self, copy: usize, block: usize) -> Panels<'_> {
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
pub(super) fn in_huge_pages<T>(capacity: usize) -> Vec<T> {
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
pub(super) struct Panels<'a> {
    pub(super) q: &'a [Line<[u8; LINE]>],
    pub(super) scales: &'a [Line<[f32; PANEL]>],
    pub(super) zeros: &'a [[u8; PANEL]],
    pub(super) groups: usize,
}

#[cfg(target_arch = "x86_64")]
impl Panels<'_> {
    /// What is left without the first `panels`.
    pub(super) fn from(mut self, panels: usize) -> Self {
        let groups = panels * self.groups;
        self.q = &self.q[groups * GROUP_LINES..];
        self.scales = &self.scales[groups..];
        self.zeros = &self.zeros[groups..];
        self
    }
}

/// Tokens in tiles.
pub(super) struct Activations {
    pub(super) path: Path,
    /// `[tiles][K / 4][tokens][4]`; for AMX `[tiles][K / 64][16][64]`.
    pub(super) codes: Vec<i8>,
    /// `[tiles][groups][tokens]`
    pub(super) starts: Vec<i32>,
    /// `[tokens]`
    pub(super) ta: Vec<f32>,
    /// Tokens of each tile.
    pub(super) tiles: Vec<Range<usize>>,
}

impl Activations {
    pub(super) fn new(path: Path, rows: &[(Vec<i8>, f32)]) -> Self {
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
    pub(super) fn block_rows(&self) -> usize {
        let rows = self.tiles.last().map_or(0, |tile| tile.end);
        self.path.block_rows().min(rows)
    }

    /// Tiles whose tokens lie in a block of rows.
    pub(super) fn tiles(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let of_block = move |tile: &&Range<usize>| rows.contains(&tile.start);
        self.tiles.iter().filter(of_block).cloned()
    }
}

/// Some groups of a tile's tokens times two or four panels.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// The tokens' codes and starts, from the first of the groups on.
    pub(super) codes: *const i8,
    pub(super) starts: *const i32,
    /// Nibbles or bytes, scales and zero points, from the first panel's first of the groups on.
    pub(super) weights: *const u8,
    pub(super) scales: *const f32,
    pub(super) zeros: *const u8,
    /// Groups from a panel's scales (and nibbles) to the next panel's.
    pub(super) panel_groups: usize,
    pub(super) groups: usize,
    /// Whether sums start at zero; else they go on from those in `d`.
    pub(super) first: bool,
    /// Scales of the tokens once the last group is there, or null.
    pub(super) ta: *const f32,
    /// `[tokens][64]`
    pub(super) d: *mut f32,
}

/// A tile of a block: `tile` tokens of A, groups from `first_group` on, sums at `d[token][column]` of the block.
pub(super) fn tile(
    a: &Activations,
    tile: &Range<usize>,
    panels: Panels<'_>,
    groups: Range<usize>,
    d: *mut f32,
) -> Tile {
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
pub(super) fn group_blocks(groups: usize) -> impl Iterator<Item = Range<usize>> {
    (0..groups)
        .step_by(BLOCK_GROUPS)
        .map(move |first| first..(first + BLOCK_GROUPS).min(groups))
}

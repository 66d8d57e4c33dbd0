//! Quantized activations: INT8 codes as the integer tiles read them.

use dualgrain_device::Capacity;

use crate::isa::Isa;
use crate::memory::huge_pages::in_huge_pages;

/// Elements whose codes are summed together: the smallest group size, so that any group's sum is a sum of blocks.
pub(crate) const SUM_BLOCK: usize = 32;

/// The most rows of quantized activations that lie side by side.
pub(crate) const TILE_ROWS: usize = 12;
/// The same on AVX2, whose tile has four: at K = 4,096 twelve and a panel of weights would pass the first-level cache.
pub(crate) const AVX2_TILE_ROWS: usize = 4;

/// Rows and codes of an AMX tile.
pub(crate) const AMX_TILE_ROWS: usize = 16;
pub(crate) const AMX_TILE_CODES: usize = 64;

/// Up to this many rows a product is bound by reading its weights, which it then takes as they are packed, whatever the
/// instruction set.
pub(crate) const FEW_ROWS: usize = 8;

/// INT8 codes `[rows, columns]`, their scales `[rows]`, and the sums of every 32 codes that integer products take the
/// zero points out with.
///
/// Codes lie as the integer tiles read them: `[rows / 12][K / 4][12][4]`, the 4 codes a dot product takes from each of 12
/// rows side by side (fewer when there are fewer rows), so that a tile's addresses are one pointer and constants;
/// K is padded with zeros to a multiple of 32. For AMX and more than 8 rows: `[rows / 16][K / 64][16][64]`, K padded to 64.
#[derive(Debug, Clone)]
pub struct Quantized {
    pub(crate) capacity: Capacity,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    isa: Isa,
    quads: Vec<[i8; 4]>,
    pub(crate) scales: Vec<f32>,
    block_sums: Vec<i32>,
}

/// Where the codes of a row lie, in groups of four (quads).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Rows of a tile.
    pub(crate) tile_rows: usize,
    /// Quads of a row, padding included.
    pub(crate) row_quads: usize,
    /// From a row's first quad to that of the next row in its tile.
    row_step: usize,
    /// From one quad of a row to the next, 16 times; then `chunk_step` from the first of these.
    quad_step: usize,
    chunk_step: usize,
}

impl Layout {
    /// Quads of a chunk.
    const CHUNK: usize = AMX_TILE_CODES / 4;

    /// The first quad of a row.
    pub(crate) fn row(self, row: usize) -> usize {
        row / self.tile_rows * self.tile_quads() + row % self.tile_rows * self.row_step
    }

    /// From a row's first quad to another.
    #[inline(always)]
    pub(crate) fn quad(self, quad: usize) -> usize {
        quad / Self::CHUNK * self.chunk_step + quad % Self::CHUNK * self.quad_step
    }

    /// Whether eight quads of a block lie one after the other.
    #[inline(always)]
    pub(crate) fn is_contiguous(self) -> bool {
        self.quad_step == 1
    }

    /// Quads of a tile.
    pub(crate) fn tile_quads(self) -> usize {
        self.tile_rows * self.row_quads
    }
}

/// The parts of [`Quantized`] to be written.
pub(crate) struct QuantizedParts<'a> {
    /// Codes, tile by tile.
    pub(crate) quads: &'a mut [[i8; 4]],
    /// `[rows]`
    pub(crate) scales: &'a mut [f32],
    /// `[rows, blocks]`
    pub(crate) block_sums: &'a mut [i32],
}

impl Quantized {
    pub(crate) fn new(isa: Isa, capacity: usize, columns: usize) -> Self {
        let mut new = Self {
            capacity: Capacity::new(capacity, columns),
            rows: 0,
            columns,
            isa,
            quads: Vec::new(),
            scales: Vec::new(),
            block_sums: Vec::new(),
        };
        let largest = [capacity, capacity.min(FEW_ROWS)].map(|rows| {
            let layout = new.layout(rows);
            rows.next_multiple_of(layout.tile_rows) * layout.row_quads
        });
        new.quads = in_huge_pages(largest[0].max(largest[1]));
        new.scales.reserve(capacity);
        new.block_sums.reserve(capacity * new.blocks());
        new
    }

    /// All rows, as a product reads them.
    pub(crate) fn view(&self) -> CodeRows<'_> {
        CodeRows {
            rows: self.rows,
            columns: self.columns,
            isa: self.isa,
            quads: &self.quads,
            scales: &self.scales,
            block_sums: &self.block_sums,
        }
    }

    /// Where codes lie when there are `rows` rows.
    fn layout(&self, rows: usize) -> Layout {
        layout(self.isa, self.columns, rows)
    }

    /// Blocks of 32 codes in a row.
    pub(crate) fn blocks(&self) -> usize {
        self.columns.div_ceil(SUM_BLOCK)
    }

    /// Takes another number of rows, for which there is room; says where their codes go.
    pub(crate) fn resize(&mut self, rows: usize) -> Layout {
        let layout = self.layout(rows);
        self.rows = rows;
        self.quads
            .resize(rows.next_multiple_of(layout.tile_rows) * layout.row_quads, [0; 4]);
        self.scales.resize(rows, 0.0);
        self.block_sums.resize(rows * self.blocks(), 0);
        layout
    }

    /// Codes and scale of a row, copied.
    pub fn row(&self, row: usize) -> (Vec<i8>, f32) {
        let layout = self.layout(self.rows);
        let quad = |quad: usize| self.quads[layout.row(row) + layout.quad(quad)];
        let mut codes: Vec<i8> = (0..layout.row_quads).flat_map(quad).collect();
        codes.truncate(self.columns);
        (codes, self.scales[row])
    }

    pub(crate) fn upload(&mut self, codes: &[i8], scales: &[f32]) {
        let (layout, blocks) = (self.resize(scales.len()), self.blocks());
        self.scales.copy_from_slice(scales);
        for (row, source) in codes.chunks_exact(self.columns).enumerate() {
            for quad in 0..layout.row_quads {
                let place = layout.row(row) + layout.quad(quad);
                self.quads[place] = std::array::from_fn(|b| source.get(4 * quad + b).copied().unwrap_or(0));
            }
            for (sum, block) in self.block_sums[row * blocks..]
                .iter_mut()
                .zip(source.chunks(SUM_BLOCK))
            {
                *sum = block.iter().map(|&code| i32::from(code)).sum();
            }
        }
    }

    pub(crate) fn parts_mut(&mut self) -> QuantizedParts<'_> {
        QuantizedParts {
            quads: &mut self.quads,
            scales: &mut self.scales,
            block_sums: &mut self.block_sums,
        }
    }
}

/// Where the codes of `rows` rows of `columns` elements lie.
pub(crate) fn layout(isa: Isa, columns: usize, rows: usize) -> Layout {
    let quads = columns.div_ceil(SUM_BLOCK) * SUM_BLOCK / 4;
    if isa == Isa::Amx && rows > FEW_ROWS {
        return Layout {
            tile_rows: AMX_TILE_ROWS,
            row_quads: quads.next_multiple_of(Layout::CHUNK),
            row_step: Layout::CHUNK,
            quad_step: 1,
            chunk_step: AMX_TILE_ROWS * Layout::CHUNK,
        };
    }
    let tile_rows = rows.clamp(1, most_tile_rows(isa));
    Layout {
        tile_rows,
        row_quads: quads,
        row_step: 1,
        quad_step: tile_rows,
        chunk_step: tile_rows * Layout::CHUNK,
    }
}

/// The rows of quantized activations that a product reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeRows<'a> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) isa: Isa,
    /// Codes, tile by tile.
    pub(crate) quads: &'a [[i8; 4]],
    /// `[rows]`
    pub(crate) scales: &'a [f32],
    /// `[rows, blocks]`
    pub(crate) block_sums: &'a [i32],
}

impl<'a> CodeRows<'a> {
    /// Whether a product of `isa` reads codes where they lie.
    pub(crate) fn is_laid_out_for(&self, isa: Isa) -> bool {
        let layout = |isa| (isa == Isa::Amx, most_tile_rows(isa));
        layout(self.isa) == layout(isa)
    }

    /// Whether codes lie in tiles for AMX.
    pub(crate) fn is_in_amx_tiles(&self) -> bool {
        self.isa == Isa::Amx && self.rows > FEW_ROWS
    }

    /// Rows whose codes lie side by side.
    pub(crate) fn tile_rows(&self) -> usize {
        self.layout().tile_rows
    }

    /// Rows that lie side by side when there are enough of them (and no tiles of AMX).
    pub(crate) fn most_tile_rows(&self) -> usize {
        most_tile_rows(self.isa)
    }

    /// Where codes lie.
    pub(crate) fn layout(&self) -> Layout {
        layout(self.isa, self.columns, self.rows)
    }

    /// Codes from `row`'s first on: its next four, and the other rows of its tile beside them, `tile_rows` on.
    pub(crate) fn tile(&self, row: usize) -> &'a [[i8; 4]] {
        debug_assert!(!self.is_in_amx_tiles());
        &self.quads[self.layout().row(row)..]
    }

    /// Codes of the AMX tiles of 16 rows, from the first on.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn amx_tiles(&self, tile: usize) -> &'a [i8] {
        debug_assert!(self.is_in_amx_tiles());
        self.quads[tile * self.layout().tile_quads()..].as_flattened()
    }

    /// Sums of every 32 codes of a row.
    pub(crate) fn block_sums(&self, row: usize) -> &'a [i32] {
        let blocks = self.columns.div_ceil(SUM_BLOCK);
        &self.block_sums[row * blocks..(row + 1) * blocks]
    }
}

fn most_tile_rows(isa: Isa) -> usize {
    match isa {
        Isa::Avx2 => AVX2_TILE_ROWS,
        _ => TILE_ROWS,
    }
}

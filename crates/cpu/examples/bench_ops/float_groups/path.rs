//! Which kernel computes a product, and with which tiles.

use dualgrain_cpu::Isa;

/// How a product is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Path {
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
    pub(super) fn of(isa: Isa, m: usize) -> Option<Self> {
        match isa {
            Isa::Avx2 => Some(Self::Avx2),
            Isa::Avx512Vnni | Isa::Amx if m == 1 => Some(Self::Nibbles),
            Isa::Avx512Vnni => Some(Self::Widened),
            Isa::Amx => Some(Self::Tiles),
            Isa::Portable | Isa::AvxVnni => None,
        }
    }

    /// Tokens that pass over a widened block.
    pub(super) fn block_rows(self) -> usize {
        match self {
            Self::Tiles => 512,
            _ => 240,
        }
    }

    /// Tokens of the first tile of `rows` that remain.
    pub(super) fn tile_rows(self, rows: usize) -> usize {
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
    pub(super) fn start(self, sum: i32) -> i32 {
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

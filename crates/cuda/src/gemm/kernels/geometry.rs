//! How a configuration lies over a product on a card.

use crate::driver::Launch;

/// Which tiles are cut along K, so that all multiprocessors share them through memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// None: every tile is one CTA's, or one cluster's.
    Whole,
    /// Those of the last, incomplete round.
    Tail,
    /// All of them.
    All,
}

/// A configuration laid over a product on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// CTAs, threads and shared memory.
    pub launch: Launch,
    /// Tiles, the padding of a cluster among them.
    pub tiles: usize,
    /// The last tiles, which are cut along K.
    pub cut_tiles: usize,
    /// Token tiles that are visited before the next feature tile; 0 means all.
    pub raster_m: usize,
    /// Bytes for the sums of cut tiles.
    pub workspace_bytes: usize,
}

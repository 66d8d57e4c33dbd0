//! The operands of a tile: some tokens times a panel or a few.
//!
//! Tiles go by reference down to the function that computes. A copy of fields just written, loaded 16 bytes at a time, waits until
//! every store before it has left, the last tile's outputs among them (512 tokens: 7 % of the time on AVX2).

use super::layout::{GROUP_BYTES, LINE, PANEL};

/// How far ahead weights are asked for: the hardware's prefetcher stops at every 4 KB page. Measured on one core for one
/// token, GB/s of 17.5 that reading alone gets: 15.4 at 4 KB, 16.2 at 2 KB, 15.8 at 1 KB.
pub(super) const PREFETCH_BYTES: usize = 2048;

/// Some tokens times one or more W4 panels.
#[derive(Clone, Copy)]
pub(super) struct W4Tile {
    /// Lines of the first panel: `lines * 64` bytes; the next panel starts `panel_bytes` later.
    pub(super) q: *const u8,
    pub(super) lines: usize,
    pub(super) panel_bytes: usize,
    /// 16 scales, 16 zero points for each group, panel by panel.
    pub(super) groups: *const u8,
    pub(super) lines_per_group: usize,
    /// Four codes of token m at `a + 4 * m`, the next four `a_step` bytes on; zero up to `8 * lines`.
    pub(super) a: *const i8,
    pub(super) a_step: usize,
    /// Sums of token m's codes in each group, at `group_sums + m * num_groups`.
    pub(super) group_sums: *const i32,
    pub(super) num_groups: usize,
    /// Sums `[tokens, acc_stride]` to write, 16 for each panel.
    pub(super) acc: *mut i32,
    pub(super) acc_stride: usize,
}

impl W4Tile {
    /// See [`ahead`].
    #[inline(always)]
    pub(super) fn ahead(&self, line: usize, panels: usize) -> usize {
        ahead((line, self.lines), panels, self.panel_bytes)
    }

    /// The tile of panel `panel` alone.
    ///
    /// # Safety
    /// The tile has that panel.
    #[inline(always)]
    pub(super) unsafe fn panel(mut self, panel: usize) -> Self {
        // SAFETY: inside what the tile describes.
        unsafe {
            self.q = self.q.add(panel * self.panel_bytes);
            self.groups = self.groups.add(panel * self.num_groups * GROUP_BYTES);
            self.acc = self.acc.add(panel * PANEL);
        }
        self
    }

    /// The tile without its first `rows` tokens.
    ///
    /// # Safety
    /// The tile has as many.
    #[inline(always)]
    pub(super) unsafe fn rows_from(mut self, rows: usize) -> Self {
        // SAFETY: inside what the tile describes, or one past it.
        unsafe {
            self.a = self.a.add(4 * rows);
            self.group_sums = self.group_sums.add(rows * self.num_groups);
            self.acc = self.acc.add(rows * self.acc_stride);
        }
        self
    }
}

/// Some tokens times one or two W8 panels.
#[derive(Clone, Copy)]
pub(super) struct W8Tile {
    /// Lines of the first panel: `lines * 64` bytes; the second panel starts `panel_bytes` later.
    pub(super) w: *const u8,
    pub(super) lines: usize,
    pub(super) panel_bytes: usize,
    pub(super) a: *const i8,
    pub(super) a_step: usize,
    /// What each token's sums start at, or null: at what `acc` holds.
    pub(super) start: *const i32,
    /// Sums `[tokens, acc_stride]` to write, 16 for each panel.
    pub(super) acc: *mut i32,
    pub(super) acc_stride: usize,
}

impl W8Tile {
    /// See [`ahead`].
    #[inline(always)]
    pub(super) fn ahead(&self, line: usize, panels: usize) -> usize {
        ahead((line, self.lines), panels, self.panel_bytes)
    }

    /// The tile without its first `rows` tokens.
    ///
    /// # Safety
    /// The tile has as many.
    #[inline(always)]
    pub(super) unsafe fn rows_from(mut self, rows: usize) -> Self {
        // SAFETY: inside what the tile describes, or one past it.
        unsafe {
            self.a = self.a.add(4 * rows);
            if !self.start.is_null() {
                self.start = self.start.add(rows);
            }
            self.acc = self.acc.add(rows * self.acc_stride);
        }
        self
    }
}

/// How far ahead of a line of some panels to prefetch: what follows the last lines is not the next panel, which is being
/// read beside this one, but the one after all `panels` of the tile.
#[inline(always)]
fn ahead((line, lines): (usize, usize), panels: usize, panel_bytes: usize) -> usize {
    if line + PREFETCH_BYTES / LINE < lines {
        PREFETCH_BYTES
    } else {
        PREFETCH_BYTES + (panels - 1) * panel_bytes
    }
}

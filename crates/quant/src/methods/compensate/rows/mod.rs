//! Rows whose codes are still being chosen: sixteen side by side (`lanes`, `bundle`), as many as a product takes at once
//! (`tile`), and the loop that rounds some of their columns in order (`rounding`).

pub mod bundle;
pub mod lanes;
pub mod rounding;
pub mod tile;

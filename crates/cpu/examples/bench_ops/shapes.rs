//! The layers that are timed.

/// Copies of a layer pass this size together, so that none stays in a cache.
pub const ROTATION_BYTES: usize = 1 << 29;

/// Shapes of a 1.1B Llama: qkv, o, gate_up, down.
pub const LAYERS: [(usize, usize); 4] = [(2_560, 2_048), (2_048, 2_048), (11_264, 2_048), (2_048, 5_632)];
/// A square layer beside them.
pub const SQUARE: (usize, usize) = (4_096, 4_096);

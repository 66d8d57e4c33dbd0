//! A fitted model as bytes.
//!
//! ```text
//! 8 bytes   "DUALGRNM"
//! u32       version
//! u32       CRC-32 of what follows
//! u64       length of the contents before compression
//! the rest  contents, deflated: u32 length of the header, the header (JSON: machine, catalogue, factors, report, sizes of the
//!           ensembles), then each ensemble: a forest's nodes (threshold f32, feature u16, left u16) and values (f32);
//!           boosting's thresholds (f32), features (u8) and values (f32), tree after tree
//! ```
//!
//! All numbers are little-endian. `container` is the outer frame, `header` the JSON, `ensembles` the trees; `model_bytes`
//! puts them together.

mod container;
mod ensembles;
mod header;
mod model_bytes;

pub(crate) use model_bytes::{model_from_bytes, model_to_bytes};

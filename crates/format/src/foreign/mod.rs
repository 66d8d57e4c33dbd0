//! Linears as other programs quantize them: which tensors stand for one, how their bits lie, and the floats that they mean.
//!
//! All of them are codes, scales and zero points: `w[n,k] = (code[n,k] - zero[n,g]) * scale[n,g]`, in f32. With codes of 8 bits at most and
//! scales of 16 bits the product is exact, so that no float is rounded here; the programs themselves round it to 16 bits.
//!
//! They are read as floats, and not turned into linears of ours directly: a group scale of ours is an integer of which a full range of
//! four bits leaves 1 to 8 (`s2 * (q - zero)` fits INT8), so a group scale of 16 bits has no exact counterpart.

mod awq;
mod compressed;
mod error;
mod fields;
mod fp8;
mod gptq;
mod mxfp4;
mod packed;
mod part;
mod pattern;
mod scheme;
mod small_floats;
mod target;
mod words;

pub use error::ForeignError;
pub use packed::PackedLinear;
pub use part::{Part, Parts};
pub use scheme::ForeignScheme;

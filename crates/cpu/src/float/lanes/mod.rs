//! Sixteen f32 lanes in registers: one of AVX-512, two of AVX2, an array elsewhere.
//!
//! Only the matrix tiles need them: there the number of live accumulators must be exact, which auto-vectorization does
//! not promise. Everything else is plain loops compiled per instruction set.
//!
//! | type | instruction sets | registers |
//! |---|---|---|
//! | [`Portable`] | any | an array |
//! | [`Avx2`] | AVX2, AVX-VNNI | two of 256 bits |
//! | [`Avx512`] | AVX-512 VNNI, AMX | one of 512 bits |

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod f32x16;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use f32x16::{Element, F32x16, LANES};
pub(crate) use portable::Portable;

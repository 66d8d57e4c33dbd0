//! Integer products `D[M,N] = A[M,K] * B[N,K]^T` with 4-bit (W4) or 8-bit (W8) weights, exact in i32.
//!
//! `layout` says how weights are packed, `packed` packs them. `product` cuts a product into tasks, `task` passes tokens
//! over panels, `tile` describes what one kernel call multiplies, `choose` picks the kernel, `epilogue` turns sums into
//! floats where they go. `amx` has its own tasks, for activations that lie in its tiles (`tensor/quantized.rs`).
//! `experts` are the products of a mixture's experts.
//!
//! | instruction set | few tokens, W4 | more tokens, W4 | W8 | name in tests and benches |
//! |---|---|---|---|---|
//! | any (`portable`) | nibbles | nibbles | plain loops | `gemm_w4a8_portable` |
//! | AVX2 (`avx2`) | nibbles, `maddubs` | nibbles, `maddubs` | `maddubs` of magnitudes | `gemm_w4a8_avx2` |
//! | AVX-VNNI (`avxvnni`) | nibbles, 256-bit `vpdpbusd` | widened to W8 | 256-bit `vpdpbusd` | `gemm_w4a8_avxvnni` |
//! | AVX-512 VNNI (`avx512vnni`) | nibbles, `vpdpbusd` | widened to W8 | `vpdpbusd` | `gemm_w4a8_avx512vnni` |
//! | AMX (`amx`) | as AVX-512 VNNI | widened, `tdpbsud` | `tdpbsud` of more than 8 tokens | `gemm_w4a8_amx` |

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
mod choose;
pub(crate) mod epilogue;
pub(crate) mod experts;
mod layout;
pub(crate) mod packed;
mod portable;
pub(crate) mod product;
mod task;
#[cfg(test)]
mod tests;
mod tile;

//! Attention over an INT8 cache, in integers.
//!
//! `products` makes codes of queries and weights and runs both products in tiles (`tile`), whose dot products of four codes
//! (`dot`) each instruction set has in a file; `choose` picks them.
//!
//! | instruction set | dot product | name in tests and benches |
//! |---|---|---|
//! | any (`portable`) | arrays | `attention_int8_portable` |
//! | AVX2 (`avx2`) | `maddubs` and `madd` | `attention_int8_avx2` |
//! | AVX-VNNI (`avxvnni`) | 256-bit `vpdpbusd` | `attention_int8_avxvnni` |
//! | AVX-512 VNNI, AMX (`avx512vnni`) | `vpdpbusd` | `attention_int8_avx512vnni` |

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
mod choose;
mod dot;
mod portable;
mod products;
mod tile;

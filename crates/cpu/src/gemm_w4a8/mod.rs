//! Integer products `D[M,N] = A[M,K] * B[N,K]^T` with 4-bit or 8-bit weights.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
pub(crate) mod epilogue;
mod portable;
pub(crate) mod product;
#[cfg(test)]
mod tests;
pub(crate) mod tile;

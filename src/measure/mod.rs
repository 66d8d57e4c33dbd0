//! Verbs that need no model folder: what this machine has (`doctor`), what matrix products take on it (`profile`, `bench gemm`),
//! and how fast a server answers (`bench serve`).

#[cfg(feature = "cuda")]
mod card_reading;
pub mod doctor;
#[cfg(feature = "cuda")]
pub mod gemm;
pub mod machine;
pub mod profile;
pub mod revision;
pub mod traffic;

//! Verbs that look at this machine without any model: what it has (`doctor`) and what matrix products take on it (`profile`,
//! `bench gemm`).

#[cfg(feature = "cuda")]
mod card_reading;
pub mod doctor;
#[cfg(feature = "cuda")]
pub mod gemm;
pub mod machine;
pub mod profile;
pub mod revision;

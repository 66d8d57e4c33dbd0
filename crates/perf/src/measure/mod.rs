//! Sweeps.

mod cpu;
#[cfg(feature = "cuda")]
mod gpu;
mod space;
mod sweep;

pub use cpu::profile_cpu;
#[cfg(feature = "cuda")]
pub use gpu::{EnergyTruth, check_energy, profile_gpu};
pub use space::Space;
pub use sweep::{ProfileOptions, ProfileSummary, Watch};

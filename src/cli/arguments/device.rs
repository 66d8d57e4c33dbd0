//! Where a model runs.

use clap::Args;
use dualgrain::DeviceChoice;

/// Where a model runs.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OnDevice {
    /// Where the model runs: auto (the first NVIDIA card where the model fits it, else the CPU), cpu, or cuda:N.
    #[arg(long = "device", default_value_t = DeviceChoice::Cpu, value_name = "DEVICE", id = "device")]
    pub choice: DeviceChoice,
}

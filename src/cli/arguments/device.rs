//! Where a model runs.

use clap::Args;
use dualgrain::DeviceChoice;

/// Where a model runs.
#[derive(Debug, Clone, Copy, Args)]
pub struct OnDevice {
    /// Where the model runs: auto (the first NVIDIA card where the model fits it, else the CPU), cpu, or cuda:N.
    #[arg(long = "device", default_value_t = DeviceChoice::Cpu, value_name = "DEVICE", id = "device")]
    pub choice: DeviceChoice,
    /// Share of the device's free memory that model, cache and buffers may take together.
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", value_parser = memory_share)]
    pub memory: f64,
}

/// Accepts shares above 0, up to 1.
pub(super) fn memory_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err(format!(
            "`{text}` is no share: a number above 0 and at most 1, e.g. 0.9"
        )),
    }
}

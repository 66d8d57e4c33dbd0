//! What every step of a run shares.

use dualgrain_device::{ActivationScale, Device};
use dualgrain_engine::{ModelConfig, Weights};
use dualgrain_format::ActivationScheme;
use dualgrain_threads::Pool;

use crate::calibrate::statistics::InputStatistics;
use crate::methods::method::{Method, Resources};
use crate::monitor::Meter;
use crate::options::QuantOptions;
use crate::transform::activation_error::static_scale;

/// What every step of a run shares.
pub struct RunContext<'a, D: Device> {
    /// Runs the model and judges errors.
    pub device: &'a D,
    /// Shares what is computed on the host.
    pub pool: &'a Pool,
    /// The original model.
    pub config: &'a ModelConfig,
    /// Its tensors.
    pub weights: &'a Weights,
    /// The options.
    pub options: &'a QuantOptions,
    /// How linears are quantized.
    pub method: &'a dyn Method<D>,
    /// Progress and cancellation.
    pub meter: &'a Meter<'a>,
}

impl<D: Device> RunContext<'_, D> {
    /// What a method computes with.
    pub fn resources(&self) -> Resources<'_, D> {
        Resources {
            device: self.device,
            pool: self.pool,
            meter: self.meter,
        }
    }

    /// How the smoothed input of a linear becomes INT8.
    pub fn activations(&self, statistics: &InputStatistics) -> ActivationScale {
        match self.options.activations {
            ActivationScheme::PerToken => ActivationScale::PerToken,
            ActivationScheme::Static => ActivationScale::Static(static_scale(&statistics.maxima)),
        }
    }
}

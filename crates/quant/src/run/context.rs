//! What every step of a run shares.

use dualgrain_device::{ActivationScale, Statistics};
use dualgrain_engine::ModelConfig;
use dualgrain_format::{ActivationScheme, GroupSize, LinearScheme};
use dualgrain_threads::Pool;

use crate::calibrate::statistics::InputStatistics;
use crate::methods::int8::Int8;
use crate::methods::method::{Method, Resources};
use crate::monitor::Meter;
use crate::options::QuantOptions;
use crate::transform::activation_error::static_scale;
use crate::transform::rotation::original::Original;

/// What every step of a run shares.
pub struct RunContext<'a, D: Statistics> {
    /// Runs the model and judges errors.
    pub device: &'a D,
    /// Shares what is computed on the host.
    pub pool: &'a Pool,
    /// The original model.
    pub config: &'a ModelConfig,
    /// Its tensors, rotated where the options ask for it.
    pub original: &'a Original<'a>,
    /// The options.
    pub options: &'a QuantOptions,
    /// How linears get their four bits.
    pub method: &'a dyn Method<D>,
    /// Progress and cancellation.
    pub meter: &'a Meter<'a>,
}

impl<D: Statistics> RunContext<'_, D> {
    /// What a method computes with.
    pub fn resources(&self) -> Resources<'_, D> {
        Resources {
            device: self.device,
            pool: self.pool,
            meter: self.meter,
        }
    }

    /// How a linear gets `scheme`; `None` where it stays as it is.
    pub fn method_of(&self, scheme: LinearScheme) -> Option<(&dyn Method<D>, GroupSize)> {
        match scheme {
            LinearScheme::Float => None,
            // Rows of INT8 are not cut into groups.
            LinearScheme::W8 => Some((&Int8, GroupSize::WholeRow)),
            LinearScheme::W4 { group_size } => Some((self.method, group_size)),
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

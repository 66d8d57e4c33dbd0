//! What calibration knows about the input of a linear.

use dualgrain_device::{DeviceError, Gram, Statistics};
use dualgrain_engine::LinearId;

use crate::error::QuantError;

/// Tokens whose input rows are kept as they are, to judge the quantization of activations.
const NUM_SAMPLES: usize = 32;

/// A diagonal of the Gram matrix below this part of its mean counts as a dead channel.
const DEAD_FRACTION: f32 = 1e-6;

/// What calibration knows about the input of a linear.
#[derive(Debug, Clone)]
pub struct InputStatistics {
    /// Sum of x x^T over all tokens `[K,K]`, lower triangle.
    pub gram: Gram,
    /// Largest magnitude of every channel `[K]`.
    pub maxima: Vec<f32>,
    /// Rows of a few tokens, [samples, K].
    pub samples: Vec<f32>,
    /// Channels that were (nearly) zero on every token.
    pub num_dead: usize,
}

/// The input of a linear as it is observed, on the device.
pub struct Observation<'a, D: Statistics> {
    device: &'a D,
    gram: D::Gram,
    maxima: D::Maxima,
    /// [samples, K]
    samples: Vec<f32>,
    k: usize,
}

impl<'a, D: Statistics> Observation<'a, D> {
    /// Nothing observed yet of an input of `k` channels.
    ///
    /// # Errors
    /// The device has no room for the statistics.
    pub fn new(device: &'a D, k: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            gram: device.gram(k)?,
            maxima: device.maxima(k)?,
            samples: Vec::new(),
            device,
            k,
        })
    }

    /// Adds the tokens `x` `[M,K]` of window `window`.
    ///
    /// # Errors
    /// The device failed.
    pub fn add(&mut self, x: &D::Matrix, window: usize, num_windows: usize) -> Result<(), DeviceError> {
        let (device, k) = (self.device, self.k);
        device.gram_accumulate(&mut self.gram, x)?;
        device.abs_max(x, 0..k, &mut self.maxima)?;
        let rows = device.rows(x);
        let count = NUM_SAMPLES.div_ceil(num_windows).min(rows);
        for sample in 0..count {
            // A stride that is no multiple of anything spreads the samples over the positions.
            let row = (window * 37 + sample * rows / count) % rows;
            let start = self.samples.len();
            self.samples.resize(start + k, 0.0);
            device.download(x, row..row + 1, &mut self.samples[start..])?;
        }
        Ok(())
    }

    /// The statistics after the last window, those of the linear `role` of block `layer`.
    ///
    /// # Errors
    /// [`QuantError::NotFinite`]; the device failed.
    pub fn finish(self, layer: usize, role: &'static str) -> Result<InputStatistics, QuantError> {
        let mut statistics = InputStatistics {
            maxima: self.device.read_maxima(&self.maxima)?,
            gram: self.device.gram_to_host(self.gram)?,
            samples: self.samples,
            num_dead: 0,
        };
        if !statistics.is_finite() {
            return Err(QuantError::NotFinite { layer, role });
        }
        statistics.lift_dead_channels();
        Ok(statistics)
    }
}

impl InputStatistics {
    /// Takes the Gram matrix of the same input of linear `id`, observed once more.
    ///
    /// # Errors
    /// [`QuantError::NotFinite`].
    pub fn replace_gram(&mut self, gram: Gram, id: LinearId) -> Result<(), QuantError> {
        self.gram = gram;
        if !self.is_finite() {
            let (layer, role) = (id.layer, id.role.name());
            return Err(QuantError::NotFinite { layer, role });
        }
        let num_dead = self.num_dead;
        self.lift_dead_channels();
        self.num_dead = num_dead;
        Ok(())
    }

    /// Gives channels that never spoke a small weight of their own: without one their columns could be rounded to
    /// anything, and they may speak in use. A layer that saw nothing at all is judged by its weights alone.
    fn lift_dead_channels(&mut self) {
        let k = self.maxima.len();
        let values = self.gram.values_mut();
        let mean = (0..k).map(|i| f64::from(values[i * k + i])).sum::<f64>() / k as f64;
        let floor = if mean > 0.0 {
            mean as f32 * DEAD_FRACTION
        } else {
            1.0
        };
        for i in 0..k {
            if values[i * k + i] < floor {
                values[i * k + i] = floor;
                self.num_dead += 1;
            }
        }
    }

    fn is_finite(&self) -> bool {
        let k = self.maxima.len();
        let diagonal = (0..k).all(|i| self.gram.values()[i * k + i].is_finite());
        diagonal && self.maxima.iter().all(|max| max.is_finite())
    }
}

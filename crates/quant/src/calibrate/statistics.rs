//! What calibration knows about the input of a linear.

use dualgrain_device::{Device, Gram};

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

impl InputStatistics {
    /// Nothing observed yet of an input of `k` channels.
    pub fn new(k: usize) -> Self {
        Self {
            gram: Gram::new(k),
            maxima: vec![0.0; k],
            samples: Vec::new(),
            num_dead: 0,
        }
    }

    /// Adds the tokens `x` `[M,K]` of window `window`.
    pub fn observe<D: Device>(&mut self, device: &D, x: &D::Matrix, window: usize, num_windows: usize) {
        let k = self.maxima.len();
        device.gram_accumulate(&mut self.gram, x);
        device.abs_max(x, 0..k, &mut self.maxima);
        let rows = device.rows(x);
        let count = NUM_SAMPLES.div_ceil(num_windows).min(rows);
        for sample in 0..count {
            // A stride that is no multiple of anything spreads the samples over the positions.
            let row = (window * 37 + sample * rows / count) % rows;
            let start = self.samples.len();
            self.samples.resize(start + k, 0.0);
            device.download(x, row..row + 1, &mut self.samples[start..]);
        }
    }

    /// The statistics after the last window, those of the linear `role` of block `layer`.
    ///
    /// # Errors
    /// [`QuantError::NotFinite`].
    pub fn finish(mut self, layer: usize, role: &'static str) -> Result<Self, QuantError> {
        if !self.is_finite() {
            return Err(QuantError::NotFinite { layer, role });
        }
        self.lift_dead_channels();
        Ok(self)
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

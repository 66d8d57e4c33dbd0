//! Rows of a linear that are worked on together: as many bundles as make a product worth its packing.

use dualgrain_device::{DeviceError, Gram, Statistics};
use dualgrain_format::{GroupSize, QuantizedLinear};
use dualgrain_threads::Pool;

use crate::methods::compensate::rows::bundle::Bundle;
use crate::methods::compensate::rows::lanes::LANES;

/// Rows with their codes.
#[derive(Debug, Clone)]
pub struct Tile {
    /// Its rows, sixteen a bundle.
    pub bundles: Vec<Bundle>,
    /// Rows there are.
    pub num_rows: usize,
    /// K.
    pub k: usize,
    /// Weights along K that share a group scale.
    pub group_size: GroupSize,
}

impl Tile {
    /// `weights` [rows, K] with the codes that `linear` has for its rows from `first` on.
    pub fn new(pool: &Pool, weights: &[f32], linear: &QuantizedLinear, first: usize) -> Self {
        let k = linear.k();
        let num_rows = weights.len() / k;
        let mut bundles: Vec<Option<Bundle>> = vec![None; num_rows.div_ceil(LANES)];
        pool.for_each_chunk(&mut bundles, 1, |idx, bundle| {
            let rows = idx * LANES..((idx + 1) * LANES).min(num_rows);
            let weights = &weights[rows.start * k..rows.end * k];
            bundle[0] = Some(Bundle::new(weights, linear, first + rows.start));
        });
        Self {
            bundles: bundles.into_iter().flatten().collect(),
            num_rows,
            k,
            group_size: linear.group_size(),
        }
    }

    /// What rounding has lost [rows, K].
    pub fn residual(&self, pool: &Pool) -> Vec<f32> {
        self.per_bundle(pool, |bundle, rows| bundle.write_residual(self.group_size, rows))
    }

    /// The stored integers [rows, K].
    pub fn w8(&self, pool: &Pool) -> Vec<f32> {
        self.per_bundle(pool, |bundle, rows| bundle.write_w8(self.group_size, rows))
    }

    fn per_bundle(&self, pool: &Pool, write: impl Fn(&Bundle, &mut [f32]) + Sync) -> Vec<f32> {
        let mut values = vec![0.0; self.num_rows * self.k];
        pool.for_each_chunk(&mut values, LANES * self.k, |idx, rows| {
            write(&self.bundles[idx], rows)
        });
        values
    }

    /// The exact objective of every row [rows]: the squared error of its output over the calibration tokens.
    ///
    /// # Errors
    /// The device failed.
    pub fn objectives<D: Statistics>(
        &self,
        (device, pool): (&D, &Pool),
        gram: &Gram,
    ) -> Result<Vec<f64>, DeviceError> {
        let mut objectives = vec![0.0; self.num_rows];
        let mut on_device = device.output_errors(self.num_rows)?;
        device.compute_output_errors(&mut on_device, &device.view_gram(gram)?, &self.residual(pool))?;
        device.read_output_errors(&on_device, &mut objectives)?;
        Ok(objectives)
    }

    /// Takes from `other` the rows that it does better; `objectives` [rows] become the better ones.
    pub fn take_better(&mut self, objectives: &mut [f64], other: &Self, others: &[f64]) {
        for (row, (own, other_objective)) in objectives.iter_mut().zip(others).enumerate() {
            // What is not a number is never better.
            if other_objective < own {
                *own = *other_objective;
                self.bundles[row / LANES].take_row(&other.bundles[row / LANES], row % LANES);
            }
        }
    }
}

//! Statistics of a calibration.

use dualgrain_device::{Capacity, Columns, Device, DeviceError, Done, Gram, Statistics};

use super::cpu_device::CpuDevice;
use crate::float::{cross, gram, quadratic_form};
use crate::rows::elementwise;
use crate::tensor::matrix::Matrix;

impl Statistics for CpuDevice {
    type Gram = Gram;
    type GramView<'a> = &'a Gram;
    type OutputErrors = Vec<f64>;
    type Maxima = Vec<f32>;

    fn gram(&self, k: usize) -> Result<Gram, DeviceError> {
        Ok(Gram::new(k))
    }

    fn gram_accumulate(&self, gram: &mut Gram, x: &Matrix) -> Done {
        gram::accumulate(self.isa(), self.pool(), gram, x);
        Ok(())
    }

    fn cross_accumulate(&self, sums: &mut Matrix, x: &Matrix, y: &[f32]) -> Done {
        let (x, y) = ((x.values(), x.columns), (y, sums.columns));
        cross::accumulate(self.isa(), self.pool(), sums.values_mut(), x, y);
        Ok(())
    }

    fn gram_to_host(&self, gram: Gram) -> Result<Gram, DeviceError> {
        Ok(gram)
    }

    fn view_gram<'a>(&self, gram: &'a Gram) -> Result<&'a Gram, DeviceError> {
        Ok(gram)
    }

    fn output_errors(&self, capacity: usize) -> Result<Vec<f64>, DeviceError> {
        Ok(Vec::with_capacity(capacity))
    }

    fn compute_output_errors(&self, out: &mut Vec<f64>, gram: &&Gram, errors: &[f32]) -> Done {
        let rows = errors.len() / gram.k();
        Capacity::new(out.capacity(), 1).check("compute_output_errors", || self.name(), (rows, 1))?;
        out.resize(rows, 0.0);
        quadratic_form::quadratic_forms(self.isa(), self.pool(), gram, errors, out);
        Ok(())
    }

    fn read_output_errors(&self, errors: &Vec<f64>, out: &mut [f64]) -> Done {
        out.copy_from_slice(errors);
        Ok(())
    }

    fn maxima(&self, columns: usize) -> Result<Vec<f32>, DeviceError> {
        Ok(vec![0.0; columns])
    }

    fn abs_max(&self, x: &Matrix, columns: Columns, maxima: &mut Vec<f32>) -> Done {
        assert_eq!(columns.len(), maxima.len(), "columns and maxima");
        // Columns are shared out, so that a maximum has one owner.
        self.pool().for_each_chunk(maxima, 512, |chunk, maxima| {
            let start = columns.start + chunk * 512;
            for row in 0..x.rows {
                elementwise::abs_max(self.isa(), &x.row(row)[start..start + maxima.len()], maxima);
            }
        });
        Ok(())
    }

    fn read_maxima(&self, maxima: &Vec<f32>) -> Result<Vec<f32>, DeviceError> {
        Ok(maxima.clone())
    }
}

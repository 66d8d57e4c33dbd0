//! Statistics, by the functions of the specification.

use super::NaiveDevice;
use super::buffers::{Matrix, has_room};
use crate::{Capacity, Columns, DeviceError, Done, Gram, Statistics, naive};

impl Statistics for NaiveDevice {
    type Gram = Gram;
    type GramView<'a> = &'a Gram;
    type OutputErrors = Vec<f64>;
    type Maxima = Vec<f32>;

    fn gram(&self, k: usize) -> Result<Gram, DeviceError> {
        Ok(Gram::new(k))
    }

    fn gram_accumulate(&self, gram: &mut Gram, x: &Matrix) -> Done {
        self.begin("gram_accumulate", &[x.rows(), x.columns])?;
        let k = gram.k();
        naive::gram_accumulate(gram.accumulate_parts(x.rows()), &x.values, k);
        Ok(())
    }

    fn cross_accumulate(&self, sums: &mut Matrix, x: &Matrix, y: &[f32]) -> Done {
        self.begin("cross_accumulate", &[x.rows(), x.columns])?;
        let (k, n) = (x.columns, sums.columns);
        naive::cross_accumulate(&mut sums.values, (&x.values, k), (y, n));
        Ok(())
    }

    fn gram_to_host(&self, gram: Gram) -> Result<Gram, DeviceError> {
        self.begin("gram_to_host", &[gram.k()])?;
        Ok(gram)
    }

    fn view_gram<'a>(&self, gram: &'a Gram) -> Result<&'a Gram, DeviceError> {
        self.begin("view_gram", &[gram.k()])?;
        Ok(gram)
    }

    fn output_errors(&self, capacity: usize) -> Result<Vec<f64>, DeviceError> {
        Ok(Vec::with_capacity(capacity))
    }

    fn compute_output_errors(&self, out: &mut Vec<f64>, gram: &&Gram, errors: &[f32]) -> Done {
        let (rows, k) = (errors.len() / gram.k(), gram.k());
        self.begin("compute_output_errors", &[rows, k])?;
        has_room(
            Capacity::new(out.capacity(), 1),
            "compute_output_errors",
            (rows, 1),
        )?;
        out.clear();
        let errors = errors.chunks_exact(k);
        out.extend(errors.map(|errors| naive::quadratic_row(gram.values(), errors)));
        Ok(())
    }

    fn read_output_errors(&self, errors: &Vec<f64>, out: &mut [f64]) -> Done {
        self.begin("read_output_errors", &[errors.len()])?;
        out.copy_from_slice(errors);
        Ok(())
    }

    fn maxima(&self, columns: usize) -> Result<Vec<f32>, DeviceError> {
        Ok(vec![0.0; columns])
    }

    fn abs_max(&self, x: &Matrix, columns: Columns, maxima: &mut Vec<f32>) -> Done {
        self.begin("abs_max", &[x.rows(), columns.len()])?;
        x.iter()
            .for_each(|row| naive::abs_max(&row[columns.clone()], maxima));
        Ok(())
    }

    fn read_maxima(&self, maxima: &Vec<f32>) -> Result<Vec<f32>, DeviceError> {
        self.begin("read_maxima", &[maxima.len()])?;
        Ok(maxima.clone())
    }
}

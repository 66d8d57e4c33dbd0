//! Statistics of a calibration.

use dualgrain_device::{Columns, DeviceError, Done, Gram, Statistics};

use super::buffers::CudaMatrix;
use super::cuda_device::CudaDevice;
use crate::statistics::{GramMatrix, Maxima, OutputErrors};

impl Statistics for CudaDevice {
    type Gram = GramMatrix;
    type GramView<'a> = GramMatrix;
    type OutputErrors = OutputErrors;
    type Maxima = Maxima;

    fn gram(&self, k: usize) -> Result<GramMatrix, DeviceError> {
        let size_bytes = k.saturating_mul(k).saturating_mul(4);
        self.buffer("Gram matrix", size_bytes, || GramMatrix::new(&self.gpu, k))
    }

    fn gram_accumulate(&self, gram: &mut GramMatrix, x: &CudaMatrix) -> Done {
        self.operation("gram_accumulate", &[x.rows, x.columns], || {
            self.statistics.gram.launch(gram, &x.buffer, x.rows)
        })
    }

    fn gram_to_host(&self, gram: GramMatrix) -> Result<Gram, DeviceError> {
        self.operation("gram_to_host", &[gram.k()], || gram.to_host())
    }

    fn view_gram(&self, gram: &Gram) -> Result<GramMatrix, DeviceError> {
        self.operation("view_gram", &[gram.k()], || GramMatrix::of_host(&self.gpu, gram))
    }

    fn output_errors(&self, capacity: usize) -> Result<OutputErrors, DeviceError> {
        self.buffer("output errors", 8 * capacity, || {
            OutputErrors::new(&self.gpu, capacity)
        })
    }

    fn compute_output_errors(&self, out: &mut OutputErrors, gram: &GramMatrix, errors: &[f32]) -> Done {
        self.operation("compute_output_errors", &[errors.len()], || {
            self.statistics.output_errors.launch(out, gram, errors)
        })
    }

    fn read_output_errors(&self, errors: &OutputErrors, out: &mut [f64]) -> Done {
        self.operation("read_output_errors", &[out.len()], || errors.read(out))
    }

    fn maxima(&self, columns: usize) -> Result<Maxima, DeviceError> {
        self.buffer("maxima", 4 * columns, || Maxima::new(&self.gpu, columns))
    }

    fn abs_max(&self, x: &CudaMatrix, columns: Columns, maxima: &mut Maxima) -> Done {
        self.operation("abs_max", &[x.rows, columns.len()], || {
            self.statistics
                .abs_max
                .launch(&x.buffer, x.shape(), columns, maxima)
        })
    }

    fn read_maxima(&self, maxima: &Maxima) -> Result<Vec<f32>, DeviceError> {
        self.operation("read_maxima", &[maxima.columns()], || maxima.read())
    }
}

//! Statistics of a calibration, on the device that was chosen.

use dualgrain_device::{Columns, DeviceError, Done, Gram as HostGram, Statistics};

use super::AnyDevice;
use super::buffers::{Gram, GramView, Matrix, Maxima, OutputErrors};

impl Statistics for AnyDevice {
    type Gram = Gram;
    type GramView<'a> = GramView<'a>;
    type OutputErrors = OutputErrors;
    type Maxima = Maxima;

    fn gram(&self, k: usize) -> Result<Gram, DeviceError> {
        make!(self, Gram, |device| device.gram(k))
    }

    fn gram_accumulate(&self, gram: &mut Gram, x: &Matrix) -> Done {
        call!(self, [gram: Gram, x: Matrix], |device| device
            .gram_accumulate(gram, x))
    }

    fn cross_accumulate(&self, sums: &mut Matrix, x: &Matrix, y: &[f32]) -> Done {
        call!(self, [sums: Matrix, x: Matrix], |device| device
            .cross_accumulate(sums, x, y))
    }

    fn gram_to_host(&self, gram: Gram) -> Result<HostGram, DeviceError> {
        call!(self, [gram: Gram], |device| device.gram_to_host(gram))
    }

    fn view_gram<'a>(&self, gram: &'a HostGram) -> Result<GramView<'a>, DeviceError> {
        make!(self, GramView, |device| device.view_gram(gram))
    }

    fn output_errors(&self, capacity: usize) -> Result<OutputErrors, DeviceError> {
        make!(self, OutputErrors, |device| device.output_errors(capacity))
    }

    fn compute_output_errors(&self, out: &mut OutputErrors, gram: &GramView<'_>, errors: &[f32]) -> Done {
        call!(self, [out: OutputErrors, gram: GramView], |device| device
            .compute_output_errors(out, gram, errors))
    }

    fn read_output_errors(&self, errors: &OutputErrors, out: &mut [f64]) -> Done {
        call!(self, [errors: OutputErrors], |device| device
            .read_output_errors(errors, out))
    }

    fn maxima(&self, columns: usize) -> Result<Maxima, DeviceError> {
        make!(self, Maxima, |device| device.maxima(columns))
    }

    fn abs_max(&self, x: &Matrix, columns: Columns, maxima: &mut Maxima) -> Done {
        call!(self, [x: Matrix, maxima: Maxima], |device| device
            .abs_max(x, columns, maxima))
    }

    fn read_maxima(&self, maxima: &Maxima) -> Result<Vec<f32>, DeviceError> {
        call!(self, [maxima: Maxima], |device| device.read_maxima(maxima))
    }
}

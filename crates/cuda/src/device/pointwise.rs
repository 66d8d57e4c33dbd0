//! Operations of single elements, which read what products leave.

use dualgrain_device::{Activation, Done};

use super::buffers::CudaMatrix;
use super::cuda_device::CudaDevice;
use crate::rows::Input;

impl CudaDevice {
    /// `out = f(gate) * up` of `x`, whose columns are [gate | up], of a type.
    pub(super) fn gate(&self, out: &mut CudaMatrix, x: &CudaMatrix, input: Input, f: Activation) -> Done {
        let shape = (x.rows, x.columns / 2);
        self.resize(out, "gated", shape)?;
        self.operation("gated", &[x.rows, x.columns], || {
            let rows = self.rows.gate(f).of(input);
            rows.launch_activation(f, &out.buffer, &x.buffer, shape)
        })
    }

    /// `x += y`, of which y is of a type.
    pub(super) fn sum(&self, x: &mut CudaMatrix, y: &CudaMatrix, input: Input) -> Done {
        assert_eq!(x.shape(), y.shape(), "shapes of a sum");
        self.operation("add", &[x.rows, x.columns], || {
            let rows = self.rows.add.of(input);
            rows.launch(&x.buffer, &y.buffer, x.shape())
        })
    }

    pub(super) fn activate_all(&self, x: &mut CudaMatrix, f: Activation) -> Done {
        self.operation("activate", &[x.rows, x.columns], || {
            let rows = self.rows.activate(f);
            rows.launch_activation(f, &x.buffer, &x.buffer, x.shape())
        })
    }

    pub(super) fn cap_all(&self, x: &mut CudaMatrix, cap: f32) -> Done {
        self.operation("soft_cap", &[x.rows, x.columns], || {
            self.rows.soft_cap.soft_cap(&x.buffer, x.shape(), cap)
        })
    }
}

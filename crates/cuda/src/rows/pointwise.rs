//! Functions of single elements.

use std::sync::Arc;

use dualgrain_device::{Activation, GateLimit};

use super::quantized_input::Input;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;

/// Threads of a CTA; as many elements of a row.
const THREADS: usize = 256;

/// What happens to an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pointwise {
    /// `out = f(out)`.
    Activate(Activation),
    /// `out[c] = f(x[c]) * x[columns + c]`, of x in a type, f32 or bf16.
    Gate(Activation, Input),
    /// `out += x`, the same.
    Add(Input),
    /// `out = tanh(out * (1 / cap)) * cap`.
    SoftCap,
    /// `out = bf16(out)`, the nearest one.
    Round,
}

/// All activations, in the order of [`activation_code`]; a limit is an argument.
pub(crate) const ACTIVATIONS: [Activation; 5] = [
    Activation::Relu,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Clamped(GateLimit::USUAL),
];

impl Pointwise {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let inputs = [Input::F32, Input::Bf16];
        let of_activation = ACTIVATIONS.into_iter().flat_map(move |f| {
            let gates = inputs.map(|input| Self::Gate(f, input));
            std::iter::once(Self::Activate(f)).chain(gates)
        });
        of_activation
            .chain(inputs.map(Self::Add))
            .chain([Self::SoftCap, Self::Round])
    }

    fn macros(self) -> Vec<(&'static str, i64)> {
        let (mode, f) = match self {
            Self::Activate(f) => (0, Some(f)),
            Self::Gate(f, _) => (1, Some(f)),
            Self::Add(_) => (2, None),
            Self::SoftCap => (3, None),
            Self::Round => (4, None),
        };
        let mut macros = vec![("MODE", mode)];
        macros.extend(f.map(|f| ("FUNCTION", activation_code(f))));
        if let Self::Gate(_, input) | Self::Add(input) = self {
            macros.push(("IN", input.code()));
        }
        macros
    }

    /// Bytes of a row of `x` for each element of `out`.
    fn input_bytes(self) -> usize {
        match self {
            Self::Activate(_) | Self::SoftCap | Self::Round => 0,
            Self::Gate(_, input) => 2 * input.size_bytes(),
            Self::Add(input) => input.size_bytes(),
        }
    }
}

/// The number of an activation in cu/float_rules.cuh and cu/rows/pointwise.cu.
pub(crate) fn activation_code(f: Activation) -> i64 {
    match f {
        Activation::Relu => 0,
        Activation::Silu => 1,
        Activation::Gelu => 2,
        Activation::GeluTanh => 3,
        Activation::Clamped(_) => 4,
    }
}

/// The text and macros of `pointwise`.
pub fn pointwise_source(operation: Pointwise) -> Source {
    Source {
        name: "pointwise",
        text: cu::POINTWISE,
        headers: cu::MODEL_HEADERS,
        macros: operation.macros(),
    }
}

/// Arguments of the kernel, as `PointwiseArgs` in cu/rows/pointwise.cu.
#[repr(C)]
struct PointwiseArgs {
    out: u64,
    x: u64,
    columns: i32,
    cap: f32,
}

/// The kernel, made ready.
pub struct PointwiseRows {
    kernel: Arc<Kernel>,
    operation: Pointwise,
    programmatic: bool,
}

impl PointwiseRows {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu, operation: Pointwise) -> Result<Self, CudaError> {
        Ok(Self {
            kernel: jit.kernel(&pointwise_source(operation))?,
            operation,
            programmatic: gpu.info().overlaps_launches(),
        })
    }

    /// Changes or writes `out` `[m, columns]`; `x` is what is added or gated, `out` itself where nothing else is read.
    ///
    /// # Errors
    /// Buffers that are too short, or a launch the driver refuses.
    pub fn launch(&self, out: &Buffer, x: &Buffer, shape: (usize, usize)) -> Result<(), CudaError> {
        self.launch_with_cap(out, x, shape, 1.0)
    }

    /// [`Pointwise::Activate`] or [`Pointwise::Gate`] with `f`, which may have a limit.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn launch_activation(
        &self,
        f: Activation,
        out: &Buffer,
        x: &Buffer,
        shape: (usize, usize),
    ) -> Result<(), CudaError> {
        match f {
            Activation::Clamped(limit) => self.launch_with_cap(out, x, shape, limit.value()),
            _ => self.launch(out, x, shape),
        }
    }

    /// [`Pointwise::SoftCap`] of `out` `[m, columns]`.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn soft_cap(&self, out: &Buffer, shape: (usize, usize), cap: f32) -> Result<(), CudaError> {
        self.launch_with_cap(out, out, shape, cap)
    }

    /// [`Pointwise::Round`] of `out` `[m, columns]`.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn round(&self, out: &Buffer, shape: (usize, usize)) -> Result<(), CudaError> {
        self.launch(out, out, shape)
    }

    fn launch_with_cap(
        &self,
        out: &Buffer,
        x: &Buffer,
        (m, columns): (usize, usize),
        cap: f32,
    ) -> Result<(), CudaError> {
        at_least("rows of a pointwise operation", 4 * m * columns, out)?;
        at_least(
            "input of a pointwise operation",
            m * columns * self.operation.input_bytes(),
            x,
        )?;
        let mut args = PointwiseArgs {
            out: out.address(),
            x: x.address(),
            columns: columns as i32,
            cap,
        };
        let grid = Launch::rows(m, columns.div_ceil(THREADS), THREADS as u32, self.programmatic);
        // SAFETY: the kernel's one parameter; both buffers are as long as its sizes say (checked).
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}

//! A card as a device of the contract.

use dualgrain_device::Activation;

use super::operation_clock::OperationClock;
use super::w4_products::W4Products;
use crate::compiler::Jit;
use crate::driver::{Gpu, Staging};
use crate::error::CudaError;
use crate::linear::{GemmFloat, GemmW8A8};
use crate::rows::{
    ACTIVATIONS, Before, GateQuantize, GatherRows, Hadamard, Input, NormRows, NormRule, Pointwise,
    PointwiseRows, Quantize, Rope, TableType, activation_code,
};
use crate::sampling::{LastTokens, LogSoftmax, Sampling};
use crate::statistics::{AbsMax, ComputeOutputErrors, GramUpdate};

/// An NVIDIA card, Ampere or later, that runs models.
pub struct CudaDevice {
    pub(super) gpu: Gpu,
    pub(super) jit: Jit,
    pub(super) name: String,
    pub(super) clock: OperationClock,
    pub(super) staging: Staging,
    pub(super) products: Products,
    pub(super) rows: RowKernels,
    pub(super) logits: LogitKernels,
    pub(super) statistics: StatisticKernels,
}

/// Products by the scheme of their weights.
pub(super) struct Products {
    pub(super) w4: W4Products,
    pub(super) w8: GemmW8A8,
    pub(super) float: GemmFloat,
}

/// Kernels that take rows of logits.
pub(super) struct LogitKernels {
    pub(super) sampling: Sampling,
    pub(super) last_tokens: LastTokens,
    pub(super) log_softmax: LogSoftmax,
}

/// What calibration asks for.
pub(super) struct StatisticKernels {
    pub(super) gram: GramUpdate,
    pub(super) output_errors: ComputeOutputErrors,
    pub(super) abs_max: AbsMax,
}

/// A kernel for each type in which products leave what it reads: f32, and bf16 behind 4-bit weights.
pub(super) struct ForOutputs<T> {
    pub(super) f32: T,
    bf16: T,
}

impl<T> ForOutputs<T> {
    pub(super) fn of(&self, input: Input) -> &T {
        match input {
            Input::F32 => &self.f32,
            Input::Bf16 => &self.bf16,
            Input::F16 => unreachable!("no product of a model writes f16"),
        }
    }
}

/// Kernels that take activations row by row.
pub(super) struct RowKernels {
    pub(super) gather_f32: GatherRows,
    pub(super) gather_bf16: GatherRows,
    pub(super) rms_norm: NormRows,
    pub(super) layer_norm: NormRows,
    pub(super) rope: Rope,
    pub(super) hadamard: Hadamard,
    pub(super) add: ForOutputs<PointwiseRows>,
    pub(super) soft_cap: PointwiseRows,
    activate: [PointwiseRows; 5],
    gate: [ForOutputs<PointwiseRows>; 5],
    pub(super) quantize: Quantize,
    pub(super) rms_norm_quantize: Quantize,
    pub(super) round: PointwiseRows,
    pub(super) add_rms_norm_quantize: ForOutputs<Quantize>,
    pub(super) swiglu_quantize: ForOutputs<Quantize>,
    gate_quantize: [Option<ForOutputs<GateQuantize>>; 4],
}

impl CudaDevice {
    /// Opens card `index` and compiles what every model needs, or finds it in the cache.
    ///
    /// # Errors
    /// No driver, no such card, one that is too old, no compiler; a kernel that does not compile.
    pub fn open(index: usize) -> Result<Self, CudaError> {
        let gpu = Gpu::open(index)?;
        let jit = Jit::new(&gpu)?;
        Ok(Self {
            name: format!("cuda:{index} ({})", gpu.info().name),
            clock: OperationClock::default(),
            staging: Staging::new(&gpu)?,
            products: Products {
                w4: W4Products::new(&gpu)?,
                w8: GemmW8A8::new(&jit, &gpu)?,
                float: GemmFloat::new(&jit, &gpu)?,
            },
            rows: RowKernels::new(&jit, &gpu)?,
            logits: LogitKernels {
                sampling: Sampling::new(&jit, &gpu)?,
                last_tokens: LastTokens::new(&jit, &gpu)?,
                log_softmax: LogSoftmax::new(&jit, &gpu)?,
            },
            statistics: StatisticKernels {
                gram: GramUpdate::new(&jit, &gpu)?,
                output_errors: ComputeOutputErrors::new(&jit, &gpu)?,
                abs_max: AbsMax::new(&jit, &gpu)?,
            },
            jit,
            gpu,
        })
    }

    /// The card.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }
}

impl RowKernels {
    fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        let pointwise = |operation| PointwiseRows::new(jit, gpu, operation);
        let activate = |f| pointwise(Pointwise::Activate(f));
        let reading = |operation: &dyn Fn(Input) -> Pointwise| -> Result<_, CudaError> {
            Ok(ForOutputs {
                f32: pointwise(operation(Input::F32))?,
                bf16: pointwise(operation(Input::Bf16))?,
            })
        };
        let gate = |f| reading(&|input| Pointwise::Gate(f, input));
        let quantize = |before, input| Quantize::new(jit, gpu, before, input);
        let for_outputs = |before| -> Result<_, CudaError> {
            Ok(ForOutputs {
                f32: quantize(before, Input::F32)?,
                bf16: quantize(before, Input::Bf16)?,
            })
        };
        let gate_quantize = |f| -> Result<_, CudaError> {
            let kernels = [Input::F32, Input::Bf16].map(|input| GateQuantize::new(jit, gpu, f, input));
            let [f32, bf16] = kernels;
            Ok(f32?.zip(bf16?).map(|(f32, bf16)| ForOutputs { f32, bf16 }))
        };
        let [relu, silu, gelu, gelu_tanh, clamped] = ACTIVATIONS;
        Ok(Self {
            gather_f32: GatherRows::new(jit, gpu, TableType::F32)?,
            gather_bf16: GatherRows::new(jit, gpu, TableType::Bf16)?,
            rms_norm: NormRows::new(jit, gpu, NormRule::Rms)?,
            layer_norm: NormRows::new(jit, gpu, NormRule::Layer)?,
            rope: Rope::new(jit, gpu)?,
            hadamard: Hadamard::new(jit, gpu)?,
            add: reading(&Pointwise::Add)?,
            soft_cap: pointwise(Pointwise::SoftCap)?,
            activate: [
                activate(relu)?,
                activate(silu)?,
                activate(gelu)?,
                activate(gelu_tanh)?,
                activate(clamped)?,
            ],
            gate: [
                gate(relu)?,
                gate(silu)?,
                gate(gelu)?,
                gate(gelu_tanh)?,
                gate(clamped)?,
            ],
            round: pointwise(Pointwise::Round)?,
            quantize: quantize(Before::Nothing, Input::F32)?,
            rms_norm_quantize: quantize(Before::RmsNorm, Input::F32)?,
            add_rms_norm_quantize: for_outputs(Before::AddRmsNorm)?,
            swiglu_quantize: for_outputs(Before::SwiGlu)?,
            gate_quantize: [
                gate_quantize(relu)?,
                gate_quantize(silu)?,
                gate_quantize(gelu)?,
                gate_quantize(gelu_tanh)?,
            ],
        })
    }

    pub(super) fn gather(&self, table: TableType) -> &GatherRows {
        match table {
            TableType::F32 => &self.gather_f32,
            TableType::Bf16 => &self.gather_bf16,
        }
    }

    pub(super) fn activate(&self, f: Activation) -> &PointwiseRows {
        &self.activate[activation_code(f) as usize]
    }

    /// The kernels that gate and quantize rows of `k` codes, where there are any.
    pub(super) fn gate_quantize(&self, f: Activation, k: usize) -> Option<&ForOutputs<GateQuantize>> {
        let kernels = self.gate_quantize.get(activation_code(f) as usize);
        let kernels = kernels.and_then(Option::as_ref);
        kernels.filter(|kernels| kernels.f32.takes(k))
    }

    pub(super) fn gate(&self, f: Activation) -> &ForOutputs<PointwiseRows> {
        &self.gate[activation_code(f) as usize]
    }
}

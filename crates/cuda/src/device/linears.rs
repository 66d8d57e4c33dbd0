//! Packed layers of every scheme, and their products.

use std::collections::HashSet;

use dualgrain_device::{
    Activation, ActivationScale, Device, DeviceError, Done, Operand, Outputs, SLICE_ROWS,
};
use dualgrain_format::LinearWeights;

use super::buffers::{CudaMatrix, CudaQuantized};
use super::cuda_device::CudaDevice;
use crate::error::CudaError;
use crate::gemm::{Output, PackedLinear};
use crate::linear::{FloatKind, FloatPacker, LinearFloat, LinearW8, W8Packer};
use crate::rows::Input;

/// A packed layer.
pub enum CudaLinear {
    /// 4-bit weights.
    W4(PackedLinear),
    /// 8-bit weights.
    W8(LinearW8),
    /// Float weights.
    Float(LinearFloat),
}

/// A layer that comes in slices of its rows.
enum Packer {
    /// The slices so far: the image of 4-bit weights is made of the whole layer.
    W4(Vec<LinearWeights>),
    W8(W8Packer),
    Float(FloatPacker),
}

impl CudaLinear {
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Self::W4(linear) => linear.shape(),
            Self::W8(linear) => linear.shape(),
            Self::Float(linear) => linear.shape(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::W4(linear) => linear.image_bytes() + linear.s1().len_bytes(),
            Self::W8(linear) => linear.bytes(),
            Self::Float(linear) => linear.bytes(),
        }
    }
}

impl CudaDevice {
    /// Compiles the kernels of W4A8 products, or takes them from the cache, several at once. Other operations have one kernel or
    /// two, which their first run takes.
    pub(super) fn prepare_products(
        &self,
        linears: &[(&CudaLinear, Outputs)],
        max_tokens: usize,
    ) -> Result<bool, DeviceError> {
        let mut shapes = HashSet::new();
        for (linear, outputs) in linears {
            let CudaLinear::W4(linear) = linear else {
                continue;
            };
            let written = match outputs {
                Outputs::Whole => Output::F32,
                Outputs::Rounded => Output::Bf16,
            };
            shapes.insert((linear.shape(), linear.group(), written));
        }
        self.operation("prepare", &[shapes.len(), max_tokens], || {
            self.products.w4.prepare(&self.jit, &shapes, max_tokens)
        })?;
        Ok(true)
    }

    pub(super) fn pack_all<E: From<DeviceError>>(
        &self,
        (n, k): (usize, usize),
        slices: impl Iterator<Item = Result<LinearWeights, E>>,
    ) -> Result<CudaLinear, E> {
        let (mut packer, mut rows) = (None, 0);
        for slice in slices {
            let slice = slice?;
            assert!(rows % SLICE_ROWS == 0, "a slice at row {rows}");
            rows += slice.n();
            let size_bytes = n * k;
            let packed = self.buffer("layer", size_bytes, || {
                let packer = match packer.take() {
                    Some(packer) => packer,
                    None => self.packer((n, k), &slice)?,
                };
                packer.push(slice)
            });
            packer = Some(packed?);
        }
        assert_eq!(rows, n, "rows of all slices");
        let finish = || packer.map_or_else(|| Err(no_rows()), |packer| packer.finish(self));
        Ok(self.buffer("layer", n * k, finish)?)
    }

    fn packer(&self, shape: (usize, usize), first: &LinearWeights) -> Result<Packer, CudaError> {
        Ok(match first {
            LinearWeights::W4(_) => Packer::W4(Vec::new()),
            LinearWeights::W8(_) => Packer::W8(W8Packer::new(&self.gpu, shape)?),
            LinearWeights::Float(linear) => {
                let kind = FloatKind::of(linear.weight());
                Packer::Float(FloatPacker::new(&self.gpu, shape, kind)?)
            }
        })
    }

    /// Tokens and output features of a product.
    fn product_shape(&self, a: &Operand<'_, Self>, weights: &CudaLinear) -> (usize, usize, usize) {
        let (n, k) = weights.shape();
        let (m, columns) = match a {
            Operand::Float(a) => a.shape(),
            Operand::Int8(a) => a.tokens.shape(),
        };
        assert_eq!(columns, k, "columns of A and K of the weights");
        (m, n, k)
    }

    pub(super) fn product(&self, out: &mut CudaMatrix, a: &Operand<'_, Self>, weights: &CudaLinear) -> Done {
        self.product_as(Output::F32, out, a, weights)
    }

    /// A product with [`Outputs::Rounded`], in the type that the kernel behind it reads. Outputs of bf16 lie in the first half of `out`.
    pub(super) fn rounded_product(
        &self,
        out: &mut CudaMatrix,
        a: &Operand<'_, Self>,
        weights: &CudaLinear,
    ) -> Result<Input, DeviceError> {
        let (output, input) = match weights {
            CudaLinear::W4(_) => (Output::Bf16, Input::Bf16),
            CudaLinear::W8(_) | CudaLinear::Float(_) => (Output::F32, Input::F32),
        };
        self.product_as(output, out, a, weights)?;
        Ok(input)
    }

    /// The product in the type of `output`, which for other weights than 4-bit ones is f32.
    fn product_as(
        &self,
        output: Output,
        out: &mut CudaMatrix,
        a: &Operand<'_, Self>,
        weights: &CudaLinear,
    ) -> Done {
        let (m, n, k) = self.product_shape(a, weights);
        self.resize(out, "gemm", (m, n))?;
        let out = &out.buffer;
        let operation = match weights {
            CudaLinear::W4(_) => "gemm (w4)",
            CudaLinear::W8(_) => "gemm (w8)",
            CudaLinear::Float(_) => "gemm (float)",
        };
        self.operation(operation, &[m, n, k], || match (a, weights) {
            (Operand::Float(a), CudaLinear::Float(linear)) => {
                self.products.float.launch(linear, &a.buffer, m, out)
            }
            (Operand::Int8(a), CudaLinear::W8(linear)) => self.products.w8.launch(linear, &a.tokens, m, out),
            (Operand::Int8(a), CudaLinear::W4(linear)) => {
                self.products
                    .w4
                    .launch(&self.jit, (out, output), &a.tokens, linear)
            }
            (Operand::Float(_), _) => panic!("integer weights take INT8 activations, got floats"),
            (Operand::Int8(_), _) => panic!("float weights take float activations, got INT8"),
        })
    }

    /// The product with outputs as f32, rounded where the weights have 4 bits.
    pub(super) fn product_to_round(
        &self,
        out: &mut CudaMatrix,
        a: &Operand<'_, Self>,
        weights: &CudaLinear,
    ) -> Done {
        self.product(out, a, weights)?;
        if !matches!(weights, CudaLinear::W4(_)) {
            return Ok(());
        }
        self.operation("round", &[out.rows, out.columns], || {
            self.rows.round.round(&out.buffer, out.shape())
        })
    }

    /// The product, then gate, transform and quantization in one kernel where that exists.
    pub(super) fn gated_codes(
        &self,
        out: &mut CudaQuantized,
        (f, wide): (&mut CudaMatrix, &mut CudaMatrix),
        (a, weights): (Operand<'_, Self>, &CudaLinear),
        (activation, block): (Activation, Option<usize>),
        scale: ActivationScale,
    ) -> Done {
        let kernels = self.rows.gate_quantize(activation, weights.shape().0 / 2);
        let kernels = kernels.filter(|kernels| kernels.f32.transforms(block));
        if kernels.is_none() && (activation != Activation::Silu || block.is_some()) {
            self.gemm_gated(f, wide, a, weights, activation)?;
            return match block {
                Some(block) => self.hadamard_quantize(out, f, block, scale),
                None => self.quantize(out, f, scale),
            };
        }
        let input = self.rounded_product(wide, &a, weights)?;
        let shape = (wide.rows, wide.columns / 2);
        self.resize_quantized(out, "gemm_gated_quantize", shape)?;
        self.operation("gemm_gated_quantize", &[shape.0, shape.1], || match kernels {
            Some(kernels) => {
                let kernel = kernels.of(input);
                kernel.launch(&wide.buffer, block, scale, &mut out.tokens)
            }
            None => {
                let kernel = self.rows.swiglu_quantize.of(input);
                kernel.launch(&wide.buffer, None, scale, &mut out.tokens)
            }
        })
    }

    /// The product, then addition, norm and quantization in one kernel.
    pub(super) fn added_codes(
        &self,
        out: &mut CudaQuantized,
        (x, y): (&mut CudaMatrix, &mut CudaMatrix),
        (a, weights): (Operand<'_, Self>, &CudaLinear),
        (norm, eps): (&CudaMatrix, f32),
        scale: ActivationScale,
    ) -> Done {
        let input = self.rounded_product(y, &a, weights)?;
        assert_eq!(x.shape(), y.shape(), "shapes of a sum");
        self.resize_quantized(out, "gemm_add_rms_norm_quantize", x.shape())?;
        self.operation("gemm_add_rms_norm_quantize", &[x.rows, x.columns], || {
            let kernel = self.rows.add_rms_norm_quantize.of(input);
            let norm = (&norm.buffer, eps);
            kernel.launch_added((&x.buffer, &y.buffer), norm, scale, &mut out.tokens)
        })
    }
}

impl Packer {
    fn push(self, slice: LinearWeights) -> Result<Self, CudaError> {
        match (self, slice) {
            (Self::W4(mut slices), slice) => {
                slices.push(slice);
                Ok(Self::W4(slices))
            }
            (Self::W8(mut packer), LinearWeights::W8(linear)) => {
                packer.push(&linear)?;
                Ok(Self::W8(packer))
            }
            (Self::Float(mut packer), LinearWeights::Float(linear)) => {
                packer.push(&linear)?;
                Ok(Self::Float(packer))
            }
            _ => panic!("slices of a layer in different schemes"),
        }
    }

    fn finish(self, device: &CudaDevice) -> Result<CudaLinear, CudaError> {
        match self {
            Self::W4(slices) => match LinearWeights::join(slices) {
                Ok(LinearWeights::W4(linear)) => Ok(CudaLinear::W4(PackedLinear::new(&device.gpu, &linear)?)),
                _ => panic!("slices of a layer that do not fit each other"),
            },
            Self::W8(packer) => Ok(CudaLinear::W8(packer.finish()?)),
            Self::Float(packer) => Ok(CudaLinear::Float(packer.finish()?)),
        }
    }
}

fn no_rows() -> CudaError {
    CudaError::Length {
        what: "rows of a layer",
        expected: 1,
        got: 0,
    }
}

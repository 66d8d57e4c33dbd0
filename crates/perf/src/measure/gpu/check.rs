//! Correctness before timing, on the card: Freivalds' check of whole products, and the plain loop on small ones.

use dualgrain_cuda::{
    Arena, Blend, Buffer, CublasType, CudaError, Element, Expected, Freivalds, Gemm, GemmConfig, GemmProblem,
    Gpu, Jit, Output, PackedLinear, QuantizedTokens, RandomOperands, Stored, enumerate_all,
};
use dualgrain_device::naive::Transposes;
use half::{bf16, f16};

use crate::error::PerfError;

/// Up to so many multiply-adds a product is compared with the plain loop as well.
const NAIVE_WORK: usize = 256 * 256 * 256;
/// Bits that no product leaves everywhere: an output that was not written shows.
const POISON: u8 = 0xff;

/// Whether a product is small enough for the plain loop.
pub(crate) fn is_small((m, n, k): (usize, usize, usize)) -> bool {
    m.saturating_mul(n).saturating_mul(k) <= NAIVE_WORK
}

/// What checked a product of this shape.
pub(crate) fn verified_by(shape: (usize, usize, usize)) -> String {
    let word = if is_small(shape) { "naive" } else { "freivalds" };
    word.to_owned()
}

/// A shape's integer operands with what their product must give.
pub(crate) struct IntegerTruth {
    pub tokens: QuantizedTokens,
    /// Weights as int8 `[N,K]`.
    pub w8: Buffer,
    /// The verified sums `[M,N]`.
    sums: Buffer,
    scratch: Buffer,
    pub d: Buffer,
    expected: Expected,
}

/// The checker of a card.
pub(crate) struct Checker<'a> {
    pub jit: &'a Jit,
    pub device: &'a Gpu,
    pub operands: &'a RandomOperands<'a>,
    pub freivalds: &'a Freivalds<'a>,
}

const NT: Transposes = Transposes { a: false, b: true };

impl Checker<'_> {
    /// Makes tokens and int8 weights, and the sums of their product by a kernel that is checked here.
    pub fn integers(
        &self,
        arena: &mut Arena,
        layer: &PackedLinear,
        problem: &GemmProblem,
        seed: u64,
    ) -> Result<Option<IntegerTruth>, PerfError> {
        let shape = problem.shape;
        let (m, n, k) = (shape.m, shape.n, shape.k);
        let tokens = self.operands.tokens((m, k), seed)?;
        let w8 = self.operands.w8(arena, layer)?;
        let expected = {
            let a = Stored {
                buffer: tokens.codes(),
                element: Element::S8,
                size: (m, k),
                row_elements: tokens.row_bytes(),
            };
            let b = Stored::dense(&w8, Element::S8, (n, k));
            self.freivalds.expect(NT, (a, b), seed)?
        };
        let truth = IntegerTruth {
            tokens,
            w8,
            sums: arena.take(4 * m * n)?,
            scratch: arena.take(4 * m * n)?,
            d: arena.take(4 * m * n)?,
            expected,
        };
        let sums = GemmProblem {
            output: Output::Sums,
            ..*problem
        };
        // The plainest kernel comes last in the table.
        for config in enumerate_all(&sums, self.device.info()).into_iter().rev() {
            if self.sums_are_right(&truth, layer, &sums, config, &truth.sums)?
                && (!is_small((m, n, k)) || naive_sums_are_right(&truth, (m, n, k))?)
            {
                return Ok(Some(truth));
            }
        }
        Ok(None)
    }

    fn sums_are_right(
        &self,
        truth: &IntegerTruth,
        layer: &PackedLinear,
        problem: &GemmProblem,
        config: GemmConfig,
        into: &Buffer,
    ) -> Result<bool, PerfError> {
        let gemm = Gemm::new(self.jit, self.device, *problem, config)?;
        into.fill(POISON)?;
        gemm.launch(layer, &truth.tokens, into)?;
        self.right_sums(truth, into, (problem.shape.m, problem.shape.n))
    }

    /// Whether integer sums `[M,N]` are those of the operands.
    pub fn right_sums(
        &self,
        truth: &IntegerTruth,
        sums: &Buffer,
        size: (usize, usize),
    ) -> Result<bool, PerfError> {
        let d = Stored::dense(sums, Element::I32, size);
        Ok(self.freivalds.wrong_sums(d, &truth.expected)? == 0)
    }

    /// Whether a configuration is right: its sums where it is compiled to write them, and its outputs bit by bit.
    pub fn w4a8_is_right(
        &self,
        truth: &IntegerTruth,
        layer: &PackedLinear,
        gemm: &Gemm,
    ) -> Result<bool, PerfError> {
        let problem = gemm.problem();
        let sums = GemmProblem {
            output: Output::Sums,
            ..*problem
        };
        let writes_sums = gemm.config().variant.can_run(&sums, self.device.info());
        if writes_sums && !self.sums_are_right(truth, layer, &sums, gemm.config(), &truth.scratch)? {
            return Ok(false);
        }
        truth.d.fill(POISON)?;
        gemm.launch(layer, &truth.tokens, &truth.d)?;
        let wrong = self.operands.wrong_outputs(
            self.freivalds.wrong(),
            (&truth.sums, &truth.d, problem.output),
            &truth.tokens,
            layer,
        )?;
        Ok(wrong == 0)
    }
}

/// The plain loop on the host.
fn naive_sums_are_right(truth: &IntegerTruth, (m, n, k): (usize, usize, usize)) -> Result<bool, CudaError> {
    let row_bytes = truth.tokens.row_bytes();
    let (mut codes, mut w8, mut sums) = (vec![0i8; m * row_bytes], vec![0i8; n * k], vec![0i32; m * n]);
    truth.tokens.codes().read(0, &mut codes)?;
    truth.w8.read(0, &mut w8)?;
    truth.sums.read(0, &mut sums)?;
    let dot = |a: &[i8], w: &[i8]| -> i32 {
        let products = a.iter().zip(w).map(|(&a, &w)| i32::from(a) * i32::from(w));
        products.sum()
    };
    let rows = codes.chunks_exact(row_bytes).zip(sums.chunks_exact(n));
    Ok(rows.into_iter().all(|(a, sums)| {
        let columns = w8.chunks_exact(k).zip(sums);
        columns.into_iter().all(|(w, &sum)| dot(&a[..k], w) == sum)
    }))
}

/// A shape's float operands of one type and storage, with what their product must give.
pub(crate) struct FloatTruth {
    expected: Expected,
    /// The product, if it is small.
    naive: Option<Vec<f64>>,
}

/// Buffers of a float product.
pub(crate) struct FloatBuffers<'a> {
    pub kind: CublasType,
    pub a: &'a Buffer,
    pub b: &'a Buffer,
    /// What is in D before a product that adds to it.
    pub c: &'a Buffer,
    pub d: &'a Buffer,
}

impl Checker<'_> {
    pub fn floats(
        &self,
        buffers: &FloatBuffers<'_>,
        transposes: Transposes,
        (m, n, k): (usize, usize, usize),
        seed: u64,
    ) -> Result<FloatTruth, PerfError> {
        let element = Element::Float(buffers.kind);
        let a_size = if transposes.a { (k, m) } else { (m, k) };
        let b_size = if transposes.b { (n, k) } else { (k, n) };
        let stored = (
            Stored::dense(buffers.a, element, a_size),
            Stored::dense(buffers.b, element, b_size),
        );
        let expected = self.freivalds.expect(transposes, stored, seed)?;
        let naive = match is_small((m, n, k)) {
            true => Some(naive_product(buffers, transposes, (m, n, k))?),
            false => None,
        };
        Ok(FloatTruth { expected, naive })
    }

    /// Runs a product once on prepared buffers and checks it.
    pub fn floats_are_right(
        &self,
        truth: &FloatTruth,
        buffers: &FloatBuffers<'_>,
        (m, n, k): (usize, usize, usize),
        blend: Blend,
        launch: &dyn Fn(usize) -> Result<(), CudaError>,
    ) -> Result<bool, PerfError> {
        let d = Stored::dense(buffers.d, Element::Float(buffers.kind), (m, n));
        let before = if blend.beta == 0.0 {
            buffers.d.fill(POISON)?;
            None
        } else {
            buffers.d.copy_from(buffers.c)?;
            Some(self.freivalds.before(d, &truth.expected)?)
        };
        launch(0)?;
        let wrong = self
            .freivalds
            .wrong_floats(d, buffers.kind, &truth.expected, blend, before.as_ref())?;
        if wrong > 0 {
            return Ok(false);
        }
        match &truth.naive {
            None => Ok(true),
            Some(product) => {
                naive_floats_are_right(product, buffers, (m, n, k), blend).map_err(PerfError::from)
            }
        }
    }
}

fn values(kind: CublasType, buffer: &Buffer, len: usize) -> Result<Vec<f64>, CudaError> {
    match kind {
        CublasType::F32 => {
            let mut all = vec![0f32; len];
            buffer.read(0, &mut all)?;
            Ok(all.into_iter().map(f64::from).collect())
        }
        CublasType::F16 | CublasType::Bf16 => {
            let mut all = vec![0u16; len];
            buffer.read(0, &mut all)?;
            let value = |bits| match kind {
                CublasType::F16 => f16::from_bits(bits).to_f64(),
                _ => bf16::from_bits(bits).to_f64(),
            };
            Ok(all.into_iter().map(value).collect())
        }
    }
}

fn naive_product(
    buffers: &FloatBuffers<'_>,
    transposes: Transposes,
    (m, n, k): (usize, usize, usize),
) -> Result<Vec<f64>, CudaError> {
    let (a, b) = (
        values(buffers.kind, buffers.a, m * k)?,
        values(buffers.kind, buffers.b, k * n)?,
    );
    let ((a_m, a_k), (b_k, b_n)) = (transposes.strides_a(m, k), transposes.strides_b(n, k));
    let mut product = vec![0.0; m * n];
    for (row, out) in product.chunks_exact_mut(n).enumerate() {
        for k_idx in 0..k {
            let factor = a[row * a_m + k_idx * a_k];
            for (column, out) in out.iter_mut().enumerate() {
                *out += factor * b[k_idx * b_k + column * b_n];
            }
        }
    }
    Ok(product)
}

/// Each output within its own rounding (4 units) and that of its sum (Higham and Mary's bound, as in `freivalds`).
fn naive_floats_are_right(
    product: &[f64],
    buffers: &FloatBuffers<'_>,
    (m, n, k): (usize, usize, usize),
    blend: Blend,
) -> Result<bool, CudaError> {
    let d = values(buffers.kind, buffers.d, m * n)?;
    let c = values(buffers.kind, buffers.c, m * n)?;
    let unit = match buffers.kind {
        CublasType::F32 => 2f64.powi(-24),
        CublasType::F16 => 2f64.powi(-11),
        CublasType::Bf16 => 2f64.powi(-8),
    };
    let (alpha, beta, k) = (f64::from(blend.alpha), f64::from(blend.beta), k as f64);
    let of_sum = 4.0 * 2f64.powi(-24) * k.sqrt() * k * alpha.abs();
    Ok(d.iter()
        .zip(product.iter().zip(&c))
        .all(|(&got, (&sum, &before))| {
            let should = alpha * sum + if beta == 0.0 { 0.0 } else { beta * before };
            // A library may cut K and add the parts up in the type of the output, and round the product before it adds:
            // parts count, not their sum, and a part of the sum has a standard deviation of sqrt(K) at most.
            let product = alpha.abs() * sum.abs().max(k.sqrt());
            let parts = product + (should - alpha * sum).abs();
            (got - should).abs() <= 4.0 * unit * parts + of_sum
        }))
}

//! Checks integer products: sums modulo 2^32, and outputs bit by bit from sums that were verified.

use dualgrain_cuda::{
    Arena, Buffer, CudaError, Element, Expected, Gemm, GemmConfig, GemmProblem, Output, PackedLinear,
    QuantizedTokens, Stored, enumerate_all,
};
use dualgrain_device::naive::Transposes;

use super::checker::{Checker, POISON, is_small};
use crate::error::PerfError;

/// A shape's integer operands with what their product must give.
pub(crate) struct IntegerReference {
    pub tokens: QuantizedTokens,
    /// Weights as int8 `[N,K]`.
    pub w8: Buffer,
    /// The verified sums `[M,N]`.
    sums: Buffer,
    scratch: Buffer,
    pub d: Buffer,
    expected: Expected,
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
    ) -> Result<Option<IntegerReference>, PerfError> {
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
        let reference = IntegerReference {
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
            if self.sums_are_right(&reference, layer, &sums, config, &reference.sums)?
                && (!is_small((m, n, k)) || naive_sums_are_right(&reference, (m, n, k))?)
            {
                return Ok(Some(reference));
            }
        }
        Ok(None)
    }

    fn sums_are_right(
        &self,
        reference: &IntegerReference,
        layer: &PackedLinear,
        problem: &GemmProblem,
        config: GemmConfig,
        into: &Buffer,
    ) -> Result<bool, PerfError> {
        let gemm = Gemm::new(self.jit, self.device, *problem, config)?;
        into.fill(POISON)?;
        gemm.launch(layer, &reference.tokens, into)?;
        self.right_sums(reference, into, (problem.shape.m, problem.shape.n))
    }

    /// Whether integer sums `[M,N]` are those of the operands.
    pub fn right_sums(
        &self,
        reference: &IntegerReference,
        sums: &Buffer,
        size: (usize, usize),
    ) -> Result<bool, PerfError> {
        let d = Stored::dense(sums, Element::I32, size);
        Ok(self.freivalds.wrong_sums(d, &reference.expected)? == 0)
    }

    /// Whether a configuration is right: its sums where it is compiled to write them, and its outputs bit by bit.
    pub fn w4a8_is_right(
        &self,
        reference: &IntegerReference,
        layer: &PackedLinear,
        gemm: &Gemm,
    ) -> Result<bool, PerfError> {
        let problem = gemm.problem();
        let sums = GemmProblem {
            output: Output::Sums,
            ..*problem
        };
        let writes_sums = gemm.config().variant.can_run(&sums, self.device.info());
        if writes_sums && !self.sums_are_right(reference, layer, &sums, gemm.config(), &reference.scratch)? {
            return Ok(false);
        }
        reference.d.fill(POISON)?;
        gemm.launch(layer, &reference.tokens, &reference.d)?;
        let wrong = self.operands.wrong_outputs(
            self.freivalds.wrong(),
            (&reference.sums, &reference.d, problem.output),
            &reference.tokens,
            layer,
        )?;
        Ok(wrong == 0)
    }
}

/// The plain loop on the host.
fn naive_sums_are_right(
    reference: &IntegerReference,
    (m, n, k): (usize, usize, usize),
) -> Result<bool, CudaError> {
    let row_bytes = reference.tokens.row_bytes();
    let (mut codes, mut w8, mut sums) = (vec![0i8; m * row_bytes], vec![0i8; n * k], vec![0i32; m * n]);
    reference.tokens.codes().read(0, &mut codes)?;
    reference.w8.read(0, &mut w8)?;
    reference.sums.read(0, &mut sums)?;
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

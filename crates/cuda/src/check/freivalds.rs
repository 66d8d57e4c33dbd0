//! Freivalds' check at full size, beside cu/freivalds.cu: `D * r` against `A * (B * r)` with a random vector r.
//!
//! Integers modulo 2^32 with r uniform: a product that is wrong anywhere passes with probability 1/2 at most for a row that
//! errs by an odd number, 2^-32 for most errors; rows are checked one by one, and kernels err in many.
//!
//! Floats with signs for r, in double precision. The rounding errors e_n of a row were made before r was drawn, so by
//! Hoeffding's inequality |sum r_n e_n| > 8 sqrt(sum e_n^2) has a probability of 2 exp(-32). An error is bounded by the
//! rounding of the output (4 units: a library may add up parts in the type of the output) and by that of the sum, for
//! which sqrt(K) * 4 units of f32 times the norms of row and column is the probabilistic bound of Higham and Mary (2019).

use std::sync::Arc;

use dualgrain_device::naive::Transposes;

use super::launch::{pointer, run};
use super::wrong_count::Wrong;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel};
use crate::error::CudaError;
use crate::rivals::CublasType;

/// Columns a CTA of `vector_times_matrix` takes, and rows.
const COLUMNS: usize = 256;
const ROWS: usize = 128;
/// Standard deviations allowed.
const SIGMAS: f64 = 8.0;
/// Units in the last place an output may be off, and a sum's rounding in units of f32 for each sqrt(K).
const OUTPUT_UNITS: f64 = 4.0;
const SUM_UNITS: f64 = 4.0;

/// Type of a matrix's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// int8.
    S8,
    /// int32.
    I32,
    /// Floats.
    Float(CublasType),
}

impl Element {
    const ALL: [Self; 5] = [
        Self::S8,
        Self::I32,
        Self::Float(CublasType::F32),
        Self::Float(CublasType::F16),
        Self::Float(CublasType::Bf16),
    ];

    fn code(self) -> i64 {
        match self {
            Self::S8 => 0,
            Self::I32 => 1,
            Self::Float(CublasType::F32) => 2,
            Self::Float(CublasType::F16) => 3,
            Self::Float(CublasType::Bf16) => 4,
        }
    }

    fn size_bytes(self) -> usize {
        match self {
            Self::S8 => 1,
            Self::I32 => 4,
            Self::Float(kind) => kind.size_bytes(),
        }
    }

    /// Bytes of a sum over elements.
    fn sum_bytes(self) -> usize {
        match self {
            Self::S8 | Self::I32 => 4,
            Self::Float(_) => 8,
        }
    }
}

fn source(name: &'static str, element: Element) -> Source {
    Source {
        name,
        text: cu::FREIVALDS,
        headers: &[],
        macros: vec![("ELEMENT", element.code())],
    }
}

/// Every kernel of the check, as it is compiled.
pub fn freivalds_sources() -> Vec<Source> {
    let names = [
        "matrix_times_vector",
        "vector_times_matrix",
        "random_vector",
        "count_wrong_rows",
    ];
    Element::ALL
        .into_iter()
        .flat_map(|element| names.map(|name| source(name, element)))
        .collect()
}

/// A matrix on the card, stored row by row.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// Its elements.
    pub buffer: &'a Buffer,
    /// Their type.
    pub element: Element,
    /// Rows and columns as stored.
    pub size: (usize, usize),
    /// Elements between rows.
    pub row_elements: usize,
}

impl<'a> Stored<'a> {
    /// Without gaps between rows.
    pub fn dense(buffer: &'a Buffer, element: Element, size: (usize, usize)) -> Self {
        Self {
            buffer,
            element,
            size,
            row_elements: size.1,
        }
    }

    fn check(&self, what: &'static str) -> Result<(), CudaError> {
        let elements = self.size.0.saturating_sub(1) * self.row_elements + self.size.1;
        let (expected, got) = (elements * self.element.size_bytes(), self.buffer.len_bytes());
        if got < expected {
            return Err(CudaError::Length { what, expected, got });
        }
        Ok(())
    }
}

/// What rows of a right product give with the random vector.
pub struct Expected {
    vector: Buffer,
    rows: Buffer,
    k: usize,
    seed: u64,
}

/// How a float product is put together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blend {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what was in D.
    pub beta: f32,
}

/// The check on a card.
pub struct Freivalds<'a> {
    jit: &'a Jit,
    gpu: &'a Gpu,
    wrong: Wrong,
}

impl<'a> Freivalds<'a> {
    /// For a card.
    ///
    /// # Errors
    /// No memory.
    pub fn new(jit: &'a Jit, gpu: &'a Gpu) -> Result<Self, CudaError> {
        let wrong = Wrong::new(gpu)?;
        Ok(Self { jit, gpu, wrong })
    }

    /// The counter.
    pub fn wrong(&self) -> &Wrong {
        &self.wrong
    }

    fn kernel(&self, name: &'static str, element: Element) -> Result<Arc<Kernel>, CudaError> {
        self.jit.kernel(&source(name, element))
    }

    /// `A * (B * r)` for stored operands: A is `[M,K]` or `[K,M]`, B `[K,N]` or `[N,K]`, as `transposes` says.
    ///
    /// # Errors
    /// Buffers that are too short, or a launch that failed.
    pub fn expect(
        &self,
        transposes: Transposes,
        (a, b): (Stored<'_>, Stored<'_>),
        seed: u64,
    ) -> Result<Expected, CudaError> {
        let (k, n) = if transposes.b {
            (b.size.1, b.size.0)
        } else {
            b.size
        };
        let vector = self.gpu.filled(n * b.element.sum_bytes(), 0)?;
        let kernel = self.kernel("random_vector", b.element)?;
        let (mut v, mut count, mut from) = (vector.address(), n as i32, seed);
        let arguments = &mut [pointer(&mut v), pointer(&mut count), pointer(&mut from)];
        run(&kernel, [n.div_ceil(COLUMNS), 1], arguments)?;
        let inner = self.times(b, "B", !transposes.b, &vector, None)?;
        let rows = self.times(a, "A", !transposes.a, &inner, None)?;
        Ok(Expected {
            vector,
            rows,
            k,
            seed,
        })
    }

    /// A stored matrix times a vector (`forward`), or the vector times it.
    fn times(
        &self,
        x: Stored<'_>,
        what: &'static str,
        forward: bool,
        vector: &Buffer,
        squares: Option<&Buffer>,
    ) -> Result<Buffer, CudaError> {
        x.check(what)?;
        let (rows, columns) = x.size;
        let (inputs, outputs) = if forward { (columns, rows) } else { (rows, columns) };
        let expected = inputs * x.element.sum_bytes();
        if vector.len_bytes() < expected {
            let got = vector.len_bytes();
            let what = "vector of the check";
            return Err(CudaError::Length { what, expected, got });
        }
        let out = self.gpu.filled(outputs * x.element.sum_bytes(), 0)?;
        let (mut from, mut stride) = (x.buffer.address(), x.row_elements as i64);
        let (mut row_count, mut column_count) = (rows as i32, columns as i32);
        let (mut v, mut to) = (vector.address(), out.address());
        let mut squares = squares.map_or(0, Buffer::address);
        if forward {
            let kernel = self.kernel("matrix_times_vector", x.element)?;
            let arguments = &mut [
                pointer(&mut from),
                pointer(&mut stride),
                pointer(&mut column_count),
                pointer(&mut v),
                pointer(&mut to),
                pointer(&mut squares),
            ];
            run(&kernel, [rows, 1], arguments)?;
        } else {
            let kernel = self.kernel("vector_times_matrix", x.element)?;
            let arguments = &mut [
                pointer(&mut from),
                pointer(&mut stride),
                pointer(&mut row_count),
                pointer(&mut column_count),
                pointer(&mut v),
                pointer(&mut to),
            ];
            run(
                &kernel,
                [columns.div_ceil(COLUMNS), rows.div_ceil(ROWS)],
                arguments,
            )?;
        }
        Ok(out)
    }

    /// `D * r` of what is in D before a product that adds to it.
    ///
    /// # Errors
    /// As [`Freivalds::expect`].
    pub fn before(&self, d: Stored<'_>, expected: &Expected) -> Result<Buffer, CudaError> {
        self.times(d, "D", true, &expected.vector, None)
    }

    /// Rows of integer sums that are wrong.
    ///
    /// # Errors
    /// As [`Freivalds::expect`].
    pub fn wrong_sums(&self, d: Stored<'_>, expected: &Expected) -> Result<u32, CudaError> {
        let got = self.times(d, "D", true, &expected.vector, None)?;
        self.count(d, &got, expected, None, [1.0, 0.0, 0.0, 0.0])
    }

    /// Rows of a float product that are wrong; operands have variance 1. `before` is what [`Freivalds::before`] gave.
    ///
    /// # Errors
    /// As [`Freivalds::expect`].
    pub fn wrong_floats(
        &self,
        d: Stored<'_>,
        kind: CublasType,
        expected: &Expected,
        blend: Blend,
        before: Option<&Buffer>,
    ) -> Result<u32, CudaError> {
        let (rows, columns) = d.size;
        let squares = self.gpu.filled(8 * rows, 0)?;
        let got = self.times(d, "D", true, &expected.vector, Some(&squares))?;
        let unit = match kind {
            CublasType::F32 => 2f64.powi(-24),
            CublasType::F16 => 2f64.powi(-11),
            CublasType::Bf16 => 2f64.powi(-8),
        };
        let k = expected.k as f64;
        // Norms of a row of A and a column of B are sqrt(K) each.
        let of_sums = f64::from(blend.alpha.abs()) * SUM_UNITS * 2f64.powi(-24) * k.sqrt() * k;
        let absolute = SIGMAS * of_sums * (columns as f64).sqrt();
        let relative = SIGMAS * OUTPUT_UNITS * unit;
        let numbers = [f64::from(blend.alpha), f64::from(blend.beta), absolute, relative];
        self.count(d, &got, expected, Some((before, &squares)), numbers)
    }

    fn count(
        &self,
        d: Stored<'_>,
        got: &Buffer,
        expected: &Expected,
        floats: Option<(Option<&Buffer>, &Buffer)>,
        [mut alpha, mut beta, mut absolute, mut relative]: [f64; 4],
    ) -> Result<u32, CudaError> {
        let kernel = self.kernel("count_wrong_rows", d.element)?;
        let mut wrong = self.wrong.cleared()?;
        let (mut got, mut right) = (got.address(), expected.rows.address());
        let mut before = floats.and_then(|(before, _)| before).map_or(0, Buffer::address);
        let mut squares = floats.map_or(0, |(_, squares)| squares.address());
        let mut rows = d.size.0 as i32;
        let arguments = &mut [
            pointer(&mut got),
            pointer(&mut right),
            pointer(&mut before),
            pointer(&mut squares),
            pointer(&mut rows),
            pointer(&mut alpha),
            pointer(&mut beta),
            pointer(&mut absolute),
            pointer(&mut relative),
            pointer(&mut wrong),
        ];
        run(&kernel, [d.size.0.div_ceil(COLUMNS), 1], arguments)?;
        self.wrong.count()
    }
}

impl Expected {
    /// Seed of the random vector.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

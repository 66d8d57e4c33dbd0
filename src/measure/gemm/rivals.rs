//! NVIDIA's own libraries on the same products.

use anyhow::Result;
use dualgrain_cuda::{Buffer, CublasBf16, CublasLtInt8, CudaError, Gpu, rotation_copies, times_s};

use crate::cli::arguments::{BenchGemm, Rival};
use crate::measure::gemm::operands::Operands;
use crate::measure::gemm::random::{random_bf16, random_bytes};
use crate::measure::gemm::record::{CEILING_SIDE, tops};

/// Those that were asked for.
pub struct Rivals<'a> {
    device: &'a Gpu,
    options: &'a BenchGemm,
    bf16: Option<CublasBf16>,
    int8: Option<CublasLtInt8>,
}

/// Median seconds of a product; none where a library was not asked for or has no algorithm.
#[derive(Clone, Copy, Default)]
pub struct RivalTimes {
    pub bf16_s: Option<f64>,
    pub int8_s: Option<f64>,
}

impl<'a> Rivals<'a> {
    /// Opens them.
    pub fn open(device: &'a Gpu, options: &'a BenchGemm) -> Result<Self, CudaError> {
        let wants = |rival| options.against.contains(&rival);
        Ok(Self {
            device,
            options,
            bf16: wants(Rival::CublasBf16)
                .then(|| CublasBf16::new(device))
                .transpose()?,
            int8: wants(Rival::CublasInt8)
                .then(|| CublasLtInt8::new(device))
                .transpose()?,
        })
    }

    /// Operations a second of a square int8 product, in 1e12; none without cuBLASLt.
    pub fn ceiling_tops(&self) -> Result<Option<f64>> {
        if self.int8.is_none() {
            return Ok(None);
        }
        let side = CEILING_SIDE;
        let w8 = self
            .device
            .upload_repeated(&random_bytes(side * 64), side * side)?;
        let time_s = self.time_int8((side, side, side), std::slice::from_ref(&w8))?;
        Ok(time_s.map(|time_s| tops((side, side, side), time_s)))
    }

    /// Those of each number of tokens.
    pub fn times(&self, operands: &Operands) -> Result<Vec<RivalTimes>> {
        let bf16 = self.times_bf16(operands)?;
        let int8 = self.times_int8(operands)?;
        let both = bf16.into_iter().zip(int8);
        Ok(both
            .map(|(bf16_s, int8_s)| RivalTimes { bf16_s, int8_s })
            .collect())
    }

    fn times_bf16(&self, operands: &Operands) -> Result<Vec<Option<f64>>> {
        let Some(blas) = &self.bf16 else {
            return Ok(vec![None; self.options.m.len()]);
        };
        let (n, k) = operands.shape();
        let weights = self.copies_of(operands.bf16(self.device)?)?;
        let time = |m: usize| -> Result<Option<f64>> {
            let a = self.device.upload_repeated(&random_bf16(m.min(64) * k), m * k)?;
            let d = self.device.filled(2 * m * n, 0)?;
            let launch = |i: usize| blas.launch((m, n, k), &a, &weights[i], &d);
            Ok(Some(self.median_s(weights.len(), launch)?))
        };
        self.options.m.iter().map(|&m| time(m)).collect()
    }

    fn times_int8(&self, operands: &Operands) -> Result<Vec<Option<f64>>> {
        if self.int8.is_none() {
            return Ok(vec![None; self.options.m.len()]);
        }
        let (n, k) = operands.shape();
        let weights = self.copies_of(operands.w8(self.device)?)?;
        let tokens = self.options.m.iter();
        tokens.map(|&m| self.time_int8((m, n, k), &weights)).collect()
    }

    /// Where the library has no algorithm for so many tokens, those of the next multiple of 16.
    fn time_int8(&self, (m, n, k): (usize, usize, usize), weights: &[Buffer]) -> Result<Option<f64>> {
        let Some(blas) = &self.int8 else {
            return Ok(None);
        };
        let padded = m.next_multiple_of(16);
        let of_tokens = |m: usize| Some((m, blas.product((m, n, k)).ok()?));
        let Some((m, product)) = of_tokens(m).or_else(|| of_tokens(padded)) else {
            return Ok(None);
        };
        let a = self.device.upload_repeated(&random_bytes(m.min(64) * k), m * k)?;
        let d = self.device.filled(4 * m * n, 0)?;
        let timed = self.median_s(weights.len(), |i| product.launch(&a, &weights[i], &d));
        Ok(timed.ok())
    }

    fn median_s(&self, copies: usize, launch: impl Fn(usize) -> Result<(), CudaError>) -> Result<f64> {
        let times = times_s(self.device, self.options.repeat, copies, launch)?;
        Ok(times[times.len() / 2])
    }

    /// A buffer and copies of it that pass the second-level cache together.
    fn copies_of(&self, first: Buffer) -> Result<Vec<Buffer>, CudaError> {
        let mut all = vec![first];
        for _ in 1..rotation_copies(self.device, all[0].len_bytes()) {
            let copy = self.device.filled(all[0].len_bytes(), 0)?;
            copy.copy_from(&all[0])?;
            all.push(copy);
        }
        Ok(all)
    }
}

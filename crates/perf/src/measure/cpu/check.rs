//! Checks a CPU product at full size before it is timed.

use dualgrain_cpu::{CpuDevice, Linear, Matrix, Quantized};
use dualgrain_device::{Device, DeviceError, Operand, naive};
use dualgrain_format::FloatLinear;

use super::operands::{DrawnOperands, DrawnWeights, random};

impl DrawnOperands {
    /// Whether a device multiplies them rightly: integer sums by Freivalds' check modulo 2^32 and outputs bit by bit from
    /// those, floats by signs in double precision; small products against the specification.
    ///
    /// # Errors
    /// The device failed.
    pub fn is_right(
        &self,
        device: &CpuDevice,
        linear: &Linear,
        (a, x): (&Quantized, &Matrix),
    ) -> Result<bool, DeviceError> {
        let (m, n, _) = self.shape;
        let mut out = device.matrix(m, n)?;
        let mut d = vec![f32::NAN; m * n];
        Ok(match &self.drawn {
            DrawnWeights::Integer { w8, s1 } => {
                device.gemm(&mut out, Operand::Int8(a), linear)?;
                device.download(&out, 0..m, &mut d)?;
                let sums = device.gemm_acc(a, linear);
                let outputs_follow = d.iter().zip(&sums).enumerate().all(|(place, (d, &sum))| {
                    let expected = naive::epilogue(sum, self.scales[place / n], s1[place % n], None);
                    d.to_bits() == expected.to_bits()
                });
                outputs_follow
                    && self.sums_are_right(w8, &sums)
                    && self.naive_sums.as_ref().is_none_or(|naive| *naive == sums)
            }
            DrawnWeights::Float(layer) => {
                device.gemm(&mut out, Operand::Float(x), linear)?;
                device.download(&out, 0..m, &mut d)?;
                self.floats_are_right(layer, &d) && self.naive_floats.as_ref().is_none_or(|naive| *naive == d)
            }
        })
    }

    fn sums_are_right(&self, w8: &[i8], sums: &[i32]) -> bool {
        let (_, n, k) = self.shape;
        let mut next = random(11);
        let r: Vec<u32> = (0..n).map(|_| next() as u32).collect();
        let mut inner = vec![0u32; k];
        for (w, &r) in w8.chunks_exact(k).zip(&r) {
            for (inner, &w) in inner.iter_mut().zip(w) {
                *inner = inner.wrapping_add(r.wrapping_mul(i32::from(w) as u32));
            }
        }
        let dot = |values: &mut dyn Iterator<Item = (u32, u32)>| {
            values.fold(0u32, |sum, (x, y)| sum.wrapping_add(x.wrapping_mul(y)))
        };
        let rows = self.codes.chunks_exact(k).zip(sums.chunks_exact(n));
        rows.into_iter().all(|(a, sums)| {
            let expected = dot(&mut a.iter().map(|&a| i32::from(a) as u32).zip(inner.iter().copied()));
            expected == dot(&mut sums.iter().map(|&sum| sum as u32).zip(r.iter().copied()))
        })
    }

    /// The bound of `freivalds` on the card: Hoeffding over signs, Higham and Mary for a sum of K products of variance 1.
    fn floats_are_right(&self, layer: &FloatLinear, d: &[f32]) -> bool {
        let (_, n, k) = self.shape;
        let mut next = random(13);
        let r: Vec<f64> = (0..n).map(|_| if next() & 1 == 0 { 1.0 } else { -1.0 }).collect();
        let mut inner = vec![0.0f64; k];
        for (row, r) in r.iter().enumerate() {
            for (column, inner) in inner.iter_mut().enumerate() {
                *inner += r * f64::from(layer.weight().at(row * k + column));
            }
        }
        let of_sum = 4.0 * 2f64.powi(-24) * (k as f64).sqrt() * k as f64;
        let allowed = 8.0 * of_sum * (n as f64).sqrt();
        let rows = self.a.chunks_exact(k).zip(d.chunks_exact(n));
        rows.into_iter().all(|(a, d)| {
            let expected: f64 = a.iter().zip(&inner).map(|(&a, y)| f64::from(a) * y).sum();
            let got: f64 = d.iter().zip(&r).map(|(&d, r)| f64::from(d) * r).sum();
            (got - expected).abs() <= allowed
        })
    }
}

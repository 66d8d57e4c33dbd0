//! An orthogonal matrix that spreads every channel over all others.
//!
//! `R = D (C x H)`: signs drawn from a seed, then a Hadamard matrix `H` of the largest power of two that divides the width,
//! mixed by the discrete Hartley transform `C` of what remains (1 for most models, otherwise mostly 3, 5 or 7). All three are
//! orthogonal, so any width has such a matrix, and no element of it is larger than `sqrt(2 / width)`, or `sqrt(1 / width)` where
//! the width is a power of two. QuIP#, arXiv 2402.04396, and QuaRot, arXiv 2404.00456, take Hadamard matrices for the same purpose.

use std::f64::consts::TAU;

use dualgrain_format::transform_blocks;

/// `R` `[n,n]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Orthogonal {
    /// The diagonal of D `[n]`.
    signs: Vec<f64>,
    /// The order of H.
    block: usize,
    /// C `[mixed,mixed]`, symmetric.
    hartley: Vec<f64>,
    /// The order of C: `n / block`.
    mixed: usize,
}

impl Orthogonal {
    /// The matrix of a width of `n` channels that belongs to `seed`: the same on every machine and for every number of threads.
    pub fn new(n: usize, seed: u64) -> Self {
        let block = power_of_two_in(n);
        let mixed = n / block;
        Self {
            signs: (0..n as u64).map(|channel| sign(seed, channel)).collect(),
            block,
            hartley: hartley(mixed),
            mixed,
        }
    }

    /// Multiplications and additions of [`Self::apply`], about.
    pub fn multiply_adds(n: usize) -> u64 {
        let block = power_of_two_in(n);
        (n * (block.ilog2() as usize + n / block)) as u64
    }

    /// `row := row R` for one row `[n]`.
    pub fn apply(&self, row: &mut [f64]) {
        row.iter_mut()
            .zip(&self.signs)
            .for_each(|(value, sign)| *value *= sign);
        transform_blocks(row, self.block);
        if self.mixed > 1 {
            self.mix(row);
        }
    }

    /// Multiplies by C what stands at the same place of every block.
    fn mix(&self, row: &mut [f64]) {
        let mut values = vec![0.0; self.mixed];
        for place in 0..self.block {
            for (index, value) in values.iter_mut().enumerate() {
                *value = row[index * self.block + place];
            }
            for (index, factors) in self.hartley.chunks_exact(self.mixed).enumerate() {
                let products = factors.iter().zip(&values).map(|(factor, value)| factor * value);
                row[index * self.block + place] = products.sum();
            }
        }
    }
}

/// The largest power of two that divides `n`; 1 for 0.
pub fn power_of_two_in(n: usize) -> usize {
    if n == 0 { 1 } else { 1 << n.trailing_zeros() }
}

/// `(cos(2 pi i j / n) + sin(2 pi i j / n)) / sqrt(n)`.
fn hartley(n: usize) -> Vec<f64> {
    let element = |index: usize| {
        // Reduced before it is an angle, so that no precision is lost.
        let angle = TAU * ((index / n) * (index % n) % n) as f64 / n as f64;
        (angle.cos() + angle.sin()) / (n as f64).sqrt()
    };
    (0..n * n).map(element).collect()
}

/// 1 or -1, a bit of SplitMix64.
fn sign(seed: u64, channel: u64) -> f64 {
    let mut bits = seed.wrapping_add((channel + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    if (bits ^ (bits >> 31)) & 1 == 0 { 1.0 } else { -1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(n: usize) -> Vec<Vec<f64>> {
        let rotation = Orthogonal::new(n, 7);
        let row = |channel| {
            let mut row = vec![0.0; n];
            row[channel] = 1.0;
            rotation.apply(&mut row);
            row
        };
        (0..n).map(row).collect()
    }

    #[test]
    fn rows_are_orthonormal_for_any_width_and_no_element_is_large() {
        for n in [1, 2, 3, 7, 12, 40, 64, 97] {
            let rows = matrix(n);
            let bound = (2.0 / n as f64).sqrt() + 1e-12;
            for (i, a) in rows.iter().enumerate() {
                assert!(a.iter().all(|v| v.abs() <= bound), "{n}: row {i}");
                for (j, b) in rows.iter().enumerate() {
                    let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    let expected = f64::from(u8::from(i == j));
                    assert!(
                        (product - expected).abs() < 1e-12,
                        "{n}: rows {i} and {j}: {product}"
                    );
                }
            }
        }
    }

    #[test]
    fn another_seed_is_another_matrix() {
        assert_eq!(Orthogonal::new(64, 1), Orthogonal::new(64, 1));
        assert_ne!(Orthogonal::new(64, 1), Orthogonal::new(64, 2));
        let ups = Orthogonal::new(1024, 1)
            .signs
            .iter()
            .filter(|sign| **sign > 0.0)
            .count();
        assert!((448..=576).contains(&ups), "{ups} of 1,024 signs are positive");
    }
}

//! FP32 product with transposes, alpha and beta: `D = alpha * op(A) * op(B) + beta * D`.

/// Which operands are stored transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transposes {
    /// A is stored as `[K,M]`, else `[M,K]`.
    pub a: bool,
    /// B is stored as `[N,K]`, else `[K,N]`.
    pub b: bool,
}

impl Transposes {
    /// NN, NT, TN, TT.
    pub const ALL: [Self; 4] = [
        Self { a: false, b: false },
        Self { a: false, b: true },
        Self { a: true, b: false },
        Self { a: true, b: true },
    ];

    /// Elements between neighbours along M and along K of A.
    pub fn strides_a(self, m: usize, k: usize) -> (usize, usize) {
        if self.a { (1, m) } else { (k, 1) }
    }

    /// Elements between neighbours along K and along N of B.
    pub fn strides_b(self, n: usize, k: usize) -> (usize, usize) {
        if self.b { (1, k) } else { (n, 1) }
    }
}

/// Each output accumulates k = 0, 1, 2, ... with fused multiply-adds from 0; alpha, beta and the addition are rounded one by
/// one, and D is not read when beta is 0.
pub fn sgemm(
    transposes: Transposes,
    (m, n, k): (usize, usize, usize),
    (alpha, beta): (f32, f32),
    a: &[f32],
    b: &[f32],
    d: &mut [f32],
) {
    let ((a_m, a_k), (b_k, b_n)) = (transposes.strides_a(m, k), transposes.strides_b(n, k));
    for (place, out) in d.iter_mut().enumerate().take(m * n) {
        let (row, column) = (place / n, place % n);
        let sum = (0..k).fold(0.0f32, |sum, k_idx| {
            a[row * a_m + k_idx * a_k].mul_add(b[k_idx * b_k + column * b_n], sum)
        });
        let product = alpha * sum;
        *out = if beta == 0.0 {
            product
        } else {
            product + beta * *out
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_storage_of_the_same_matrices_gives_the_same_product() {
        let (m, n, k) = (2, 3, 4);
        let a: Vec<f32> = (0..m * k).map(|i| i as f32 - 3.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| 0.5 * i as f32 - 2.0).collect();
        let transposed = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
            let places = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
            places.map(|place| x[place]).collect()
        };
        let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
        let mut expected = vec![1.0; m * n];
        sgemm(Transposes::ALL[0], (m, n, k), (2.0, 0.5), &a, &b, &mut expected);
        // Row 0 of A is -3, -2, -1, 0; column 0 of B is -2, -0.5, 1, 2.5: 6 times alpha, and half of the 1 that was there.
        assert_eq!(expected[0], 12.5);
        for transposes in Transposes::ALL {
            let (a, b) = (
                if transposes.a { &at } else { &a },
                if transposes.b { &bt } else { &b },
            );
            let mut d = vec![1.0; m * n];
            sgemm(transposes, (m, n, k), (2.0, 0.5), a, b, &mut d);
            assert_eq!(d, expected);
        }
    }

    #[test]
    fn beta_of_zero_does_not_read_what_was_there() {
        let mut d = [f32::NAN];
        sgemm(Transposes::ALL[0], (1, 1, 1), (1.0, 0.0), &[2.0], &[3.0], &mut d);
        assert_eq!(d, [6.0]);
    }
}

//! Gram matrices and the quadratic forms the quantizer minimizes.

/// Tokens whose products are summed among themselves before they are added to the Gram matrix: a f32 sum over all
/// calibration tokens would lose the small contributions.
pub const GRAM_BLOCK_TOKENS: usize = 256;

/// `gram += x^T x` on the lower triangle (row >= column) for x `[tokens, k]`. Each block of 256 tokens is accumulated by
/// fused multiply-adds from 0, tokens in order, and added once.
pub fn gram_accumulate(gram: &mut [f32], x: &[f32], k: usize) {
    for block in x.chunks(GRAM_BLOCK_TOKENS * k) {
        for row in 0..k {
            for column in 0..=row {
                let tokens = block.chunks_exact(k);
                gram[row * k + column] += tokens.fold(0.0f32, |acc, x| x[row].mul_add(x[column], acc));
            }
        }
    }
}

/// `sums += x^T y` for x `[tokens,K]`, y `[tokens,N]` and sums `[K,N]`: fused multiply-adds from 0, tokens in order, added once.
pub fn cross_accumulate(sums: &mut [f32], (x, k): (&[f32], usize), (y, n): (&[f32], usize)) {
    for (i, sums) in sums.chunks_exact_mut(n).enumerate() {
        for (j, sum) in sums.iter_mut().enumerate() {
            let tokens = x.chunks_exact(k).zip(y.chunks_exact(n));
            *sum += tokens.fold(0.0f32, |acc, (x, y)| x[i].mul_add(y[j], acc));
        }
    }
}

/// `e * gram * e^T` from the lower triangle: the sum over i, in f64 and in order, of
/// `e_i * (gram_ii e_i + 2 sum_{j<i} gram_ij e_j)`, the inner sum by fused multiply-adds in f32 over j in order.
pub fn quadratic_row(gram: &[f32], e: &[f32]) -> f64 {
    let k = e.len();
    (0..k).fold(0.0, |total, i| {
        let row = &gram[i * k..];
        let below = (0..i).fold(0.0f32, |acc, j| row[j].mul_add(e[j], acc));
        let inner = 2.0f32.mul_add(below, row[i] * e[i]);
        total + f64::from(e[i]) * f64::from(inner)
    })
}

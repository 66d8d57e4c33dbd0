//! Matrix products `D[M,N] = A[M,K] * B[N,K]^T`: float, W8A8 and W4A8.

use dualgrain_format::{FloatLinear, Int8Linear, QuantizedLinear, int4};

/// Float product: each output accumulates k = 0, 1, 2, ... with fused multiply-adds from 0, then the bias is added.
pub fn gemm_float(a: &[f32], linear: &FloatLinear, d: &mut [f32]) {
    let (n, k) = (linear.n(), linear.k());
    for (a_row, d_row) in a.chunks_exact(k).zip(d.chunks_exact_mut(n)) {
        for (column, out) in d_row.iter_mut().enumerate() {
            let weight = |k_idx| linear.weight().at(column * k + k_idx);
            let sum = (0..k).fold(0.0f32, |acc, k_idx| a_row[k_idx].mul_add(weight(k_idx), acc));
            *out = linear.bias().map_or(sum, |bias| sum + bias[column]);
        }
    }
}

/// `(acc as f32 * ta) * s1 + bias`, every step rounded.
#[inline(always)]
pub fn epilogue(acc: i32, ta: f32, s1: f32, bias: Option<f32>) -> f32 {
    let scaled = (acc as f32 * ta) * s1;
    bias.map_or(scaled, |bias| scaled + bias)
}

/// W4A8 product: `acc[m,n] = sum_k a8[m,k] * s2[n,g] * (q[n,k] - zero[n,g])`, then the epilogue.
pub fn gemm_w4a8(a8: &[i8], ta: &[f32], linear: &QuantizedLinear, acc: &mut [i32], d: &mut [f32]) {
    let mut w8 = vec![0; linear.k()];
    for column in 0..linear.n() {
        linear.w8_row(column, &mut w8);
        let scale = (linear.s1()[column], linear.bias().map(|bias| bias[column]));
        column_of_product(a8, ta, &w8, (column, linear.n()), scale, acc, d);
    }
}

/// W8A8 product: `acc[m,n] = sum_k a8[m,k] * w8[n,k]`, then the epilogue.
pub fn gemm_w8a8(a8: &[i8], ta: &[f32], linear: &Int8Linear, acc: &mut [i32], d: &mut [f32]) {
    for (column, w8) in linear.w8().chunks_exact(linear.k()).enumerate() {
        let scale = (linear.s1()[column], linear.bias().map(|bias| bias[column]));
        column_of_product(a8, ta, w8, (column, linear.n()), scale, acc, d);
    }
}

/// What a 4-bit format with float group scales computes from a layer's codes in groups of 128: the sum of each group of
/// `a8 * (q - 8)` is exact and joins the others in order, `sum = fma(group, scale[n,g], sum)` from 0; with a `cut` (a group's
/// first column) the groups from there on are added up apart and then added. `d = sum * ta + bias`, both steps rounded.
pub fn gemm_w4f(
    (a8, ta): (&[i8], &[f32]),
    linear: &QuantizedLinear,
    scales: &[f32],
    cut: Option<usize>,
    d: &mut [f32],
) {
    let (n, k) = (linear.n(), linear.k());
    let groups = k.div_ceil(FLOAT_GROUP);
    let mut codes = vec![0; k];
    for column in 0..n {
        int4::unpack_row(linear.q_row(column), &mut codes);
        let scales = &scales[column * groups..(column + 1) * groups];
        for (row, a_row) in a8.chunks_exact(k).enumerate() {
            let group = |g: usize| {
                let end = k.min((g + 1) * FLOAT_GROUP);
                let products =
                    (g * FLOAT_GROUP..end).map(|i| i32::from(a_row[i]) * (i32::from(codes[i]) - 8));
                products.sum::<i32>() as f32
            };
            let part =
                |part: std::ops::Range<usize>| part.fold(0.0, |sum, g| group(g).mul_add(scales[g], sum));
            let first_groups = cut.map_or(groups, |cut| cut / FLOAT_GROUP);
            let sum = match cut {
                Some(_) => part(0..first_groups) + part(first_groups..groups),
                None => part(0..groups),
            };
            let scaled = sum * ta[row];
            d[row * n + column] = linear.bias().map_or(scaled, |bias| scaled + bias[column]);
        }
    }
}

/// Columns that share a scale in `gemm_w4f`.
const FLOAT_GROUP: usize = 128;

fn column_of_product(
    a8: &[i8],
    ta: &[f32],
    w8: &[i8],
    (column, n): (usize, usize),
    (s1, bias): (f32, Option<f32>),
    acc: &mut [i32],
    d: &mut [f32],
) {
    for (row, a_row) in a8.chunks_exact(w8.len()).enumerate() {
        let sum = a_row
            .iter()
            .zip(w8)
            .map(|(&a, &w)| i32::from(a) * i32::from(w))
            .sum();
        acc[row * n + column] = sum;
        d[row * n + column] = epilogue(sum, ta[row], s1, bias);
    }
}

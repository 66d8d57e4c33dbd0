//! INT8 weights with one scale a row, for a head.

/// The INT8 codes `[N,K]` of `rows`, and the scale of each row `[N]`: its abs-max by 127.
pub fn round_to_int8(rows: &[f32], k: usize) -> (Vec<i8>, Vec<f32>) {
    let (mut w8, mut s1) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len() / k));
    for row in rows.chunks_exact(k) {
        let scale = row.iter().fold(0.0_f32, |max, w| max.max(w.abs())) / 127.0;
        let inv_scale = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let code = |w: &f32| (w * inv_scale).round_ties_even().clamp(-127.0, 127.0) as i8;
        w8.extend(row.iter().map(code));
        s1.push(scale);
    }
    (w8, s1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_reaches_its_end_of_the_range_and_zeros_stay_zero() {
        let (w8, s1) = round_to_int8(&[-2.0, 1.0, 0.0, 0.0], 2);
        assert_eq!(w8, [-127, 64, 0, 0]);
        assert_eq!(s1, [2.0 / 127.0, 0.0]);
    }
}

//! The Hadamard transform on the host, in f64: for weights, which are transformed once.

/// Every run of `block` elements (a power of two) becomes its transform: with the orthonormal symmetric Hadamard matrix `H` of
/// that order (Sylvester's), `row := row H`.
pub fn transform_blocks(row: &mut [f64], block: usize) {
    let scale = 1.0 / (block as f64).sqrt();
    for run in row.chunks_exact_mut(block) {
        add_and_subtract(run);
        run.iter_mut().for_each(|value| *value *= scale);
    }
}

/// The transform of a run, not yet scaled: sums and differences of elements 1, 2, 4, ... apart.
fn add_and_subtract(run: &mut [f64]) {
    let mut apart = 1;
    while apart < run.len() {
        for pair in run.chunks_exact_mut(2 * apart) {
            let (low, high) = pair.split_at_mut(apart);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        apart *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_multiplied_by_sylvesters_matrix() {
        let mut row = [1.0, 2.0, 3.0, 4.0, 8.0, 0.0, 0.0, 0.0];
        transform_blocks(&mut row, 4);
        assert_eq!(row, [5.0, -1.0, -2.0, 0.0, 4.0, 4.0, 4.0, 4.0]);
        transform_blocks(&mut row, 1);
        assert_eq!(row[0], 5.0);
        transform_blocks(&mut row, 4);
        assert_eq!(row, [1.0, 2.0, 3.0, 4.0, 8.0, 0.0, 0.0, 0.0]);
    }
}

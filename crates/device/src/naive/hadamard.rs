//! The Hadamard transform of activations.

/// Every run of `block` elements, a power of two that divides the row, becomes its Hadamard transform: for elements 1, 2, 4, ...
/// apart in this order `(a, b)` becomes `(a + b, a - b)`, and at the end every element is multiplied by [`hadamard_scale`].
pub fn hadamard(x: &mut [f32], block: usize) {
    for run in x.chunks_exact_mut(block) {
        let mut apart = 1;
        while apart < block {
            for first in (0..block).filter(|index| index & apart == 0) {
                let (a, b) = (run[first], run[first + apart]);
                run[first] = a + b;
                run[first + apart] = a - b;
            }
            apart *= 2;
        }
        run.iter_mut().for_each(|v| *v *= hadamard_scale(block));
    }
}

/// `1 / sqrt(block)`, which makes the transform orthonormal and its own inverse.
pub fn hadamard_scale(block: usize) -> f32 {
    (1.0 / (block as f64).sqrt()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_multiplied_by_the_hadamard_matrix_of_its_order() {
        let mut x = [1.0, 2.0, 3.0, 4.0, 8.0, 0.0, 0.0, 0.0];
        hadamard(&mut x, 4);
        assert_eq!(x, [5.0, -1.0, -2.0, 0.0, 4.0, 4.0, 4.0, 4.0]);
        hadamard(&mut x, 1);
        hadamard(&mut x, 4);
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0, 8.0, 0.0, 0.0, 0.0]);
    }
}

//! Gram matrices on the host.

/// A Gram matrix `sum over tokens of x x^T` `[K,K]`, row-major on the host; only the lower triangle (row >= column)
/// is accumulated until [`Gram::symmetrize`].
#[derive(Debug, Clone, PartialEq)]
pub struct Gram {
    k: usize,
    values: Vec<f32>,
    num_tokens: usize,
}

impl Gram {
    /// The zero matrix `[k,k]`.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            values: vec![0.0; k * k],
            num_tokens: 0,
        }
    }

    /// Side length.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Tokens accumulated.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// Values `[K,K]`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Values to change in place (smoothing rescales rows and columns).
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Counts `num_tokens` more tokens and gives the values to add theirs to.
    pub fn accumulate_parts(&mut self, num_tokens: usize) -> &mut [f32] {
        self.num_tokens += num_tokens;
        &mut self.values
    }

    /// Copies the lower triangle onto the upper one.
    pub fn symmetrize(&mut self) {
        for row in 1..self.k {
            for column in 0..row {
                self.values[column * self.k + row] = self.values[row * self.k + column];
            }
        }
    }
}

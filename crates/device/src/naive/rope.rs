//! Rotary position embedding of one head.

/// Rotates the halves of the first `2 * cos.len()` elements: `(x0, x1) = (x0 c - x1 s, x1 c + x0 s)`, each product
/// rounded, then the sum.
pub fn rope_head(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for i in 0..half {
        let (x0, x1) = (head[i], head[i + half]);
        head[i] = x0 * cos[i] - x1 * sin[i];
        head[i + half] = x1 * cos[i] + x0 * sin[i];
    }
}

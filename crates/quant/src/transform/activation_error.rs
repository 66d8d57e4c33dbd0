//! What INT8 activations cost: the error they put on a linear's output, on a few sampled tokens.

/// The static scale of an input with these channel maxima `[K]`: the largest of them by 127.
pub fn static_scale(maxima: &[f32]) -> f32 {
    maxima.iter().fold(0.0_f32, |max, &m| max.max(m)) / 127.0
}

/// Squared error of a linear's output by its square, when the input is divided by `scales` `[K]` and quantized to INT8:
/// on `samples` of the input [samples, K] and some rows of the `weights` [rows, K], neither smoothed. `ta` is the static
/// scale; without one every token has its own.
pub fn activation_nmse(samples: &[f32], weights: &[f32], scales: &[f32], ta: Option<f32>) -> f64 {
    let k = scales.len();
    let (mut error, mut energy) = (0.0, 0.0);
    for x in samples.chunks_exact(k) {
        let lost = rounding_error(x, scales, ta);
        for weights in weights.chunks_exact(k) {
            error += dot(&lost, weights).powi(2);
            energy += dot(x, weights).powi(2);
        }
    }
    if energy > 0.0 { error / energy } else { 0.0 }
}

/// `x - s * dequantized(quantized(x / s))`.
fn rounding_error(x: &[f32], scales: &[f32], ta: Option<f32>) -> Vec<f32> {
    let smoothed: Vec<f32> = x.iter().zip(scales).map(|(x, s)| x / s).collect();
    let own = || smoothed.iter().fold(0.0_f32, |max, v| max.max(v.abs())) / 127.0;
    let ta = ta.unwrap_or_else(own);
    let inv_ta = if ta > 0.0 { 1.0 / ta } else { 0.0 };
    let lost = |(v, s): (&f32, &f32)| (v - (v * inv_ta).round_ties_even().clamp(-127.0, 127.0) * ta) * s;
    smoothed.iter().zip(scales).map(lost).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0_f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let tail: f32 = tail.map(|(x, y)| x * y).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        lanes
            .iter_mut()
            .zip(a)
            .zip(b)
            .for_each(|((lane, x), y)| *lane += x * y);
    }
    f64::from(lanes.iter().sum::<f32>() + tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_an_outlier_channel_lowers_the_error() {
        let sample = |i: usize| match i % 16 {
            3 => 50.0,
            _ => ((i * 7) % 11) as f32 * 0.1 - 0.5,
        };
        let samples: Vec<f32> = (0..4 * 16).map(sample).collect();
        let mut weights = vec![0.3; 16];
        weights[3] = 0.01;
        let (plain, mut smoothed) = (vec![1.0; 16], vec![1.0; 16]);
        smoothed[3] = 100.0;
        for [plain_ta, smoothed_ta] in [[None, None], [Some(50.0 / 127.0), Some(0.5 / 127.0)]] {
            let error = activation_nmse(&samples, &weights, &plain, plain_ta);
            assert!(activation_nmse(&samples, &weights, &smoothed, smoothed_ta) < error / 10.0);
        }
    }

    #[test]
    fn silent_inputs_have_no_error() {
        assert_eq!(activation_nmse(&[0.0; 8], &[1.0; 8], &[1.0; 8], Some(0.0)), 0.0);
    }
}

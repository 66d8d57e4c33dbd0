//! What INT8 activations cost: the error they put on a linear's output, on a few sampled tokens.

use dualgrain_format::ActivationScheme;

/// A linear as the error is measured on it.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// Rows of a few tokens, [samples, K], not smoothed.
    pub samples: &'a [f32],
    /// Largest magnitude of every channel over all tokens.
    pub maxima: &'a [f32],
    /// Some rows of the weights [rows, K], not smoothed.
    pub weights: &'a [f32],
    /// Where activation scales come from.
    pub scheme: ActivationScheme,
}

/// The static scale of a smoothed input: its abs-max over all tokens by 127.
pub fn static_scale(maxima: &[f32], scales: &[f32]) -> f32 {
    let largest = maxima
        .iter()
        .zip(scales)
        .fold(0.0_f32, |max, (m, s)| max.max(m / s));
    largest / 127.0
}

impl Probe<'_> {
    /// Squared error of the output by its square, when the input is divided by `scales` and quantized to INT8.
    pub fn nmse(&self, scales: &[f32]) -> f64 {
        let k = scales.len();
        let fixed = match self.scheme {
            ActivationScheme::Static => Some(static_scale(self.maxima, scales)),
            ActivationScheme::PerToken => None,
        };
        let (mut error, mut energy) = (0.0, 0.0);
        for x in self.samples.chunks_exact(k) {
            let lost = rounding_error(x, scales, fixed);
            for weights in self.weights.chunks_exact(k) {
                error += dot(&lost, weights).powi(2);
                energy += dot(x, weights).powi(2);
            }
        }
        if energy > 0.0 { error / energy } else { 0.0 }
    }
}

/// `x - s * dequantized(quantized(x / s))`.
fn rounding_error(x: &[f32], scales: &[f32], fixed: Option<f32>) -> Vec<f32> {
    let smoothed: Vec<f32> = x.iter().zip(scales).map(|(x, s)| x / s).collect();
    let own = || smoothed.iter().fold(0.0_f32, |max, v| max.max(v.abs())) / 127.0;
    let ta = fixed.unwrap_or_else(own);
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
        let samples: Vec<f32> = (0..4 * 16)
            .map(|i| {
                if i % 16 == 3 {
                    50.0
                } else {
                    ((i * 7) % 11) as f32 * 0.1 - 0.5
                }
            })
            .collect();
        let mut maxima = vec![0.5; 16];
        maxima[3] = 50.0;
        let mut weights = vec![0.3; 16];
        weights[3] = 0.01;
        let mut scales = vec![1.0; 16];
        let probe = |scheme| Probe {
            samples: &samples,
            maxima: &maxima,
            weights: &weights,
            scheme,
        };
        for scheme in [ActivationScheme::PerToken, ActivationScheme::Static] {
            scales[3] = 1.0;
            let plain = probe(scheme).nmse(&scales);
            scales[3] = 100.0;
            assert!(probe(scheme).nmse(&scales) < plain / 10.0, "{scheme:?}");
        }
    }

    #[test]
    fn silent_inputs_have_no_error() {
        let probe = Probe {
            samples: &[0.0; 8],
            maxima: &[0.0; 8],
            weights: &[1.0; 8],
            scheme: ActivationScheme::Static,
        };
        assert_eq!(probe.nmse(&[1.0; 8]), 0.0);
    }
}

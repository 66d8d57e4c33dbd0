//! Grouped heads: query heads that share a value head share its channels, and so their smoothing scales.

/// From a statistic of the attention output [num_heads * head_dim] the maximum for each value channel
/// [num_kv_heads * head_dim].
pub fn max_over_query_heads(maxima: &[f32], num_heads: usize, num_kv_heads: usize) -> Vec<f32> {
    let head_dim = maxima.len() / num_heads;
    let mut shared_maxima = vec![0.0_f32; num_kv_heads * head_dim];
    for (channel, &max) in maxima.iter().enumerate() {
        let shared = value_channel(channel, head_dim, num_heads / num_kv_heads);
        shared_maxima[shared] = shared_maxima[shared].max(max);
    }
    shared_maxima
}

/// The inverse: the scale of each attention output channel from those of the value channels.
pub fn repeat_for_query_heads(scales: &[f32], num_heads: usize, num_kv_heads: usize) -> Vec<f32> {
    let head_dim = scales.len() / num_kv_heads;
    (0..num_heads * head_dim)
        .map(|channel| scales[value_channel(channel, head_dim, num_heads / num_kv_heads)])
        .collect()
}

fn value_channel(channel: usize, head_dim: usize, sharing: usize) -> usize {
    channel / head_dim / sharing * head_dim + channel % head_dim
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_share_a_value_head_take_the_maximum_and_get_it_back() {
        // Four query heads of two elements on two value heads.
        let shared = max_over_query_heads(&[1.0, 8.0, 5.0, 2.0, 0.0, 3.0, 4.0, 1.0], 4, 2);
        assert_eq!(shared, [5.0, 8.0, 4.0, 3.0]);
        assert_eq!(
            repeat_for_query_heads(&shared, 4, 2),
            [5.0, 8.0, 5.0, 8.0, 4.0, 3.0, 4.0, 3.0]
        );
    }
}

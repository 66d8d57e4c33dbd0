//! The biases of layers that are joined along N.

/// Joins biases along N; `None` when no layer has one.
pub(crate) fn join_biases<'a>(
    biases: impl Iterator<Item = (Option<&'a [f32]>, usize)> + Clone,
) -> Option<Vec<f32>> {
    biases.clone().any(|(bias, _)| bias.is_some()).then(|| {
        biases
            .flat_map(|(bias, n)| bias.map_or_else(|| vec![0.0; n], <[f32]>::to_vec))
            .collect()
    })
}

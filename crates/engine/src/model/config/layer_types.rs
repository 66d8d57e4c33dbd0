//! Which layers have a window.

use crate::ConfigError;
use crate::model::config::fields::{Fields, field_error, unsupported};

/// Whether a layer has a window, where every `interval`-th one has none.
pub(super) fn every_nth_is_full(interval: usize) -> impl Fn(usize) -> bool {
    move |layer| !(layer + 1).is_multiple_of(interval)
}

/// `layer_types` if listed, else windows where the family has them.
pub(super) fn read_layer_types(
    fields: Fields<'_>,
    num_layers: usize,
    window: Option<usize>,
    has_window: &dyn Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let Some(types) = fields.texts("layer_types")? else {
        return Ok((0..num_layers)
            .map(|layer| window.filter(|_| has_window(layer)))
            .collect());
    };
    if types.len() != num_layers {
        let expected = format!("a list of {num_layers}");
        return Err(field_error(
            "layer_types",
            expected,
            format!("a list of {}", types.len()),
        ));
    }
    let windows = types.iter().map(|&kind| match (kind, window) {
        ("full_attention", _) => Ok(None),
        ("sliding_attention", Some(window)) => Ok(Some(window)),
        ("sliding_attention", None) => Err(field_error(
            "layer_types",
            "a sliding_window for sliding_attention".into(),
            "none",
        )),
        _ => Err(unsupported(
            "layer_types",
            kind,
            "full_attention, sliding_attention",
        )),
    });
    windows.collect()
}

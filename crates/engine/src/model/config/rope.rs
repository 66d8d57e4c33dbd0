//! Rotary embedding settings in both spellings.

use crate::model::config::fields::{Fields, field_error, unsupported};
use crate::{ConfigError, RopeConfig, RopeScaling};

const SUPPORTED: &str = "default, linear, llama3";

/// `rope_parameters` (transformers 5, possibly one object per layer type), or `rope_theta` and `rope_scaling` (before).
pub(super) fn read(config: Fields<'_>, max_positions: usize) -> Result<RopeConfig, ConfigError> {
    refuse_partial(config)?;
    let theta = config.positive("rope_theta", Some(10_000.0))?;
    if let (Some(new), Some(old)) = (config.object("rope_parameters")?, config.object("rope_scaling")?) {
        let kind = |rope: Fields<'_>| rope.value(rope.spelling(&["rope_type", "type"])).cloned();
        if kind(new) != kind(old) {
            let expected = "the same type as in rope_parameters";
            return Err(unsupported("rope_scaling", "of another type", expected));
        }
    }
    let Some(rope) = config.object(config.spelling(&["rope_parameters", "rope_scaling"]))? else {
        return Ok(RopeConfig {
            theta,
            scaling: RopeScaling::Default,
        });
    };
    let nested = rope.0.iter().filter(|(_, value)| value.is_object());
    let mut settings = nested.map(|(layer_type, _)| {
        let fields = rope.object(layer_type)?.unwrap_or(rope);
        read_object(fields, theta, max_positions)
    });
    let Some(first) = settings.next().transpose()? else {
        return read_object(rope, theta, max_positions);
    };
    for other in settings {
        if other? != first {
            return Err(unsupported(
                "rope_parameters",
                "different for each layer type",
                "the same for all layers",
            ));
        }
    }
    Ok(first)
}

fn read_object(rope: Fields<'_>, theta: f64, max_positions: usize) -> Result<RopeConfig, ConfigError> {
    refuse_partial(rope)?;
    let kind = rope
        .text(rope.spelling(&["rope_type", "type"]))?
        .unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear {
            factor: rope.positive("factor", None)?,
        },
        "llama3" => read_llama3(rope, max_positions)?,
        other => return Err(unsupported("rope_type", other, SUPPORTED)),
    };
    Ok(RopeConfig {
        theta: rope.positive("rope_theta", Some(theta))?,
        scaling,
    })
}

fn read_llama3(rope: Fields<'_>, max_positions: usize) -> Result<RopeScaling, ConfigError> {
    let low_freq_factor = rope.positive("low_freq_factor", None)?;
    let high_freq_factor = rope.positive("high_freq_factor", None)?;
    if high_freq_factor <= low_freq_factor {
        let expected = format!("more than low_freq_factor ({low_freq_factor})");
        return Err(field_error("high_freq_factor", expected, high_freq_factor));
    }
    Ok(RopeScaling::Llama3 {
        factor: rope.positive("factor", None)?,
        low_freq_factor,
        high_freq_factor,
        original_max_positions: rope
            .positive("original_max_position_embeddings", Some(max_positions as f64))?,
    })
}

fn refuse_partial(fields: Fields<'_>) -> Result<(), ConfigError> {
    match fields.number("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(unsupported("partial_rotary_factor", factor, 1.0)),
        _ => Ok(()),
    }
}

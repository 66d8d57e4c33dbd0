//! Rotary embedding settings in both spellings.

use super::fields::{Fields, field_error, unsupported};
use super::sizes::MAX_POSITIONS;
use crate::{ConfigError, Family, ModelConfig, Position, RopeConfig, RopeScaling};

const SUPPORTED: &str = "default, linear, dynamic, yarn, longrope, llama3";

/// What a model says beside its rope settings.
#[derive(Debug, Clone, Copy)]
struct Heads {
    rotary_dim: usize,
    max_positions: usize,
}

/// Rotary positions of a model whose heads are read; sets the part of a head that is rotated, and the positions that the settings give.
pub(super) fn read_position(
    fields: Fields<'_>,
    config: &mut ModelConfig,
    usual_theta: f64,
) -> Result<Position, ConfigError> {
    config.rotary_dim = read_rotary_dim(fields, config)?;
    let heads = Heads {
        rotary_dim: config.rotary_dim,
        max_positions: config.max_positions,
    };
    let differ_by_window = matches!(config.family, Family::Gemma3 | Family::Olmo3);
    let rope = read(fields, heads, usual_theta, differ_by_window)?;
    config.max_positions = config.max_positions.max(rope.reach()).min(MAX_POSITIONS);
    Ok(Position::Rope(rope))
}

/// Rotary embedding of the layers with a window, in families whose layers may differ by that: what `rope_parameters` say of them, or a
/// plain one of `usual_theta`.
pub(super) fn read_local(
    fields: Fields<'_>,
    config: &ModelConfig,
    usual_theta: f64,
) -> Result<RopeConfig, ConfigError> {
    let name = "rope_parameters";
    let of_windows = match fields.object(name)? {
        Some(ropes) => ropes.object(OF_WINDOWS)?,
        None => None,
    };
    let Some(rope) = of_windows else {
        return Ok(RopeConfig {
            theta: usual_theta,
            scaling: RopeScaling::Default,
        });
    };
    let heads = Heads {
        rotary_dim: config.rotary_dim,
        max_positions: config.max_positions,
    };
    let reader = Reader {
        name,
        config: fields,
        heads,
    };
    reader.read_object(rope, usual_theta)
}

/// The layer type in `rope_parameters` that has windows.
const OF_WINDOWS: &str = "sliding_attention";

/// Elements of a head that are rotated: all, but for families that rotate a part.
fn read_rotary_dim(fields: Fields<'_>, config: &ModelConfig) -> Result<usize, ConfigError> {
    let name = match config.family {
        Family::GptNeoX => fields.spelling(&["partial_rotary_factor", "rotary_pct"]),
        _ => "partial_rotary_factor",
    };
    let settings = [fields.object("rope_parameters")?, fields.object("rope_scaling")?];
    let nested = settings.iter().flatten().flat_map(|settings| settings.0.values());
    let nested = nested.filter_map(|value| value.as_object().map(Fields));
    let mut places = std::iter::once(fields)
        .chain(settings.into_iter().flatten())
        .chain(nested);
    let usual = match config.family {
        Family::Glm | Family::Glm4 | Family::Glm4Moe => 0.5,
        Family::GptNeoX => 0.25,
        _ => 1.0,
    };
    let factor = match places.find(|place| place.value(name).is_some()) {
        Some(place) => place.positive(name, None)?,
        None => usual,
    };
    let has_parts = matches!(
        config.family,
        Family::Phi3 | Family::Glm | Family::Glm4 | Family::Glm4Moe | Family::GptNeoX
    );
    if factor > 1.0 || (factor != 1.0 && !has_parts) {
        return Err(unsupported(name, factor, 1.0));
    }
    match (config.head_dim as f64 * factor) as usize {
        0 => Err(field_error(
            name,
            format!("at least one pair of the {} elements of a head", config.head_dim),
            factor,
        )),
        rotary_dim => Ok(rotary_dim),
    }
}

/// `rope_parameters` (transformers 5, possibly one object per layer type), or `rope_theta` and `rope_scaling` (before).
fn read(
    config: Fields<'_>,
    heads: Heads,
    usual_theta: f64,
    differ_by_window: bool,
) -> Result<RopeConfig, ConfigError> {
    let theta = config.spelling(&["rope_theta", "rotary_emb_base"]);
    let theta = config.positive(theta, Some(usual_theta))?;
    if let (Some(new), Some(old)) = (config.object("rope_parameters")?, config.object("rope_scaling")?) {
        let kind = |rope: Fields<'_>| rope.value(rope.spelling(&["rope_type", "type"])).cloned();
        if kind(new) != kind(old) {
            let expected = "the same type as in rope_parameters";
            return Err(unsupported("rope_scaling", "of another type", expected));
        }
    }
    let name = config.spelling(&["rope_parameters", "rope_scaling"]);
    let Some(rope) = config.object(name)? else {
        return Ok(RopeConfig {
            theta,
            scaling: RopeScaling::Default,
        });
    };
    let reader = Reader { name, config, heads };
    let nested = rope.0.iter().filter(|(_, value)| value.is_object());
    let nested = nested.filter(|(layer_type, _)| !differ_by_window || *layer_type != OF_WINDOWS);
    let mut settings = nested.map(|(layer_type, _)| {
        let fields = rope.object(layer_type)?.unwrap_or(rope);
        reader.read_object(fields, theta)
    });
    let Some(first) = settings.next().transpose()? else {
        return reader.read_object(rope, theta);
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

/// Settings that change frequencies, and so mean nothing without a type.
const CHANGING: [&str; 6] = [
    "factor",
    "attention_factor",
    "low_freq_factor",
    "high_freq_factor",
    "long_factor",
    "alpha",
];

struct Reader<'a> {
    /// The field that holds the settings.
    name: &'static str,
    config: Fields<'a>,
    heads: Heads,
}

impl Reader<'_> {
    fn read_object(&self, rope: Fields<'_>, theta: f64) -> Result<RopeConfig, ConfigError> {
        let kind = rope.text(rope.spelling(&["rope_type", "type"]))?;
        let scaling = match kind.map(str::trim) {
            None | Some("default") => self.read_default(rope, kind)?,
            Some("linear") => RopeScaling::Linear {
                factor: rope.positive("factor", None)?,
            },
            Some("dynamic") => self.read_dynamic(rope)?,
            // What the first files of Phi-3 call so.
            Some("yarn") if rope.value("long_factor").is_some() => self.read_longrope(rope)?,
            Some("yarn") => self.read_yarn(rope, rope.positive("rope_theta", Some(theta))?)?,
            Some("longrope" | "su") => self.read_longrope(rope)?,
            Some("llama3") => self.read_llama3(rope)?,
            Some(other) => return Err(unsupported("rope_type", other, SUPPORTED)),
        };
        Ok(RopeConfig {
            theta: rope.positive("rope_theta", Some(theta))?,
            scaling,
        })
    }

    /// A factor without a type would be dropped, and the model would answer as another one: transformers 4 refuses it, 5 warns.
    fn read_default(&self, rope: Fields<'_>, kind: Option<&str>) -> Result<RopeScaling, ConfigError> {
        let changes = |name: &&&str| rope.value(name).is_some_and(|value| value.as_f64() != Some(1.0));
        let Some(setting) = CHANGING.iter().find(changes) else {
            return Ok(RopeScaling::Default);
        };
        let got = match kind {
            Some(kind) => format!("`{setting}` with the type {kind}, which has none"),
            None => format!("`{setting}` without a type"),
        };
        let expected = format!("\"rope_type\" beside it (one of {SUPPORTED}), or no {setting}");
        Err(field_error(self.name, expected, got))
    }

    /// As in transformers a longer context stretches the base; up to `max_position_embeddings` nothing changes.
    fn read_dynamic(&self, rope: Fields<'_>) -> Result<RopeScaling, ConfigError> {
        if let Some(alpha) = rope.value("alpha") {
            return Err(unsupported("alpha", alpha, "a dynamic rope without alpha"));
        }
        Ok(RopeScaling::Dynamic {
            factor: at_least_one(rope, "factor", rope.positive("factor", None)?)?,
            max_positions: self.heads.max_positions as f64,
        })
    }

    fn read_yarn(&self, rope: Fields<'_>, theta: f64) -> Result<RopeScaling, ConfigError> {
        // Its ramp divides by the logarithm.
        if theta <= 1.0 {
            return Err(field_error("rope_theta", "more than 1 with yarn".into(), theta));
        }
        let original_max_positions = self.original_max_positions(rope)?;
        let ratio = self.heads.max_positions as f64 / original_max_positions;
        let factor = at_least_one(rope, "factor", rope.positive("factor", Some(ratio))?)?;
        // In Python 0 is as good as nothing here.
        let setting = |name: &str| Ok::<_, ConfigError>(rope.number(name)?.filter(|&number| number != 0.0));
        let of_scale = |mscale: f64| match factor <= 1.0 {
            true => 1.0,
            false => 0.1 * mscale * factor.ln() + 1.0,
        };
        let usual = match (setting("mscale")?, setting("mscale_all_dim")?) {
            (Some(mscale), Some(all_dim)) => of_scale(mscale) / of_scale(all_dim),
            _ => of_scale(1.0),
        };
        let beta = |name, usual| match setting(name)? {
            Some(_) => rope.positive(name, None),
            None => Ok(usual),
        };
        Ok(RopeScaling::Yarn {
            factor,
            attention_factor: rope.positive("attention_factor", Some(usual))?,
            beta_fast: beta("beta_fast", 32.0)?,
            beta_slow: beta("beta_slow", 1.0)?,
            original_max_positions,
            truncate: rope.flag("truncate", true)?,
        })
    }

    fn read_longrope(&self, rope: Fields<'_>) -> Result<RopeScaling, ConfigError> {
        let original_max_positions = self.original_max_positions(rope)?;
        let ratio = self.heads.max_positions as f64 / original_max_positions;
        let factor = rope.positive("factor", Some(ratio))?;
        let usual = match factor <= 1.0 || original_max_positions <= 1.0 {
            true => 1.0,
            false => (1.0 + factor.ln() / original_max_positions.ln()).sqrt(),
        };
        Ok(RopeScaling::LongRope {
            short_factor: rope.positives("short_factor", self.heads.rotary_dim / 2)?,
            long_factor: rope.positives("long_factor", self.heads.rotary_dim / 2)?,
            attention_factor: rope.positive("attention_factor", Some(usual))?,
            original_max_positions,
        })
    }

    fn read_llama3(&self, rope: Fields<'_>) -> Result<RopeScaling, ConfigError> {
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
            original_max_positions: self.original_max_positions(rope)?,
        })
    }

    /// Positions of the first training: a field beside the rope settings counts before one among them, as in transformers.
    fn original_max_positions(&self, rope: Fields<'_>) -> Result<f64, ConfigError> {
        let name = "original_max_position_embeddings";
        let inside = rope.positive(name, Some(self.heads.max_positions as f64))?;
        self.config.positive(name, Some(inside))
    }
}

fn at_least_one(rope: Fields<'_>, name: &str, factor: f64) -> Result<f64, ConfigError> {
    match factor >= 1.0 {
        true => Ok(factor),
        false => Err(field_error(
            name,
            "1 or more".into(),
            rope.value(name).map_or(factor.to_string(), ToString::to_string),
        )),
    }
}

//! Rotary embeddings as llama.cpp has them.

use std::f64::consts::TAU;

use dualgrain_engine::{ModelConfig, Position, RopeConfig, RopeScaling};
use dualgrain_format::gguf::GgufValue;

use crate::error::ExportError;
use crate::formats::ExportFormat;

/// Metadata by name, without the architecture in front.
pub type Settings = Vec<(&'static str, GgufValue)>;

/// Where a ramp of YaRN begins and ends in llama.cpp.
const YARN_BETAS: (f64, f64) = (32.0, 1.0);

/// What the metadata says of rotations, and divisors of the frequencies where they have a tensor of their own.
///
/// # Errors
/// Positions that llama.cpp computes otherwise.
pub fn settings(
    config: &ModelConfig,
    architecture: &str,
) -> Result<(Settings, Option<Vec<f32>>), ExportError> {
    let Position::Rope(rope) = &config.position else {
        return Err(unsupported("positions without a rotary embedding".into()));
    };
    let mut settings = vec![
        ("rope.dimension_count", GgufValue::U32(config.rotary_dim as u32)),
        ("rope.freq_base", GgufValue::F32(rope.theta as f32)),
    ];
    settings.extend(scaling(rope)?);
    match (llama3_divisors(rope, config.rotary_dim), architecture) {
        (Some(_), other) if other != "llama" => {
            Err(unsupported(format!("rope type llama3 in a model of {other}")))
        }
        (divisors, _) => Ok((settings, divisors)),
    }
}

fn scaling(rope: &RopeConfig) -> Result<Settings, ExportError> {
    let kind = |kind: &str, factor: f64| {
        vec![
            ("rope.scaling.type", GgufValue::Text(kind.into())),
            ("rope.scaling.factor", GgufValue::F32(factor as f32)),
        ]
    };
    match &rope.scaling {
        // Up to the context of the metadata a dynamic rope changes nothing; that of Llama 3 is a tensor.
        RopeScaling::Default | RopeScaling::Dynamic { .. } | RopeScaling::Llama3 { .. } => Ok(Vec::new()),
        RopeScaling::Linear { factor } => Ok(kind("linear", *factor)),
        RopeScaling::Yarn {
            factor,
            attention_factor,
            beta_fast,
            beta_slow,
            original_max_positions,
            truncate: true,
        } if (*beta_fast, *beta_slow) == YARN_BETAS && is_usual_attention(*factor, *attention_factor) => {
            let mut settings = kind("yarn", *factor);
            let original = GgufValue::U32(*original_max_positions as u32);
            settings.push(("rope.scaling.original_context_length", original));
            Ok(settings)
        }
        RopeScaling::Yarn { .. } => Err(unsupported(
            "rope type yarn with a ramp or an attention factor of its own".into(),
        )),
        RopeScaling::LongRope { .. } => Err(unsupported("rope type longrope".into())),
    }
}

/// What llama.cpp multiplies cosines and sines by.
fn is_usual_attention(factor: f64, attention_factor: f64) -> bool {
    (0.1 * factor.ln() + 1.0 - attention_factor).abs() < 1e-6
}

/// What frequencies are divided by in Llama 3: 1 for short waves, the factor for long ones, a ramp between.
fn llama3_divisors(rope: &RopeConfig, rotary_dim: usize) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 {
        factor,
        low_freq_factor,
        high_freq_factor,
        original_max_positions,
    } = rope.scaling
    else {
        return None;
    };
    let divisor = |pair: usize| {
        let wave = TAU * rope.theta.powf(2.0 * pair as f64 / rotary_dim as f64);
        let turns = original_max_positions / wave;
        let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - kept) / factor + kept)) as f32
    };
    Some((0..rotary_dim / 2).map(divisor).collect())
}

fn unsupported(what: String) -> ExportError {
    ExportError::Unsupported {
        format: ExportFormat::Gguf,
        what,
        expected: "rope type default, linear, dynamic, yarn with its usual ramp, or llama3 in a Llama".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rope: &str) -> ModelConfig {
        let text = format!(
            r#"{{"model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 1024, "rope_parameters": {rope}}}"#
        );
        ModelConfig::from_json(&text).unwrap()
    }

    #[test]
    fn frequencies_of_llama_3_are_divided_as_its_ramp_says() {
        let llama3 = config(
            r#"{"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256}"#,
        );
        let (_, divisors) = settings(&llama3, "llama").unwrap();
        let divisors = divisors.unwrap();
        assert_eq!((divisors.len(), divisors[0], divisors[31]), (32, 1.0, 8.0));
        assert!(divisors.is_sorted());
        // Pair 10: a wave of 111.7 positions, 2.29 turns in 256, 43 % of the way from 1 to 4.
        assert!(
            (divisors[10] - 1.0 / (0.5694 / 8.0 + 0.4306)).abs() < 2e-2,
            "{}",
            divisors[10]
        );
        assert!(settings(&llama3, "qwen2").is_err());
    }

    #[test]
    fn yarn_is_taken_with_its_usual_numbers_alone() {
        let yarn = |more: &str| {
            config(&format!(
                r#"{{"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 256{more}}}"#
            ))
        };
        let (found, divisors) = settings(&yarn(""), "qwen2").unwrap();
        assert!(found.contains(&("rope.scaling.type", GgufValue::Text("yarn".into()))));
        assert!(found.contains(&("rope.scaling.original_context_length", GgufValue::U32(256))));
        assert_eq!(divisors, None);
        for more in [r#", "beta_fast": 16.0"#, r#", "attention_factor": 1.5"#] {
            let error = settings(&yarn(more), "qwen2").unwrap_err().to_string();
            assert!(error.contains("rope type yarn"), "{error}");
        }
    }
}

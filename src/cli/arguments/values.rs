//! Single values of the command line: which are taken, and what is said of the others; and what every verb takes that writes a file.

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use dualgrain::format::GroupSize;

/// Whether a file that is there may be lost.
#[derive(Debug, Clone, Copy, Args)]
pub struct Replacing {
    /// Write over an output file even if dualgrain did not write it.
    #[arg(long)]
    pub replace: bool,
}

/// Accepts whole numbers from `least` to `most`.
pub fn count(least: u64, most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=most)
}

/// Accepts finite numbers from `least` to `most`.
pub fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from {least} to {most}")),
    }
}

/// Accepts numbers from 0 to 1.
pub fn probability(text: &str) -> Result<f32, String> {
    number(text, 0.0, 1.0).map(|number| number as f32)
}

/// Accepts numbers above 0, up to 1.
pub fn positive_probability(text: &str) -> Result<f32, String> {
    match probability(text) {
        Ok(number) if number > 0.0 => Ok(number),
        _ => Err("expected a number above 0 and at most 1".into()),
    }
}

/// Accepts numbers above 0.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number < 1e9 => Ok(number),
        _ => Err("expected a number above 0".into()),
    }
}

/// Accepts numbers from 0 up to, but not, 1.
pub fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..1.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0 to below 1".into()),
    }
}

/// Accepts `90s`, `20m`, `2h`, or seconds.
pub fn budget(text: &str) -> Result<Duration, String> {
    let unit = |suffix: char, seconds: f64| text.strip_suffix(suffix).map(|number| (number, seconds));
    let (number, seconds) = unit('s', 1.0)
        .or_else(|| unit('m', 60.0))
        .or_else(|| unit('h', 3600.0))
        .unwrap_or((text, 1.0));
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 && number * seconds < 1e9 => Ok(Duration::from_secs_f64(number * seconds)),
        _ => Err("expected a time like 90s, 20m or 2h".to_owned()),
    }
}

/// Accepts `0/2`, `1/2`: which part, from 0, of how many.
pub fn shard(text: &str) -> Result<(usize, usize), String> {
    let parsed = text
        .split_once('/')
        .and_then(|(part, parts)| Some((part.trim().parse().ok()?, parts.trim().parse().ok()?)));
    match parsed {
        Some((part, parts)) if part < parts => Ok((part, parts)),
        _ => Err("expected a part and how many there are, from 0/2".to_owned()),
    }
}

/// Accepts the spellings of a group size, and lists them in the help.
pub fn group_size() -> impl TypedValueParser<Value = GroupSize> {
    PossibleValuesParser::new(["32", "64", "128", "channel"]).try_map(|text| text.parse::<GroupSize>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_have_units_and_parts_lie_below_their_number() {
        assert_eq!(budget("20m"), Ok(Duration::from_secs(1200)));
        assert_eq!(budget("1.5"), Ok(Duration::from_millis(1500)));
        assert!(budget("soon").is_err() && budget("-1s").is_err() && budget("0").is_err());
        assert_eq!(shard("1/2"), Ok((1, 2)));
        assert!(shard("2/2").is_err() && shard("0/0").is_err() && shard("x").is_err());
    }
}

//! Tokens per second over several rounds.

use serde::Serializer;
use serde::ser::SerializeMap;

/// Tokens per second of all rounds.
#[derive(Debug, Clone)]
pub struct Rate {
    /// In the order they were measured.
    pub samples: Vec<f64>,
    /// The middle one.
    pub median: f64,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (of a sample: by n - 1).
    pub stddev: f64,
}

impl Rate {
    /// Of at least one sample.
    pub fn of(samples: Vec<f64>) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        Self {
            median: quantile(&sorted, 0.5),
            mean,
            stddev: (squares / (count - 1.0).max(1.0)).sqrt(),
            samples,
        }
    }

    /// (third quartile - first quartile) / median.
    fn spread(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        (quantile(&sorted, 0.75) - quantile(&sorted, 0.25)) / self.median
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// Fields `prefill_tokens_per_s` (the median) and so on, null where no prompt was run.
pub fn prefill<S: Serializer>(rate: &Option<Rate>, serializer: S) -> Result<S::Ok, S::Error> {
    let names = [
        "prefill_tokens_per_s",
        "prefill_mean",
        "prefill_stddev",
        "prefill_spread",
        "prefill_samples",
    ];
    fields(rate, names, serializer)
}

/// Fields `decode_tokens_per_s` (the median) and so on, null where nothing was generated.
pub fn decode<S: Serializer>(rate: &Option<Rate>, serializer: S) -> Result<S::Ok, S::Error> {
    let names = [
        "decode_tokens_per_s",
        "decode_mean",
        "decode_stddev",
        "decode_spread",
        "decode_samples",
    ];
    fields(rate, names, serializer)
}

fn fields<S: Serializer>(
    rate: &Option<Rate>,
    [median, mean, stddev, spread, samples]: [&'static str; 5],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    let rate = rate.as_ref();
    map.serialize_entry(median, &rate.map(|rate| rate.median))?;
    map.serialize_entry(mean, &rate.map(|rate| rate.mean))?;
    map.serialize_entry(stddev, &rate.map(|rate| rate.stddev))?;
    map.serialize_entry(spread, &rate.map(Rate::spread))?;
    map.serialize_entry(samples, &rate.map(|rate| &rate.samples))?;
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_the_median_mean_and_deviation_of_their_samples() {
        let rate = Rate::of(vec![4.0, 1.0, 1.0, 2.0, 2.0]);
        assert_eq!((rate.median, rate.mean), (2.0, 2.0));
        assert!((rate.stddev - 1.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(rate.spread(), 0.5);
        assert_eq!(Rate::of(vec![3.0]).stddev, 0.0);
    }
}

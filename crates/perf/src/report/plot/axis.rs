//! One axis: its quantity and unit, the place of a value on it, its ticks and their texts.

/// Share of the range that stays free at both ends of a logarithmic axis.
const LOG_MARGIN: f64 = 0.03;
/// Decades that a logarithmic axis shows at least.
const LEAST_DECADES: f64 = 0.3;
/// Logarithmic axes of fewer decades have their ticks at equal distances.
const FEW_DECADES: f64 = 0.9;
/// Ticks a linear axis aims at.
const LINEAR_TICKS: f64 = 5.0;

/// A title with a unit, a range, and how values spread over it.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    title: String,
    unit: &'static str,
    logarithmic: bool,
    low: f64,
    high: f64,
}

impl Axis {
    /// A logarithmic axis that holds all positive `values`; `None` when there is none.
    pub fn log(
        title: impl Into<String>,
        unit: &'static str,
        values: impl IntoIterator<Item = f64>,
    ) -> Option<Self> {
        let logs = values.into_iter().filter(|value| *value > 0.0).map(f64::log10);
        let (low, high) = range(logs)?;
        let lacking = (LEAST_DECADES - (high - low)).max(0.0) / 2.0;
        let margin = (high - low) * LOG_MARGIN + lacking;
        Some(Self {
            title: title.into(),
            unit,
            logarithmic: true,
            low: low - margin,
            high: high + margin,
        })
    }

    /// A linear axis that holds all `values`, ended by round numbers; `None` when there is none.
    pub fn linear(
        title: impl Into<String>,
        unit: &'static str,
        values: impl IntoIterator<Item = f64>,
    ) -> Option<Self> {
        let (low, high) = range(values.into_iter())?;
        let step = round_step(low, high);
        Some(Self {
            title: title.into(),
            unit,
            logarithmic: false,
            low: (low / step).floor() * step,
            high: ((high / step).ceil() * step).max(low + step),
        })
    }

    /// A linear axis from `low` to `high` exactly.
    pub fn between(title: impl Into<String>, unit: &'static str, low: f64, high: f64) -> Self {
        Self {
            title: title.into(),
            unit,
            logarithmic: false,
            low,
            high: high.max(low + f64::MIN_POSITIVE),
        }
    }

    /// Title and unit.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Where `value` lies, 0 at the lower and 1 at the upper end; what is outside is drawn at the end.
    pub fn place(&self, value: f64) -> f64 {
        let value = match self.logarithmic {
            true => value.max(f64::MIN_POSITIVE).log10(),
            false => value,
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// The value at the lower end.
    pub fn least(&self) -> f64 {
        self.value(self.low)
    }

    /// The value at the upper end.
    pub fn most(&self) -> f64 {
        self.value(self.high)
    }

    fn value(&self, inside: f64) -> f64 {
        match self.logarithmic {
            true => 10_f64.powf(inside),
            false => inside,
        }
    }

    /// Values that get a line and a number.
    pub fn ticks(&self) -> Vec<f64> {
        match self.logarithmic {
            true if self.high - self.low > FEW_DECADES => log_ticks(self.low, self.high),
            _ => even_ticks(self.least(), self.most()),
        }
    }

    /// How a value on this axis reads, with its unit.
    pub fn text(&self, value: f64) -> String {
        quantity(value, self.unit)
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.filter(|value| value.is_finite());
    finite.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// 1, 2 or 5 times a power of ten.
fn round_step(low: f64, high: f64) -> f64 {
    let wide = if high > low {
        high - low
    } else {
        high.abs().max(1.0)
    };
    let rough = wide / LINEAR_TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough);
    factor.unwrap_or(10.0) * power
}

/// Multiples of a round step.
fn even_ticks(low: f64, high: f64) -> Vec<f64> {
    let step = round_step(low, high);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

/// 1, 2 and 5 of every decade where there are few decades, else powers of ten, as many as can be read.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let steps: &[f64] = if high - low <= 2.2 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let every = ((high - low) / 6.0).ceil().max(1.0) as i32;
    (low.floor() as i32..=high.ceil() as i32)
        .filter(|decade| decade.rem_euclid(every) == 0)
        .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
        .filter(|tick| (low - 1e-9..=high + 1e-9).contains(&tick.log10()))
        .collect()
}

/// A quantity as a person writes it: three digits and a decimal prefix (`12.5 µs`, `1.32 POPS`); percentages, factors and
/// bare numbers take no prefix.
pub fn quantity(value: f64, unit: &str) -> String {
    const PREFIXES: [(&str, f64); 9] = [
        ("P", 1e15),
        ("T", 1e12),
        ("G", 1e9),
        ("M", 1e6),
        ("k", 1e3),
        ("", 1.0),
        ("m", 1e-3),
        ("µ", 1e-6),
        ("n", 1e-9),
    ];
    if !value.is_finite() {
        return "-".to_owned();
    }
    match unit {
        "" => return digits(value),
        "x" => return format!("{}x", digits(value)),
        "%" => return format!("{} %", digits(value)),
        _ if value == 0.0 => return format!("0 {unit}"),
        _ => {}
    }
    // What three digits round up to belongs to the next prefix.
    let size = value.abs() * 1.0005;
    let (prefix, factor) = PREFIXES
        .into_iter()
        .find(|(_, factor)| size >= *factor)
        .unwrap_or(("n", 1e-9));
    format!("{} {prefix}{unit}", digits(value / factor))
}

/// Three digits, without zeros at the end of a fraction.
fn digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let places = (2 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_people_write_them() {
        assert_eq!(quantity(12.5e-6, "s"), "12.5 µs");
        assert_eq!(quantity(0.999_99, "s"), "1 s");
        assert_eq!(quantity(1.318e15, "OPS"), "1.32 POPS");
        assert_eq!(quantity(0.0, "J"), "0 J");
        assert_eq!(quantity(4.0, "%"), "4 %");
        assert_eq!(quantity(-0.25, ""), "-0.25");
        assert_eq!(quantity(f64::NAN, "W"), "-");
    }

    #[test]
    fn ticks_lie_inside_and_are_at_least_two() {
        for (low, high) in [(1.0, 1.0), (3.0, 4.0), (1e-6, 1.0), (2e-9, 3e15), (0.011, 0.9)] {
            for axis in [
                Axis::log("t", "s", [low, high]).unwrap(),
                Axis::linear("t", "s", [low, high]).unwrap(),
            ] {
                let ticks = axis.ticks();
                assert!((2..=13).contains(&ticks.len()), "{low} {high}: {ticks:?}");
                assert!(ticks.iter().all(|&tick| {
                    let slack = 1e-6 * (axis.most() - axis.least());
                    (axis.least() - slack..=axis.most() + slack).contains(&tick)
                }));
            }
        }
    }

    #[test]
    fn values_that_cannot_be_drawn_give_no_axis() {
        assert_eq!(Axis::log("t", "s", [0.0, -1.0, f64::NAN]), None);
        assert_eq!(Axis::linear("t", "s", [f64::INFINITY]), None);
    }

    #[test]
    fn places_follow_the_logarithm_and_stop_at_the_ends() {
        let axis = Axis::log("t", "s", [1e-6, 1e-2]).unwrap();
        assert!((axis.place(1e-4) - 0.5).abs() < 1e-9);
        assert_eq!((axis.place(0.0), axis.place(1e9)), (0.0, 1.0));
    }
}

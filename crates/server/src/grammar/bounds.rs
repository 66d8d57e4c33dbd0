//! Bounds of numbers, as the grammar's library follows them rightly.

use serde_json::{Map, Value};

/// Whole numbers up to here are exact in every number format.
pub const EXACT: f64 = 9_007_199_254_740_992.0;
/// Fractions up to here keep six places.
const EXACT_FRACTIONS: f64 = 1e9;
/// How far a number keeps from a bound that it must not reach.
const STEP: f64 = 1e-9;

/// The keywords of a schema with bounds that are followed rightly.
pub fn with_safe_bounds(fields: Map<String, Value>) -> Map<String, Value> {
    with_steps(with_ends(fields))
}

/// Whether a number is a multiple can be told where numbers are exact.
fn with_ends(mut fields: Map<String, Value>) -> Map<String, Value> {
    let Some(divisor) = number(&fields, "multipleOf") else {
        return fields;
    };
    let far = if divisor.fract() == 0.0 {
        EXACT
    } else {
        EXACT_FRACTIONS
    };
    for (bounds, end) in [
        (["minimum", "exclusiveMinimum"], -far),
        (["maximum", "exclusiveMaximum"], far),
    ] {
        if !bounds.iter().any(|bound| fields.contains_key(*bound)) {
            fields.insert(bounds[0].to_owned(), end.into());
        }
    }
    fields
}

/// The library takes `3` for a value of `exclusiveMinimum: 3, maximum: 3.5`, and so below zero: the bound becomes one that may be reached, a
/// step away.
fn with_steps(mut fields: Map<String, Value>) -> Map<String, Value> {
    if let Some(bound) = whole(&fields, "exclusiveMinimum").filter(|bound| *bound >= 0.0) {
        let least = (bound + STEP).max(bound.next_up());
        let least = number(&fields, "minimum").map_or(least, |other| other.max(least));
        fields.shift_remove("exclusiveMinimum");
        fields.insert("minimum".to_owned(), least.into());
    }
    if let Some(bound) = whole(&fields, "exclusiveMaximum").filter(|bound| *bound <= 0.0) {
        let most = (bound - STEP).min(bound.next_down());
        let most = number(&fields, "maximum").map_or(most, |other| other.min(most));
        fields.shift_remove("exclusiveMaximum");
        fields.insert("maximum".to_owned(), most.into());
    }
    fields
}

/// Whether the grammar's library can count what several divisors, as they are written, have in common: it multiplies a common multiple
/// with the next divisor in 32 bits, as many places behind the point as the longest has.
pub fn counts_common_multiple(divisors: &[String]) -> bool {
    let places = |text: &str| text.split_once('.').map_or(0, |(_, behind)| behind.len());
    let most_places = divisors.iter().map(|text| places(text)).max().unwrap_or(0);
    let scaled = |text: &String| -> Option<u64> {
        let digits: String = text.chars().filter(|c| *c != '.').collect();
        let zeros = most_places - places(text);
        format!("{digits}{}", "0".repeat(zeros)).parse().ok()
    };
    let Some(scaled) = divisors.iter().map(scaled).collect::<Option<Vec<u64>>>() else {
        return false;
    };
    let largest = scaled.iter().max().copied().unwrap_or(1);
    let multiple = scaled.into_iter().try_fold(1u64, common_multiple);
    let most = multiple.and_then(|multiple| multiple.checked_mul(largest));
    most.is_some_and(|most| u32::try_from(most).is_ok())
}

fn common_multiple(a: u64, b: u64) -> Option<u64> {
    let (mut divisor, mut rest) = (a, b);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor.max(1)).checked_mul(b)
}

fn whole(fields: &Map<String, Value>, name: &str) -> Option<f64> {
    number(fields, name).filter(|number| number.fract() == 0.0)
}

fn number(fields: &Map<String, Value>, name: &str) -> Option<f64> {
    fields.get(name).and_then(Value::as_f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn safe(fields: Value) -> Value {
        let Value::Object(fields) = fields else {
            unreachable!("keywords are an object");
        };
        Value::Object(with_safe_bounds(fields))
    }

    #[test]
    fn common_multiples_are_counted_in_32_bits() {
        let counts = |divisors: &[&str]| {
            let divisors: Vec<String> = divisors.iter().map(|&text| text.to_owned()).collect();
            counts_common_multiple(&divisors)
        };
        assert!(
            counts(&["7"]) && counts(&["2", "3", "7"]) && counts(&["0.5", "0.25", "3"]) && counts(&["65535"])
        );
        assert!(!counts(&["65536", "65537"]) && !counts(&["100000", "50000"]));
        assert!(!counts(&["65536", "65536"]) && !counts(&["0.000001", "2"]) && !counts(&["1e-7", "2"]));
    }

    #[test]
    fn only_bounds_that_are_followed_wrongly_change() {
        for same in [
            json!({"type": "string"}),
            json!({"minimum": 0, "maximum": 1.5}),
            json!({"exclusiveMinimum": -3, "exclusiveMaximum": 3}),
            json!({"exclusiveMinimum": 0.5}),
            json!({"multipleOf": 2, "minimum": 1, "exclusiveMaximum": 9}),
        ] {
            assert_eq!(safe(same.clone()), same);
        }
        assert_eq!(
            safe(json!({"exclusiveMinimum": 3})),
            json!({"minimum": 3.000_000_001})
        );
        assert_eq!(
            safe(json!({"exclusiveMinimum": 0, "minimum": 2})),
            json!({"minimum": 2.0})
        );
        assert_eq!(safe(json!({"exclusiveMaximum": 0})), json!({"maximum": -1e-9}));
        assert_eq!(
            safe(json!({"exclusiveMinimum": 1e15})),
            json!({"minimum": 1e15_f64.next_up()})
        );
        assert_eq!(
            safe(json!({"multipleOf": 7})),
            json!({"multipleOf": 7, "minimum": -EXACT, "maximum": EXACT})
        );
        assert_eq!(
            safe(json!({"multipleOf": 0.5, "maximum": 3})),
            json!({"multipleOf": 0.5, "maximum": 3, "minimum": -1e9})
        );
    }
}

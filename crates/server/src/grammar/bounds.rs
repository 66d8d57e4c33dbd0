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

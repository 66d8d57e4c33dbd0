//! Sums of intervals. Errors of one kernel are taken as correlated, errors of different kernels as independent.

use std::collections::BTreeMap;

use crate::predict::Interval;

/// A sum whose parts err together within a group and independently of other groups.
#[derive(Debug, Default)]
pub(crate) struct IntervalSum {
    groups: BTreeMap<String, Interval>,
}

impl IntervalSum {
    /// Adds a part: errors of one group are fully correlated, so their ends add up.
    pub(crate) fn add(&mut self, group: &str, part: Interval) {
        let zero = Interval {
            value: 0.0,
            low: 0.0,
            high: 0.0,
        };
        let sum = self.groups.entry(group.to_owned()).or_insert(zero);
        sum.value += part.value;
        sum.low += part.low;
        sum.high += part.high;
    }

    /// The sum. Distances of groups to their ends, upper and lower apart, add up as roots of squares.
    pub(crate) fn interval(&self) -> Interval {
        let groups = || self.groups.values();
        let value: f64 = groups().map(|group| group.value).sum();
        let below: f64 = groups().map(|group| (group.value - group.low).powi(2)).sum();
        let above: f64 = groups().map(|group| (group.high - group.value).powi(2)).sum();
        Interval {
            value,
            low: (value - below.sqrt()).max(0.0),
            high: value + above.sqrt(),
        }
    }
}

/// So many times the same, or a part of it.
pub(crate) fn scaled(one: Interval, factor: f64) -> Interval {
    Interval {
        value: one.value * factor,
        low: one.low * factor,
        high: one.high * factor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_kernel_add_up_and_those_of_two_do_not() {
        let part = |value: f64| Interval {
            value,
            low: value - 3.0,
            high: value + 4.0,
        };
        let mut sum = IntervalSum::default();
        sum.add("a", part(10.0));
        sum.add("a", part(20.0));
        let one = sum.interval();
        assert_eq!((one.value, one.low, one.high), (30.0, 24.0, 38.0));
        sum.add(
            "b",
            Interval {
                value: 5.0,
                low: 5.0 - 8.0,
                high: 5.0 + 6.0,
            },
        );
        let two = sum.interval();
        assert_eq!((two.value, two.low, two.high), (35.0, 25.0, 45.0));
    }
}

//! The quantities that are both measured and predicted, with their units.

use crate::data::Row;
use crate::predict::{Interval, Prediction};

/// A quantity that is measured and predicted.
pub(crate) struct Target {
    pub(crate) key: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) measured: fn(&Row) -> Option<f64>,
    pub(crate) predicted: fn(&Prediction) -> Option<Interval>,
}

pub(crate) const TARGETS: [Target; 5] = [
    Target {
        key: "runtime",
        name: "time",
        unit: "s",
        measured: |row| row.time_s,
        predicted: |p| Some(p.time_s),
    },
    Target {
        key: "power",
        name: "power",
        unit: "W",
        measured: |row| row.power_w,
        predicted: |p| p.power_w,
    },
    Target {
        key: "energy",
        name: "energy",
        unit: "J",
        measured: |row| row.energy_j,
        predicted: |p| p.energy_j,
    },
    Target {
        key: "throughput",
        name: "throughput",
        unit: "OPS",
        measured: |row| Some(row.ops() / row.time_s?),
        predicted: |p| Some(p.ops_per_s),
    },
    Target {
        key: "throughput_per_watt",
        name: "throughput a watt",
        unit: "OPS/W",
        measured: |row| Some(row.ops() / row.energy_j?),
        predicted: |p| p.ops_per_j,
    },
];

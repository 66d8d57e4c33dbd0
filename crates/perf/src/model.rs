//! A fitted model of one machine: a catalogue of configurations, and what products take in each.

use std::path::Path;

use crate::prediction::Interval;
use crate::work::{Work, check_machine};
use crate::{By, ConfigFacts, Dataset, Machine, Operands, PerfError, Prediction, Product, Query, Row};

/// A fitted model of one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    machine: Machine,
    /// Sorted by [`ConfigFacts::key`].
    catalogue: Vec<ConfigFacts>,
    efficiencies: Vec<Efficiency>,
}

/// Logarithms of measured over roofline time, and of power, in one configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Efficiency {
    time: f64,
    spread: f64,
    power: Option<(f64, f64)>,
}

impl Model {
    /// Reads a fitted file.
    ///
    /// # Errors
    /// A file that is missing or is not a model.
    pub fn read(path: &Path) -> Result<Self, PerfError> {
        std::fs::read(path).map_err(PerfError::io(path))?;
        Err(PerfError::Malformed {
            path: path.to_owned(),
            what: "not a fitted model".to_owned(),
        })
    }

    /// The model that comes with the program: `h200`, `xeon-amx`.
    ///
    /// # Errors
    /// There is none for the machine.
    pub fn shipped(machine: &str) -> Result<Self, PerfError> {
        Err(PerfError::NoModel {
            machine: machine.to_owned(),
            hint: "none comes with the program yet; measure with `profile`, then `fit`".to_owned(),
        })
    }

    /// Learns from measurements.
    ///
    /// # Errors
    /// Rows nothing can be learned from.
    pub fn fit(data: &Dataset) -> Result<Self, PerfError> {
        check_machine(&data.manifest.machine)?;
        let mut groups: Vec<(ConfigFacts, Vec<&Row>)> = Vec::new();
        for row in data.rows.iter().filter(|row| row.is_sound()) {
            let facts = ConfigFacts::of_row(row);
            match groups.binary_search_by(|(known, _)| known.key().cmp(&facts.key())) {
                Ok(at) => groups[at].1.push(row),
                Err(at) => groups.insert(at, (facts, vec![row])),
            }
        }
        if groups.is_empty() {
            return Err(PerfError::TooLittle {
                what: "sound rows".to_owned(),
                expected: "at least 1".to_owned(),
                got: format!("{} rows, none verified, timed and unmarked", data.rows.len()),
            });
        }
        let mut model = Self {
            machine: data.manifest.machine.clone(),
            catalogue: Vec::new(),
            efficiencies: Vec::new(),
        };
        for (mut facts, rows) in groups {
            facts.num_rows = rows.len();
            model
                .efficiencies
                .push(efficiency(&facts, &rows, &model.machine)?);
            model.catalogue.push(facts);
        }
        Ok(model)
    }

    /// The machine it was fitted to.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Kernels it knows, in alphabetical order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        let names = self.catalogue.iter().map(|facts| facts.kernel.as_str());
        let mut last = None;
        names.filter(move |&name| last.replace(name) != Some(name))
    }

    /// Configurations of a kernel, each in the group lengths and output types that were measured.
    pub fn configs(&self, kernel: &str) -> &[ConfigFacts] {
        let begin = self
            .catalogue
            .partition_point(|facts| facts.kernel.as_str() < kernel);
        let end = self
            .catalogue
            .partition_point(|facts| facts.kernel.as_str() <= kernel);
        &self.catalogue[begin..end]
    }

    /// What a product costs in one configuration.
    ///
    /// # Errors
    /// A product no machine runs, a kernel or configuration that was not measured.
    pub fn predict(&self, query: &Query<'_>) -> Result<Prediction, PerfError> {
        query.product.check()?;
        let (at, exact) = self.find(query)?;
        Ok(self.predict_at(at, exact, &query.product))
    }

    fn predict_at(&self, at: usize, exact: bool, product: &Product<'_>) -> Prediction {
        let (facts, efficiency) = (&self.catalogue[at], &self.efficiencies[at]);
        let operands = Operands::of_kernel(&facts.kernel).expect("checked in fitting");
        let work = Work::new(&operands, product, &facts.output, &self.machine);
        let time_s = Interval::around(work.roofline_s() * efficiency.time.exp(), efficiency.spread);
        let power_w = efficiency
            .power
            .map(|(power, spread)| Interval::around(power.exp(), spread));
        let energy_j = power_w.map(|power| Interval {
            value: power.value * time_s.value,
            low: power.low * time_s.low,
            high: power.high * time_s.high,
        });
        Prediction {
            time_s,
            power_w,
            energy_j,
            ops_per_s: time_s.rate(work.ops),
            ops_per_j: energy_j.map(|energy| energy.rate(work.ops)),
            extrapolated: !exact,
        }
    }

    /// The configuration that is best for a product, of one kernel (`gemm_w4a8_sm90`) or of all that multiply the same
    /// types (`w4a8`, `bf16`).
    ///
    /// # Errors
    /// A product no machine runs, a kernel that was not measured, energy asked for where none was measured.
    pub fn best(
        &self,
        kernel: &str,
        product: &Product<'_>,
        by: By,
    ) -> Result<(&ConfigFacts, Prediction), PerfError> {
        let ranked = self.ranked(kernel, product, by)?;
        Ok(ranked[0])
    }

    /// All configurations that can run a product, the best first.
    ///
    /// # Errors
    /// As [`Model::best`].
    pub fn ranked(
        &self,
        kernel: &str,
        product: &Product<'_>,
        by: By,
    ) -> Result<Vec<(&ConfigFacts, Prediction)>, PerfError> {
        product.check()?;
        let mut ranked = Vec::new();
        for (at, facts) in self.catalogue.iter().enumerate() {
            if !answers_to(&facts.kernel, kernel) {
                continue;
            }
            let same_output = product.output.is_empty() || facts.output == product.output;
            if facts.group_size == product.group_size && same_output {
                let prediction = self.predict_at(at, true, product);
                if let Some(cost) = prediction.cost(by) {
                    ranked.push((cost, facts, prediction));
                }
            }
        }
        ranked.sort_by(|(left, ..), (right, ..)| left.total_cmp(right));
        if ranked.is_empty() {
            return Err(self.unknown_kernel(kernel));
        }
        Ok(ranked
            .into_iter()
            .map(|(_, facts, prediction)| (facts, prediction))
            .collect())
    }

    /// The place in the catalogue, and whether it is exactly what was asked for.
    fn find(&self, query: &Query<'_>) -> Result<(usize, bool), PerfError> {
        let product = &query.product;
        let key = (query.kernel, query.config, product.group_size, product.output);
        if let Ok(at) = self.catalogue.binary_search_by(|facts| facts.key().cmp(&key)) {
            return Ok((at, true));
        }
        let alike = |facts: &&ConfigFacts| facts.config == query.config && facts.kernel == query.kernel;
        let nearest = self
            .catalogue
            .iter()
            .filter(alike)
            .max_by_key(|facts| (facts.group_size == product.group_size, facts.num_rows));
        let Some(nearest) = nearest else {
            return Err(match self.configs(query.kernel) {
                [] => self.unknown_kernel(query.kernel),
                _ => PerfError::UnknownConfig {
                    kernel: query.kernel.to_owned(),
                    got: query.config.to_owned(),
                    hint: "it was not measured".to_owned(),
                },
            });
        };
        let at = self
            .catalogue
            .partition_point(|facts| facts.key() < nearest.key());
        Ok((
            at,
            product.output.is_empty() && nearest.group_size == product.group_size,
        ))
    }

    fn unknown_kernel(&self, got: &str) -> PerfError {
        PerfError::UnknownKernel {
            got: got.to_owned(),
            hint: format!("measured were {}", self.kernels().collect::<Vec<_>>().join(", ")),
        }
    }
}

/// Whether a kernel is the one asked for, or multiplies the types asked for.
fn answers_to(kernel: &str, asked: &str) -> bool {
    kernel == asked || kernel.split('_').any(|part| part == asked)
}

fn efficiency(facts: &ConfigFacts, rows: &[&Row], machine: &Machine) -> Result<Efficiency, PerfError> {
    let operands = Operands::of_kernel(&facts.kernel)?;
    let ratio = |row: &&Row| {
        let work = Work::new(&operands, &Product::of_row(row), &facts.output, machine);
        Some((row.time_s? / work.roofline_s()).ln())
    };
    let times: Vec<f64> = rows.iter().filter_map(ratio).collect();
    let powers: Vec<f64> = rows.iter().filter_map(|row| Some(row.power_w?.ln())).collect();
    let (time, spread) = centre(times);
    Ok(Efficiency {
        time,
        spread,
        power: (!powers.is_empty()).then(|| centre(powers)),
    })
}

/// Median, and the distance that nine of ten keep from it.
fn centre(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let median = values[values.len() / 2];
    let mut distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    distances.sort_by(f64::total_cmp);
    (median, distances[(distances.len() - 1) * 9 / 10].max(0.02))
}

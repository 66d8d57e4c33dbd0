//! The learned choice as the GPU kernels take it: a cost function, the table they read at load, and the hand-written cost
//! function beside them.

use super::regret::{Regret, regrets_of};
use crate::data::{Dataset, Row};
use crate::error::PerfError;
use crate::learn::HeldOut;
use crate::machine::Machine;
use crate::predict::{By, Model, Prediction};
use crate::product::{Product, Query};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use dualgrain_cuda::{
    Analytic, Cost, GemmConfig, GemmProblem, GpuInfo, Output, SelectionTable, enumerate, enumerate_all,
};
use dualgrain_format::{GemmShape, GroupSize};

/// A model as a cost function of the kernels: seconds, joules or both. What the model cannot say is never chosen.
#[derive(Debug, Clone, Copy)]
pub struct Learned<'a> {
    /// The model.
    pub model: &'a Model,
    /// What is to be least.
    pub by: By,
}

impl Learned<'_> {
    /// What the model says of a configuration.
    pub fn prediction(&self, problem: &GemmProblem, config: &GemmConfig) -> Option<Prediction> {
        let GemmShape { m, n, k } = problem.shape;
        let product = Product {
            group_size: row_group_size(problem.group),
            output: output_name(problem.output),
            ..Product::new(m, n, k)
        };
        // The one allocation of choosing: a configuration's name.
        let name = config.to_string();
        let query = Query {
            kernel: config.variant.kernel(),
            config: &name,
            product,
        };
        self.model.predict(&query).ok()
    }
}

impl Cost for Learned<'_> {
    fn time_s(&self, problem: &GemmProblem, config: &GemmConfig, _: &GpuInfo) -> f64 {
        let cost = self
            .prediction(problem, config)
            .and_then(|prediction| prediction.cost(self.by));
        cost.unwrap_or(f64::INFINITY)
    }
}

/// As rows name it.
pub fn output_name(output: Output) -> &'static str {
    match output {
        Output::F32 => "f32",
        Output::F16 => "f16",
        Output::Bf16 => "bf16",
        Output::Sums => "i32",
    }
}

/// As rows write it: the length, or 0 for one group a row.
fn row_group_size(group: GroupSize) -> usize {
    match group {
        GroupSize::Along(len) => len,
        GroupSize::WholeRow => 0,
    }
}

/// The card a machine is.
pub fn device(machine: &Machine) -> GpuInfo {
    GpuInfo {
        index: 0,
        name: machine.name.clone(),
        capability: ((machine.capability / 10) as i32, (machine.capability % 10) as i32),
        num_sms: machine.num_units,
        clock_hz: machine.clock_hz,
        l2_bytes: machine.cache_bytes,
        shared_bytes: machine.shared_bytes,
        memory_bytes: machine.memory_bytes,
        // Reading reaches about nine tenths of it.
        memory_bytes_per_s: machine.read_bytes_per_s / 0.9,
    }
}

/// The problem and configuration of a row; `None` where the kernels have no such.
fn of_row(row: &Row, device: &GpuInfo) -> Option<(GemmProblem, GemmConfig)> {
    let problem = GemmProblem {
        shape: GemmShape {
            m: row.m,
            n: row.n,
            k: row.k,
        },
        group: GroupSize::ALL
            .into_iter()
            .find(|&group| row_group_size(group) == row.group_size)?,
        output: Output::ALL
            .into_iter()
            .find(|&output| output_name(output) == row.output)?,
    };
    let config = enumerate_all(&problem, device)
        .into_iter()
        .find(|config| config.variant.kernel() == row.kernel && config.to_string() == row.config)?;
    Some((problem, config))
}

/// What the hand-written cost function loses on the products that [`crate::select::regrets`] judges.
///
/// # Errors
/// No product was searched.
pub fn analytic_regrets(data: &Dataset, kernel: &str, by: By) -> Result<Vec<Regret>, PerfError> {
    let device = device(&data.manifest.machine);
    regrets_of(data, kernel, by, |_, row| {
        let (problem, config) = of_row(row, &device)?;
        Some(Analytic.time_s(&problem, &config, &device))
    })
}

/// What choosing by held-out predictions loses among the sizes that the kernels have: one that was measured and has been
/// taken out since can no longer be chosen.
///
/// # Errors
/// No product was searched.
pub fn learned_regrets(
    data: &Dataset,
    held: &[HeldOut],
    kernel: &str,
    by: By,
) -> Result<Vec<Regret>, PerfError> {
    let device = device(&data.manifest.machine);
    let predicted: BTreeMap<usize, &HeldOut> = held.iter().map(|held| (held.row_idx, held)).collect();
    regrets_of(data, kernel, by, |row_idx, row| {
        of_row(row, &device)?;
        predicted.get(&row_idx)?.prediction.cost(by)
    })
}

/// What a table's choice loses, where it was measured, on the products that [`crate::select::regrets`] judges; a product
/// whose choice was not measured is left out. The table was made of a model that has seen these products: this says what
/// its regions cost, not what choosing by prediction does.
///
/// # Errors
/// No product was searched.
pub fn table_regrets(data: &Dataset, table: &SelectionTable, by: By) -> Result<Vec<Regret>, PerfError> {
    let device = device(&data.manifest.machine);
    let key = |row: &Row, config: &str| {
        let sides = (row.m, row.n, row.k, row.group_size);
        (sides, row.output.clone(), config.to_owned())
    };
    let sound = data.rows.iter().filter(|row| row.is_sound());
    let measured: BTreeSet<_> = sound.map(|row| key(row, &row.config)).collect();
    regrets_of(data, "w4a8", by, |_, row| {
        let (problem, config) = of_row(row, &device)?;
        let chosen = table.choose(&problem, &device)?;
        let is_known = measured.contains(&key(row, &chosen.to_string()));
        is_known.then_some(if chosen == config { 0.0 } else { 1.0 })
    })
}

/// Centres of the table's regions. Those of tokens lie closer: they are rounded up, and where tiles end the best one changes.
const TOKENS: [usize; 53] = [
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224,
    256, 288, 320, 384, 448, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1536, 1792, 2048, 2304, 2560,
    3072, 3584, 4096, 5120, 6144, 7168, 8192,
];
const FEATURES: [usize; 25] = [
    256, 384, 512, 768, 1024, 1536, 2048, 2560, 3072, 4096, 5120, 6144, 8192, 10_240, 11_008, 12_288, 13_824,
    14_336, 16_384, 20_480, 22_016, 24_576, 28_672, 40_960, 57_344,
];

/// The configuration that was fastest for a product where all that came into question was timed on the card itself: it stands
/// before predictions, with groups of 128 and with one a row, whose tiles take the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownChoice {
    /// The product; a centre of the table in each side.
    pub shape: GemmShape,
    /// The configuration's name.
    pub config: String,
}

impl KnownChoice {
    fn check(&self) -> Result<(), PerfError> {
        let GemmShape { m, n, k } = self.shape;
        for (what, size, centres) in [
            ("M of a known choice", m, &TOKENS[..]),
            ("N of a known choice", n, &FEATURES),
            ("K of a known choice", k, &FEATURES),
        ] {
            if !centres.contains(&size) {
                return Err(PerfError::Shape {
                    what,
                    expected: format!("one of the table's sizes {centres:?}"),
                    got: size.to_string(),
                });
            }
        }
        Ok(())
    }

    fn is_for(&self, problem: &GemmProblem) -> bool {
        self.shape == problem.shape && matches!(problem.group, GroupSize::Along(128) | GroupSize::WholeRow)
    }
}

/// The text of a selection table: for every region and group length that was measured, the configuration predicted best, or
/// known to be.
///
/// # Errors
/// A model of a machine that is no card, or without W4A8 kernels; known choices between the table's sizes.
pub fn table(model: &Model, by: By, output: Output, known: &[KnownChoice]) -> Result<String, PerfError> {
    known.iter().try_for_each(KnownChoice::check)?;
    let machine = model.machine();
    let device = device(machine);
    let groups = GroupSize::ALL
        .into_iter()
        .filter(|&group| measured(model, row_group_size(group), output_name(output)));
    let groups: Vec<GroupSize> = groups.collect();
    if groups.is_empty() {
        return Err(PerfError::UnknownConfig {
            kernel: "w4a8".to_owned(),
            got: format!("with output {}", output_name(output)),
            hint: format!("the model of {} has none that could be chosen", machine.name),
        });
    }
    let mut numbers = Numbers::default();
    let mut cells = String::new();
    for group in groups {
        for (m, n) in TOKENS.into_iter().flat_map(|m| FEATURES.map(|n| (m, n))) {
            let _ = write!(cells, "cell {} {m} {n}", SelectionTable::group_number(group));
            for k in FEATURES {
                let shape = GemmShape { m, n, k };
                let problem = GemmProblem { shape, group, output };
                let name = match known.iter().find(|choice| choice.is_for(&problem)) {
                    Some(choice) => choice.config.clone(),
                    None => best(model, by, &problem, &device),
                };
                let _ = write!(cells, " {}", numbers.of(name));
            }
            cells.push('\n');
        }
    }
    let list = |sizes: &[usize]| sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    let configs: String = numbers
        .names
        .iter()
        .map(|name| format!("config {name}\n"))
        .collect();
    Ok(format!(
        "dualgrain-selection 1\ncard {} {}\nm {}\nn {}\nk {}\n{configs}{cells}",
        machine.num_units,
        machine.name,
        list(&TOKENS),
        list(&FEATURES),
        list(&FEATURES)
    ))
}

/// Configurations by number, in the order they come up.
#[derive(Default)]
struct Numbers {
    names: Vec<String>,
}

impl Numbers {
    fn of(&mut self, name: String) -> usize {
        let known = self.names.iter().position(|known| *known == name);
        known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        })
    }
}

fn measured(model: &Model, group_size: usize, output: &str) -> bool {
    let kernels = model.kernels().filter(|kernel| kernel.contains("w4a8"));
    let mut configs = kernels.flat_map(|kernel| model.configs(kernel));
    configs.any(|facts| facts.group_size == group_size && facts.output == output)
}

/// Among what is worth a thought, so that a wild prediction cannot put a tile of 256 tokens on one; what the model was not
/// fitted on comes last.
fn best(model: &Model, by: By, problem: &GemmProblem, device: &GpuInfo) -> String {
    let learned = Learned { model, by };
    let costs = enumerate(problem, device).into_iter().filter_map(|config| {
        let prediction = learned.prediction(problem, &config)?;
        Some((prediction.extrapolated, prediction.cost(by)?, config))
    });
    let best = costs.min_by(|left, right| left.0.cmp(&right.0).then(left.1.total_cmp(&right.1)));
    match best {
        Some((_, _, config)) => config.to_string(),
        // Nothing of this group was measured in what can run: the formula decides.
        None => dualgrain_cuda::choose(problem, device, &Analytic)
            .map_or(String::new(), |config| config.to_string()),
    }
}

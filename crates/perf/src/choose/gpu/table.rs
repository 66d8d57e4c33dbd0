//! Writes the selection table: for every region of sizes the configuration that is predicted best, or known to be.

use std::fmt::Write as _;

use dualgrain_cuda::{Analytic, GemmProblem, GpuInfo, Output, SelectionTable, enumerate};
use dualgrain_format::{GemmShape, GroupSize};

use super::cost::{PredictedCost, device, output_name};
use crate::error::PerfError;
use crate::predict::{Model, Objective};

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

/// The text of a selection table: for every region and group size that was measured, the configuration predicted best, or
/// known to be.
///
/// # Errors
/// A model of a machine that is no card, or without W4A8 kernels; known choices between the table's sizes.
pub fn table(
    model: &Model,
    by: Objective,
    output: Output,
    known: &[KnownChoice],
) -> Result<String, PerfError> {
    known.iter().try_for_each(KnownChoice::check)?;
    let machine = model.machine();
    let device = device(machine);
    let mut numbers = ConfigNumbers::default();
    let mut cells = String::new();
    for group in measured_groups(model, output)? {
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
struct ConfigNumbers {
    names: Vec<String>,
}

impl ConfigNumbers {
    fn of(&mut self, name: String) -> usize {
        let known = self.names.iter().position(|known| *known == name);
        known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        })
    }
}

/// The group sizes that W4A8 kernels with an output were measured in.
fn measured_groups(model: &Model, output: Output) -> Result<Vec<GroupSize>, PerfError> {
    let output = output_name(output);
    let is_measured = |group_size: GroupSize| {
        let kernels = model.kernels().filter(|kernel| kernel.contains("w4a8"));
        let mut configs = kernels.flat_map(|kernel| model.configs(kernel));
        configs.any(|facts| facts.group_size == group_size && facts.output == output)
    };
    let groups: Vec<GroupSize> = GroupSize::ALL
        .into_iter()
        .filter(|&size| is_measured(size))
        .collect();
    match groups.is_empty() {
        false => Ok(groups),
        true => Err(PerfError::UnknownConfig {
            kernel: "w4a8".to_owned(),
            got: format!("with output {output}"),
            hint: format!(
                "the model of {} has none that could be chosen",
                model.machine().name
            ),
        }),
    }
}

/// Among what is worth a thought, so that a wild prediction cannot put a tile of 256 tokens on one; what the model was not
/// fitted on comes last.
fn best(model: &Model, by: Objective, problem: &GemmProblem, device: &GpuInfo) -> String {
    let learned = PredictedCost { model, by };
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

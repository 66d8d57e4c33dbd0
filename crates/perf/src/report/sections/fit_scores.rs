//! The scores that are kept with the fitted model, for both splits.

use crate::predict::FitSummary;
use crate::report::plot::{note, quantity, table};
use crate::report::section::{NO_MODEL, Section};
use crate::report::targets::TARGETS;

/// The table of both splits, as it is kept with the model.
pub(crate) fn fitted(fit: Option<&FitSummary>) -> Section {
    Section {
        anchor: "scores",
        heading: "How good the fitted model is",
        explanation: "Unseen shapes: judged on rows of shapes of which it had seen none. Random rows, the paper's protocol: judged on rows whose neighbours \
                      it had seen, which flatters."
            .to_owned(),
        body: fit.map(scores_table).ok_or_else(|| NO_MODEL.to_owned()),
    }
}

fn scores_table(fit: &FitSummary) -> String {
    let mut rows = Vec::new();
    for (split, name) in [("shape", "unseen shapes"), ("random", "random rows")] {
        for target in &TARGETS {
            let score = fit.scores.get(split).and_then(|scores| scores.get(target.key));
            let Some(score) = score else { continue };
            let squared = format!("{:.3e} {}²", score.mse, target.unit.replace('/', "²/"));
            rows.push(vec![
                format!("{}, {name}", target.name),
                format!("{:.4}", score.r2),
                format!("{:.4}", score.r2_log),
                squared,
                quantity(score.mae, target.unit),
                format!("{:.2} %", score.mean_percent_error),
                format!("{:.2} %", score.median_percent_error),
                score
                    .coverage
                    .map_or("-".to_owned(), |coverage| format!("{:.1} %", 100.0 * coverage)),
            ]);
        }
    }
    let header = [
        "target",
        "R²",
        "R² of logarithms",
        "mean squared error",
        "mean absolute error",
        "mean error",
        "median error",
        "inside 90 % interval",
    ];
    let learned = format!(
        "{} rows ({} with power) of {} shapes, learned by {}, seed {}.",
        fit.num_rows, fit.num_power_rows, fit.num_shapes, fit.learner, fit.seed
    );
    note(&learned) + &table(&header, &rows)
}

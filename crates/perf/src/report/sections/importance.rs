//! The features that matter most to the fitted model.

use crate::predict::{FitSummary, Importance};
use crate::report::plot::{Bar, Series, bars, figure, side_by_side};
use crate::report::section::{NO_MODEL, Section};

/// Features of a target that are shown.
const SHOWN: usize = 10;

/// Two pictures a target: what splits gained, and what is lost when a feature's values are swapped.
pub(crate) fn section(fit: Option<&FitSummary>) -> Section {
    let targets = fit.iter().flat_map(|fit| &fit.importances);
    let pictures: Vec<_> = targets
        .flat_map(|(target, features)| {
            [
                picture(&format!("{target}: share of the gain"), 0, features, |f| f.gain),
                picture(&format!("{target}: error added when swapped"), 2, features, |f| {
                    f.permutation
                }),
            ]
        })
        .flatten()
        .collect();
    Section {
        anchor: "importances",
        heading: "What the model leans on",
        explanation: format!(
            "The {SHOWN} features that matter most. Gain: share of the squared error that splits on a feature took away while fitting. Swapped: how much the mean \
             error on unseen shapes grows when the feature's values change places between rows. Features that go together share their importance."
        ),
        body: match pictures.is_empty() {
            false => Ok(side_by_side(&pictures)),
            true => Err(NO_MODEL.to_owned()),
        },
    }
}

fn picture(
    caption: &str,
    series: usize,
    features: &[Importance],
    of: fn(&Importance) -> f64,
) -> Option<String> {
    let mut features: Vec<&Importance> = features.iter().filter(|feature| of(feature) > 0.0).collect();
    features.sort_by(|a, b| of(b).total_cmp(&of(a)));
    let shown: Vec<Bar> = features
        .iter()
        .take(SHOWN)
        .map(|feature| Bar {
            name: feature.feature.replace('_', " "),
            value: 100.0 * of(feature),
            interval: None,
            title: format!(
                "{}: {:.2} % of the gain, {:.2} % more error when swapped",
                feature.feature,
                100.0 * feature.gain,
                100.0 * feature.permutation
            ),
        })
        .collect();
    (!shown.is_empty()).then(|| figure(caption, "", &bars(caption, Series(series), "%", &shown)))
}

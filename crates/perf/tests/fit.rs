//! Fitting, predicting, and the file: on rows of a machine that is a formula.

mod synthetic;

use std::sync::atomic::AtomicUsize;

use dualgrain_perf::{FitOptions, Model, held_out, score};
use synthetic::set;

#[test]
fn unseen_shapes_are_predicted_well_and_intervals_hold_what_they_promise() {
    let model = Model::fit(&set(250)).unwrap();
    let honest = &model.fit_summary().scores["shape"];
    println!("{honest:#?}");
    assert!(honest["runtime"].r2_log > 0.99 && honest["runtime"].mean_percent_error < 6.0);
    assert!(honest["power"].r2 > 0.9 && honest["energy"].mean_percent_error < 8.0);
    for target in ["runtime", "power", "energy", "throughput"] {
        let coverage = honest[target].coverage.unwrap();
        assert!((0.86..=0.94).contains(&coverage), "{target}: {coverage}");
    }
    let held = held_out(&set(250), &Default::default(), &Default::default()).unwrap();
    let data = set(250);
    let again = score(
        held.iter()
            .map(|held| (&data.rows[held.row_idx], &held.prediction)),
    );
    assert_eq!(&again, honest, "one honest split, whoever asks");
}

#[test]
fn every_row_is_judged_once_into_however_many_parts_its_shapes_are_dealt() {
    let data = set(12);
    for folds in [0, 2, 5, 1000] {
        let options = FitOptions {
            folds,
            ..FitOptions::default()
        };
        let done = AtomicUsize::new(0);
        let held = held_out(&data, &options, &done).unwrap();
        let rows: Vec<usize> = held.iter().map(|held| held.row_idx).collect();
        assert_eq!(rows, (0..data.rows.len()).collect::<Vec<_>>());
        // At most half as many parts as shapes, and two at least.
        assert_eq!(done.into_inner(), folds.clamp(2, 6));
    }
}

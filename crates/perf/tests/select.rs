//! Choosing by prediction on the made-up machine: what it loses on unseen products, and what it shows.

mod synthetic;

use dualgrain_format::GroupSize;
use std::sync::atomic::AtomicUsize;

use dualgrain_perf::cost::{Prices, Scheme};
use dualgrain_perf::{FitOptions, Model, Objective, Product, choose, held_out};
use synthetic::set;

#[test]
fn choosing_by_prediction_loses_little_on_unseen_products() {
    let data = set(250);
    let held = held_out(&data, &FitOptions::default(), &AtomicUsize::new(0)).unwrap();
    let regrets = choose::regrets(&data, &held, "w4a8", Objective::Time).unwrap();
    let learned = choose::summary(&regrets).unwrap();
    println!("{learned:?}");
    assert_eq!(learned.shapes, 250);
    assert!(
        learned.mean_regret < 0.02 && learned.worst_regret < 0.25,
        "{learned:?}"
    );
    // Always the same tile is far worse: there is something to choose.
    let fixed = choose::regrets_of(&data, "w4a8", Objective::Time, |_, row| {
        Some(if row.config == "m64n128_k2" { 0.0 } else { 1.0 })
    });
    let fixed = choose::summary(&fixed.unwrap()).unwrap();
    assert!(fixed.mean_regret > 10.0 * learned.mean_regret, "{fixed:?}");
    assert!(
        regrets
            .iter()
            .all(|regret| regret.regret >= 0.0 && regret.candidates == 8)
    );
}

#[test]
fn outputs_are_the_usual_ones_unless_asked_for_and_linears_of_a_card_write_bf16() {
    let mut data = set(120);
    for (index, row) in data.rows.iter_mut().enumerate() {
        if index % 5 > 1 {
            row.output = "f32".to_owned();
        }
    }
    let model = Model::fit(&data).unwrap();
    let product = Product::new(100, 4096, 8192);
    let bf16 = Product {
        output: "bf16",
        ..product
    };
    let ranked = model.ranked("w4a8", &product, Objective::Time).unwrap();
    assert!(ranked.len() == synthetic::TILES.len() && ranked.iter().all(|(facts, _)| facts.output == "f32"));
    let config = &ranked[0].0.config;
    assert_eq!(model.in_config("w4a8", config, &product).unwrap(), ranked[..1]);
    let (_, best) = model.best("w4a8", &bf16, Objective::Time).unwrap();
    assert_ne!(best, ranked[0].1);
    let mut prices = Prices::of_model(&model, GroupSize::Along(128), Objective::Time, None).unwrap();
    assert_eq!(
        prices.of(Scheme::W4a8, [100, 4096, 8192]).unwrap().prediction,
        best
    );
}

#[test]
fn pareto_view_holds_the_fastest_and_the_leanest_and_nothing_that_another_beats() {
    let model = Model::fit(&set(120)).unwrap();
    for m in [1, 30, 300, 3000] {
        let product = Product::new(m, 4096, 4096);
        let ranked = model.ranked("w4a8", &product, Objective::Time).unwrap();
        let front = choose::pareto(&ranked);
        let energy = |p: &dualgrain_perf::Prediction| p.energy_j.unwrap().value;
        assert_eq!(front[0].0, ranked[0].0);
        let leanest = ranked
            .iter()
            .map(|(_, p)| energy(p))
            .fold(f64::INFINITY, f64::min);
        assert!(front.iter().any(|(_, p)| energy(p) == leanest));
        for (_, one) in &front {
            let beaten = |other: &dualgrain_perf::Prediction| {
                other.time_s.value < one.time_s.value && energy(other) < energy(one)
            };
            assert!(!ranked.iter().any(|(_, other)| beaten(other)));
        }
    }
}

//! The model file against damage, and queries against nonsense: an error in words each time, never a panic, never a silent
//! number.

mod synthetic;

use dualgrain_format::GroupSize;
use std::path::Path;
use std::sync::OnceLock;

use dualgrain_device::cases::Random;
use dualgrain_perf::{Dataset, K_MAX, KernelCall, Model, Objective, PerfError, Product};
use dualgrain_testing::damage;
use synthetic::{Noise, set};

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::fit(&set(60)).unwrap())
}

fn bytes() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.dgm");
    model().write(&path).unwrap();
    std::fs::read(&path).unwrap()
}

fn read(bytes: &[u8]) -> Result<Model, PerfError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.dgm");
    std::fs::write(&path, bytes).unwrap();
    Model::read(&path)
}

fn query<'a>(kernel: &'a str, config: &'a str, (m, n, k): (usize, usize, usize)) -> KernelCall<'a> {
    KernelCall {
        kernel,
        config,
        product: Product::new(m, n, k),
    }
}

#[test]
fn what_is_written_is_read_back_to_the_bit_and_fitting_repeats_itself() {
    assert!(&read(&bytes()).unwrap() == model(), "read back");
    let threads = dualgrain_perf::FitOptions {
        threads: 3,
        ..Default::default()
    };
    assert!(
        &Model::fit_with(&set(60), &threads).unwrap() == model(),
        "fitted by three threads"
    );
}

/// 40 rows with power are enough to learn it from, but not the 32 that a fold leaves: it has no interval.
#[test]
fn model_whose_folds_have_too_little_power_is_read_back_without_power() {
    let few = Model::fit(&set(15)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("few.dgm");
    few.write(&path).unwrap();
    let read = Model::read(&path).unwrap();
    assert!(read == few, "read back");
    let (_, best) = read
        .best("w4a8", &Product::new(64, 4096, 4096), Objective::Time)
        .unwrap();
    assert!(best.power_w.is_none() && best.energy_j.is_none());
}

#[test]
fn damaged_files_are_refused_wherever_the_damage_is() {
    let whole = bytes();
    let random = &mut Random(5);
    for _ in 0..500 {
        let damaged = damage(random, &whole);
        if damaged != whole {
            let error = read(&damaged).unwrap_err().to_string();
            assert!(error.contains("model.dgm"), "{error}");
        }
    }
    for _ in 0..100 {
        let mut flipped = whole.clone();
        flipped[random.below(whole.len())] ^= 1 << random.below(8);
        assert!(read(&flipped).is_err(), "a single bit");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(read(&longer).is_err());
    let mut other = whole;
    other[8] += 1;
    let error = read(&other).unwrap_err().to_string();
    assert!(
        error.contains("version 3") && error.contains("fit again"),
        "{error}"
    );
    let error = Model::read(Path::new("/nowhere/model.dgm"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nowhere/model.dgm"), "{error}");
}

#[test]
fn misspelt_kernels_and_configurations_are_asked_back() {
    let error = model()
        .predict(&query("gemm_w4a8_fromula", "m16n64_k1", (1, 64, 64)))
        .unwrap_err();
    assert!(
        error.to_string().contains("did you mean gemm_w4a8_formula?"),
        "{error}"
    );
    let error = model()
        .predict(&query("gemm_w4a8_formula", "m16n64_k3", (1, 64, 64)))
        .unwrap_err();
    assert!(error.to_string().contains("did you mean m16n64_k1?"), "{error}");
    let error = model()
        .best("w3a8", &Product::new(1, 64, 64), Objective::Time)
        .unwrap_err();
    assert!(error.to_string().contains("gemm_w4a8_formula"), "{error}");
    let error = Model::shipped("h20O").unwrap_err().to_string();
    assert!(error.contains("h20O"), "{error}");
}

#[test]
fn shapes_of_zero_and_beyond_all_are_refused_and_those_never_measured_are_marked() {
    for sides in [
        (0, 64, 64),
        (1, 0, 64),
        (1, 64, 0),
        (usize::MAX, 64, 64),
        (1, 1 << 40, 1),
        (1, 64, K_MAX + 1),
    ] {
        let error = model()
            .predict(&query("gemm_w4a8_formula", "m16n64_k1", sides))
            .unwrap_err();
        assert!(error.to_string().contains("expected"), "{error}");
    }
    let ask = |sides| {
        model()
            .predict(&query("gemm_w4a8_formula", "m16n64_k1", sides))
            .unwrap()
    };
    assert!(!ask((64, 4096, 4096)).extrapolated);
    assert!(ask((64, 4096, K_MAX)).extrapolated);
    assert!(ask((2_000_000, 4096, 4096)).extrapolated);
    let product = Product {
        group_size: GroupSize::Along(32),
        ..Product::new(64, 4096, 4096)
    };
    let other_group = KernelCall {
        product,
        ..query("gemm_w4a8_formula", "m16n64_k1", (64, 4096, 4096))
    };
    assert!(model().predict(&other_group).unwrap().extrapolated);
}

#[test]
fn predictions_are_finite_and_inside_their_intervals_on_hostile_shapes() {
    let mut noise = Noise(9);
    let long = 0x7fff_0000;
    let mut sides = vec![
        (1, 1, 1),
        (long, long, K_MAX),
        (1, long, 1),
        (long, 1, 1),
        (3, 1_000_003, 17),
    ];
    let longest = K_MAX as f64;
    sides.extend((0..500).map(|_| {
        (
            noise.size(1.0, 2e9),
            noise.size(1.0, 2e9),
            noise.size(1.0, longest),
        )
    }));
    // Half of the sizes above are beyond any memory; these are not.
    sides.extend((0..500).map(|_| (noise.size(1.0, 6e4), noise.size(1.0, 6e4), noise.size(1.0, 6e4))));
    let memory_bytes = model().machine().memory_bytes as f64;
    let mut num_predicted = 0;
    for sides in sides {
        for facts in model().configs("gemm_w4a8_formula") {
            let p = match model().predict(&query(&facts.kernel, &facts.config, sides)) {
                Ok(prediction) => prediction,
                Err(error) => {
                    let [m, n, k] = [sides.0, sides.1, sides.2].map(|side| side as f64);
                    assert!(4.0 * (m * n + n * k + m * k) > memory_bytes, "{sides:?}: {error}");
                    assert!(error.to_string().contains("memory"), "{sides:?}: {error}");
                    continue;
                }
            };
            num_predicted += 1;
            for interval in [
                Some(p.time_s),
                p.power_w,
                p.energy_j,
                Some(p.ops_per_s),
                p.ops_per_j,
            ]
            .into_iter()
            .flatten()
            {
                let ordered =
                    0.0 < interval.low && interval.low <= interval.value && interval.value <= interval.high;
                assert!(
                    ordered && interval.high.is_finite(),
                    "{sides:?} {}: {p:?}",
                    facts.config
                );
            }
        }
    }
    assert!(num_predicted > 500 * synthetic::TILES.len(), "{num_predicted}");
}

#[test]
fn the_best_is_the_first_of_the_ranked_and_no_other_is_cheaper() {
    for by in [Objective::Time, Objective::Energy, Objective::Edp] {
        let product = Product::new(100, 4096, 8192);
        let ranked = model().ranked("w4a8", &product, by).unwrap();
        let (facts, best) = model().best("w4a8", &product, by).unwrap();
        assert_eq!((facts, best), ranked[0]);
        assert!(ranked.iter().all(|(_, other)| other.cost(by) >= best.cost(by)));
        assert_eq!(ranked.len(), synthetic::TILES.len());
    }
}

#[test]
fn sets_nothing_can_be_learned_from_are_refused_with_what_they_lack() {
    let refused = |data: Dataset| Model::fit(&data).unwrap_err().to_string();
    let few = set(5);
    let error = refused(few.clone());
    assert!(
        error.contains("rows to learn from: 40") && error.contains("at least 50"),
        "{error}"
    );
    let error = refused(set(7));
    assert!(error.contains("distinct shapes"), "{error}");
    let mut wrong = set(60);
    wrong
        .rows
        .iter_mut()
        .for_each(|row| row.flag = Some(dualgrain_perf::QualityFlag::Wrong));
    assert!(refused(wrong).contains("rows to learn from: 0"));
    let mut unknown = set(60);
    unknown.rows[3].kernel = "gemm_ternary".to_owned();
    assert!(refused(unknown).contains("gemm_ternary"));
    let mut idle = set(60);
    idle.manifest.machine.read_bytes_per_s = 0.0;
    assert!(refused(idle).contains("read_bytes_per_s"));
    let mut zero = set(60);
    zero.rows[3].k = 0;
    assert!(refused(zero).contains("K is 0"));
}

#[test]
fn shipped_models_are_whole_and_answer() {
    for machine in Model::shipped_machines() {
        let model = Model::shipped(machine).unwrap();
        let best = model.best(
            "w4a8",
            &Product {
                output: "",
                ..Product::new(16, 4096, 4096)
            },
            Objective::Time,
        );
        let (facts, prediction) = best.unwrap();
        assert!(!prediction.extrapolated, "{machine}: {}", facts.config);
        assert!(
            (1e-7..1e-1).contains(&prediction.time_s.value),
            "{machine}: {prediction:?}"
        );
    }
}

//! Whole models on the naive device and on the CPU, bit for bit: the seam between engine and device holds.

mod constrained;
mod four_bits;
mod golden;
mod sampled;
mod toy;

use std::path::Path;
use std::sync::Arc;

use dualgrain_cpu::{CpuDevice, Isa};
use dualgrain_device::naive::NaiveDevice;
use dualgrain_device::{CacheFormat, Device};
use dualgrain_engine::{LoadOptions, Model, Session, SessionLimits};
use golden::{FAMILIES, family, logits, read_golden};

const CACHES: [CacheFormat; 3] = [CacheFormat::F32, CacheFormat::F16, CacheFormat::Int8];

/// Logits after every token of `ids`: a prompt in two steps, then token by token.
fn all_logits<D: Device>(device: D, dir: &Path, cache: &CacheFormat, ids: &[u32]) -> Vec<f32> {
    let options = LoadOptions {
        cache: Some(cache.clone()),
        ..LoadOptions::default()
    };
    let model = Arc::new(Model::load(Arc::new(device), dir, &options).unwrap());
    let mut session = golden::session(&model, 1);
    let (prompt, rest) = ids.split_at(ids.len() - 3);
    let steps = prompt.chunks(prompt.len().div_ceil(2)).chain(rest.chunks(1));
    let of_step = steps.map(|step| {
        session.run(&[(0, step)]).unwrap();
        logits(&mut session, &(0..step.len() as u32).collect::<Vec<_>>())
    });
    of_step.collect::<Vec<_>>().concat()
}

/// Compares logits of `dir` on every instruction set with those of the naive device.
fn assert_same_bits(case: &str, dir: &Path, caches: &[CacheFormat]) {
    let ids = read_golden(&family(case)).ids;
    for cache in caches {
        let expected = all_logits(NaiveDevice::new(), dir, cache, &ids);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let device = CpuDevice::with_isa(2, isa).unwrap();
            let got = all_logits(device, dir, cache, &ids);
            let same = got.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(
                same && got.len() == expected.len(),
                "{case}, {cache:?}, {}",
                isa.name()
            );
        }
    }
}

#[test]
fn every_family_gives_the_same_bits_on_the_naive_device_and_on_every_instruction_set() {
    for case in FAMILIES {
        assert_same_bits(case, &family(case), &CACHES);
    }
}

#[test]
fn four_bit_weights_give_the_same_bits_on_the_naive_device_and_on_every_instruction_set() {
    for case in four_bits::CASES {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("model");
        four_bits::quantize(case, &dir, four_bits::PLAIN);
        assert_same_bits(case, &dir, &[CacheFormat::Int8]);
    }
}
#[test]
fn a_transform_before_the_last_linear_gives_the_same_bits_on_every_device() {
    for case in ["llama2", "opt"] {
        let (dir, ids) = (family(case), read_golden(&family(case)).ids);
        let mut config = golden::read_config(&dir.join("config.json"));
        config.hadamard_down = Some(8);
        let naive = golden::load_on(Arc::new(NaiveDevice::new()), &dir, config.clone());
        let expected = golden::prefill(&naive, &ids);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let device = Arc::new(CpuDevice::with_isa(2, isa).unwrap());
            let model = golden::load_on(device, &dir, config.clone());
            assert_eq!(golden::prefill(&model, &ids), expected, "{case}, {}", isa.name());
        }
        config.hadamard_down = None;
        let plain = golden::load(&dir, config);
        assert_ne!(golden::prefill(&plain, &ids), expected, "{case}");
    }
}

#[test]
fn sampled_tokens_and_log_probabilities_are_those_of_the_naive_device() {
    let expected = sampled::events(Arc::new(NaiveDevice::new()));
    // Two of the five are constrained, and complete after 20 tokens.
    assert_eq!(expected.len(), 3 * 31 + 2 * 21);
    assert_eq!(sampled::events(Arc::new(CpuDevice::new(2).unwrap())), expected);
    assert_eq!(
        sampled::events(Arc::new(NaiveDevice::working_ahead())),
        expected,
        "a device that works ahead"
    );
}

#[test]
fn a_failing_device_names_the_operation_and_can_go_on() {
    let device = Arc::new(NaiveDevice::new());
    let mut session = Session::new(toy::model(Arc::clone(&device)), SessionLimits::new(2, 120, 20)).unwrap();
    session.run(&[(0, &[1, 2, 3])]).unwrap();
    let mut operations = 0;
    loop {
        device.fail_after(operations);
        let Err(error) = session.run(&[(0, &[4]), (1, &[5, 6])]) else {
            break;
        };
        let text = error.to_string();
        assert!(
            text.contains("failed on the naive device: it was told to fail here"),
            "{text}"
        );
        assert_eq!((session.len(0), session.len(1)), (3, 0), "{text}");
        operations += 1;
    }
    assert!(operations > 20, "{operations} operations in a step");
    assert_eq!((session.len(0), session.len(1)), (4, 2));
}

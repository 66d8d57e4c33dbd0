//! Dual-grained folders of every family: what is written split is loaded joined, and runs close to its float twin.

mod four_bits;
mod golden;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dualgrain_cpu::CpuDevice;
use dualgrain_device::CacheFormat;
use dualgrain_engine::{BlockSpec, LoadOptions, Model, ModelConfig, Session, SessionLimits, Weights};
use dualgrain_engine::{load_linear, load_linear_float};
use dualgrain_format::{CacheScheme, FloatValues, LinearScheme, LinearWeights};
use four_bits::{CASES, PLAIN, Recipe, quantize, round_to_nearest};
use golden::{family, in_steps, load, prefill, read_config, read_golden};

fn normalized_error(logits: &[f32], reference: &[f32]) -> f32 {
    let error: f32 = logits.iter().zip(reference).map(|(a, b)| (a - b).powi(2)).sum();
    error / reference.iter().map(|b| b * b).sum::<f32>()
}

#[test]
fn what_is_written_split_is_loaded_joined() {
    for case in CASES {
        let tmp = tempfile::tempdir().unwrap();
        let target = tmp.path().join("model");
        quantize(case, &target, PLAIN);
        let (original, written) = (
            Weights::open(&family(case)).unwrap(),
            Weights::open(&target).unwrap(),
        );
        let config = ModelConfig::load(&target).unwrap();
        for layer in 0..config.num_layers {
            let spec = BlockSpec::new(&config, layer);
            for linear in spec.linears.values() {
                let float = load_linear_float(&original, linear).unwrap();
                let loaded = load_linear(&written, linear, config.quantization.as_ref()).unwrap();
                let expected = LinearWeights::W4(round_to_nearest(&float.weights, None));
                assert!(loaded.weights == expected, "{case} {}", linear.id);
                assert_eq!(loaded.members, float.members);
            }
        }
    }
}

#[test]
fn both_ways_of_loading_a_float_linear_agree() {
    for case in CASES {
        let weights = Weights::open(&family(case)).unwrap();
        let spec = BlockSpec::new(&read_config(&family(case).join("config.json")), 1);
        for linear in spec.linears.values() {
            let id = linear.id;
            let (kept, wide) = (
                load_linear(&weights, linear, None).unwrap(),
                load_linear_float(&weights, linear).unwrap(),
            );
            let (LinearWeights::Float(kept), LinearWeights::Float(wide)) = (kept.weights, wide.weights)
            else {
                panic!("{case} {id} is not float");
            };
            assert!(
                matches!(kept.weight(), FloatValues::Bf16(_)),
                "{case} {id} lost its type"
            );
            assert_eq!(kept.weight().to_f32(), wide.weight().to_f32(), "{case} {id}");
            assert_eq!(kept.bias(), wide.bias(), "{case} {id}");
        }
    }
}

#[test]
fn integer_models_run_close_to_their_float_twins() {
    for case in CASES {
        let tmp = tempfile::tempdir().unwrap();
        let (integer, float) = (tmp.path().join("integer"), tmp.path().join("float"));
        quantize(case, &integer, PLAIN);
        quantize(
            case,
            &float,
            Recipe {
                dequantized: true,
                ..PLAIN
            },
        );
        let ids = read_golden(&family(case)).ids;
        let integer = prefill(&load(&integer, ModelConfig::load(&integer).unwrap()), &ids);
        let float = prefill(&load(&float, ModelConfig::load(&float).unwrap()), &ids);
        let error = normalized_error(&integer, &float);
        println!("{case}: normalized error of INT8 activations and an f16 cache {error:e}");
        assert!(error > 0.0 && error < ACTIVATION_ERROR, "{case}: {error}");
    }
}

/// Rounding a normal row at steps of absmax / 127, absmax about three deviations, costs (3/127)^2 / 12 = 5e-5 of its
/// energy. Nine linears lie one behind the other; attention far from flat and gated products multiply that by up to ten.
const ACTIVATION_ERROR: f32 = 5e-3;

#[test]
fn the_size_of_steps_changes_no_bit_of_an_integer_model() {
    for (case, cache) in [
        ("qwen3", CacheScheme::Int8),
        ("bloom", CacheScheme::Int8Static),
        ("opt", CacheScheme::F16),
    ] {
        let tmp = tempfile::tempdir().unwrap();
        let target = tmp.path().join("model");
        quantize(case, &target, Recipe { cache, ..PLAIN });
        let model = load(&target, ModelConfig::load(&target).unwrap());
        let ids = read_golden(&family(case)).ids;
        let whole = prefill(&model, &ids);
        for step_tokens in [1, 7, 33] {
            assert_eq!(
                in_steps(&model, &ids, step_tokens),
                whole,
                "{case}, steps of {step_tokens}"
            );
        }
    }
}

#[test]
fn the_cache_format_is_the_folders_unless_the_caller_chooses() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    quantize(
        "llama-bias",
        &target,
        Recipe {
            cache: CacheScheme::Int8Static,
            ..PLAIN
        },
    );
    let load = |cache| {
        let device = Arc::new(CpuDevice::new(1).unwrap());
        let model = Model::load(
            device,
            &target,
            &LoadOptions {
                cache,
                ..LoadOptions::default()
            },
        )
        .unwrap();
        model.cache_format().clone()
    };
    assert!(matches!(load(None), CacheFormat::Int8Static { key_scales, .. } if key_scales == [0.1; 2]));
    assert_eq!(load(Some(CacheFormat::F32)), CacheFormat::F32);
}

#[test]
fn static_activation_scales_are_required_and_shared_by_joined_members() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    quantize(
        "qwen3",
        &target,
        Recipe {
            static_activations: Some(0.05),
            ..PLAIN
        },
    );
    let ids = read_golden(&family("qwen3")).ids;
    let config = || ModelConfig::load(&target).unwrap();
    let model = load(&target, config());
    assert!(prefill(&model, &ids).iter().all(|logit| logit.is_finite()));

    let name = "model.layers.0.self_attn.k_proj.ta";
    let load_changed = |folder: &str, change: &dyn Fn(&[u8]) -> Option<Vec<u8>>| {
        let changed = golden::rewrite(&target, &tmp.path().join(folder), |tensor, bytes| {
            if tensor == name {
                change(bytes)
            } else {
                Some(bytes.to_vec())
            }
        });
        let device = Arc::new(CpuDevice::new(1).unwrap());
        let weights = Weights::open(&changed).unwrap();
        let result = Model::build(device, config(), &weights, &LoadOptions::default());
        result.map(|_| ()).unwrap_err().to_string()
    };
    let missing = load_changed("missing", &|_| None);
    assert!(missing.contains(name) && missing.contains("missing"), "{missing}");
    let unequal = load_changed("unequal", &|_| Some(0.07_f32.to_le_bytes().to_vec()));
    assert!(unequal.contains("static activation scales differ"), "{unequal}");
}

#[test]
fn contents_that_break_the_number_format_are_refused_with_their_linear() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    quantize("mistral", &target, PLAIN);
    let linear = "model.layers.1.mlp.down_proj";
    for (part, byte, words) in [
        ("s2", 0, "group scale (row 0, group 0) is 0"),
        ("s2", 255, "outside 1..=127"),
        ("q", 0x0f, "row 0"),
        ("s1", 0xff, "s1"),
    ] {
        let name = format!("{linear}.{part}");
        let changed = tmp.path().join(format!("{part}{byte}"));
        golden::rewrite(&target, &changed, |tensor, bytes| {
            let mut bytes = bytes.to_vec();
            if tensor == name {
                let len = if part == "s1" { 4 } else { 1 };
                bytes[..len].fill(byte);
            }
            if part == "q" && tensor == format!("{linear}.s2") {
                bytes[0] = 127;
            }
            Some(bytes)
        });
        let weights = Weights::open(&changed).unwrap();
        let device = Arc::new(CpuDevice::new(1).unwrap());
        let config = ModelConfig::load(&target).unwrap();
        let error = Model::build(device, config, &weights, &LoadOptions::default());
        let text = error.map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(linear) && text.contains(words), "{part}: {text}");
    }
}

#[test]
fn a_scheme_that_lists_what_is_not_stored_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    quantize("mistral", &target, PLAIN);
    let mut config = ModelConfig::load(&target).unwrap();
    let name = "model.layers.0.mlp.gate_proj";
    let linears = &mut config.quantization.as_mut().unwrap().linears;
    linears.insert(name.into(), LinearScheme::W8);
    let weights = Weights::open(&target).unwrap();
    let device = Arc::new(CpuDevice::new(1).unwrap());
    let error = Model::build(device, config, &weights, &LoadOptions::default());
    let text = error.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains(&format!("{name}.w8")), "{text}");
}

/// Counts the allocations of the threads that a test watches.
struct Counting;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed to the system's allocator as it came; counting touches two numbers only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if WATCHED.get() {
            ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Watches this thread and the workers of a device: each waits until all have come.
fn watch(device: &CpuDevice, is_watched: bool) {
    let arrived = AtomicUsize::new(0);
    let mut chunks = vec![(); device.num_threads()];
    device.pool().for_each_chunk(&mut chunks, 1, |_, _| {
        WATCHED.set(is_watched);
        arrived.fetch_add(1, Ordering::SeqCst);
        while arrived.load(Ordering::SeqCst) < device.num_threads() {
            std::thread::yield_now();
        }
    });
    WATCHED.set(is_watched);
}

#[test]
fn the_token_loop_allocates_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    // Past the borders of pages (64 tokens).
    let cases = [("mistral", CacheScheme::Int8, 200), ("opt", CacheScheme::F16, 90)];
    for (case, cache, num_tokens) in cases {
        let target = tmp.path().join(case);
        quantize(case, &target, Recipe { cache, ..PLAIN });
        for num_threads in [1, 2] {
            // One thread computes on this one, so that what the kernels do counts as well.
            let device = CpuDevice::new(num_threads).unwrap();
            let model = Model::load(Arc::new(device.clone()), &target, &LoadOptions::default());
            let limits = SessionLimits::new(2, num_tokens + 6, 20);
            let mut session = Session::new(Arc::new(model.unwrap()), limits).unwrap();
            let mut step = |position: u32| {
                let tokens = [[position % 60], [position % 60 + 1]];
                let batch = [(0, &tokens[0][..]), (1, &tokens[1][..])];
                session.run(&batch).unwrap();
                session.logits(&[0, 1]).unwrap();
            };
            watch(&device, true);
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            drop(std::hint::black_box(Box::new(num_threads)));
            assert!(ALLOCATIONS.load(Ordering::SeqCst) > before, "the counter counts");
            step(1);
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            (2..=num_tokens as u32).for_each(&mut step);
            let allocations = ALLOCATIONS.load(Ordering::SeqCst) - before;
            let mut sample = || session.sample(&[(0, 0), (1, 1)]).unwrap();
            sample();
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            (0..num_tokens).for_each(|_| drop(sample()));
            let for_samples = ALLOCATIONS.load(Ordering::SeqCst) - before;
            watch(&device, false);
            // A worker that has had no task yet makes its buffers with its first, once, whenever that comes.
            let allowed = 30 * (num_threads - 1);
            assert!(
                allocations <= allowed,
                "{case} on {num_threads} threads: {allocations} allocations in {num_tokens} tokens"
            );
            // The vector in which the samples come to the host is the only one.
            assert!(
                for_samples <= num_tokens + allowed,
                "{case} on {num_threads} threads: {for_samples} allocations for {num_tokens} samples"
            );
        }
    }
}

//! Whole models on a card and on the CPU, bit for bit: logits of every family, tokens and log-probabilities of requests that
//! share steps, a step that is replayed from a recording.
//!
//! Without a card or a compiler it says SKIPPED. Arguments are more model folders to compare.

mod constrained;
mod four_bits;
mod golden;
mod invariance;
mod lost;
mod sampled;
mod toy;
#[path = "configs/variants.rs"]
mod variants;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use dualgrain_cpu::CpuDevice;
use dualgrain_cuda::CudaDevice;
use dualgrain_device::{CacheFormat, Device};
use dualgrain_engine::{LoadOptions, Model, ModelConfig, Session, SessionLimits, Weights};
use dualgrain_testing::skipped;
use golden::{FAMILIES, family, logits};

/// Tokens of a prompt, where the model has positions for them, and of a step of it.
const PROMPT_TOKENS: usize = 190;
const STEP_TOKENS: usize = 64;
/// Tokens that follow one by one: the first step of its form is launched, the second recorded, the others replayed.
const DECODED_TOKENS: usize = 8;

/// Requests that run alone and among others.
const REQUESTS: usize = 200;

fn main() -> ExitCode {
    let card = match CudaDevice::open(0) {
        Ok(card) => Arc::new(card),
        Err(error) => {
            skipped("gpu", format_args!("no model compared on a GPU: {error}"));
            return ExitCode::SUCCESS;
        }
    };
    let cpu = Arc::new(CpuDevice::new(0).expect("the CPU"));
    let newer = tempfile::tempdir().expect("a folder");
    let mut folders = newer_families(newer.path());
    folders.extend(FAMILIES.iter().map(|name| family(name)));
    folders.extend(four_bits::CASES.map(|case| {
        let folder = newer.path().join(format!("{case}-w4a8"));
        four_bits::quantize(case, &folder, four_bits::PLAIN);
        folder
    }));
    folders.extend(
        std::env::args_os()
            .skip(1)
            .filter(|argument| Path::new(argument).is_dir())
            .map(PathBuf::from),
    );
    let mut failed = 0;
    for folder in &folders {
        for cache in [
            None,
            Some(CacheFormat::F32),
            Some(CacheFormat::F16),
            Some(CacheFormat::Int8),
        ] {
            let (got, expected) = (
                all_logits(&card, folder, &cache, None),
                all_logits(&cpu, folder, &cache, None),
            );
            failed += usize::from(!is_same(
                &format!("{} {cache:?}", folder.display()),
                &got,
                &expected,
            ));
        }
    }
    failed += transformed_differ(&card, &cpu);
    let (got, expected) = (
        sampled::events(Arc::clone(&card)),
        sampled::events(Arc::clone(&cpu)),
    );
    if got != expected {
        let different = got.iter().zip(&expected).find(|(got, expected)| got != expected);
        println!("FAILED: generated: {different:?}");
        failed += 1;
    }
    println!(
        "{} folders in four caches and {} events, {failed} differ",
        folders.len(),
        got.len()
    );
    failed += vary_with_others(&card, folders.last());
    failed += usize::from(!a_full_card_is_refused(&card));
    // The last: no driver gives a lost card back to the process.
    failed += usize::from(!lost::requests_end_in_words(&card));
    ExitCode::from(u8::from(failed > 0))
}

/// Models of the families that have no folder among the fixtures, written to `dir`.
fn newer_families(dir: &Path) -> Vec<PathBuf> {
    let rows = variants::read_variants().into_iter();
    let compared = rows.filter(|row| variants::ON_DEVICES.contains(&row.name.as_str()));
    let written = compared.map(|row| {
        let folder = dir.join(&row.name);
        variants::write_model(&row, &folder, |_| true);
        folder
    });
    written.collect()
}

/// How many families differ where the input of their last linear is transformed.
fn transformed_differ(card: &Arc<CudaDevice>, cpu: &Arc<CpuDevice>) -> usize {
    let differs = |case: &&str| {
        let (folder, block) = (family(case), Some(8));
        let got = all_logits(card, &folder, &None, block);
        let expected = all_logits(cpu, &folder, &None, block);
        !is_same(&format!("{case}, transformed"), &got, &expected)
    };
    ["llama2", "qwen3", "opt"].into_iter().filter(differs).count()
}

/// How many requests of the last folder named, or of the toy model, depend on who else is served.
fn vary_with_others(card: &Arc<CudaDevice>, folder: Option<&PathBuf>) -> usize {
    let model = match folder.filter(|_| std::env::args_os().len() > 1) {
        Some(folder) => {
            let options = LoadOptions::default();
            Arc::new(Model::load(Arc::clone(card), folder, &options).expect("a model"))
        }
        None => toy::model(Arc::clone(card)),
    };
    let different = invariance::differing(&model, REQUESTS);
    println!("{REQUESTS} requests alone and among others, {different} differ");
    different
}

/// Somebody else takes the card's memory: a session is refused in words, and runs once there is room again.
fn a_full_card_is_refused(card: &Arc<CudaDevice>) -> bool {
    /// Left free: too little for the session's cache.
    const LEFT_BYTES: usize = 256 << 20;
    let model = toy::model(Arc::clone(card));
    // A gigabyte of keys and values and more.
    let limits = SessionLimits {
        num_pages: Some(1 << 18),
        ..SessionLimits::new(1, 64, 64)
    };
    let free_bytes = card.gpu().free_bytes().expect("what is free");
    let others = card
        .gpu()
        .filled(free_bytes.saturating_sub(LEFT_BYTES), 0)
        .expect("room");
    let refused = match Session::new(Arc::clone(&model), limits) {
        Err(error) => error.to_string(),
        Ok(_) => String::new(),
    };
    drop(others);
    let runs = Session::new(model, limits).is_ok();
    let is_right = refused.contains("memory") && refused.contains("KV cache") && runs;
    if !is_right {
        println!("FAILED: a full card: {refused:?}, then a session: {runs}");
    }
    is_right
}

/// Compares the bits, and says where they differ first.
fn is_same(what: &str, got: &[f32], expected: &[f32]) -> bool {
    let differs = |(got, expected): (&f32, &f32)| {
        got.to_bits() != expected.to_bits() && !(got.is_nan() && expected.is_nan())
    };
    let count = got.iter().zip(expected).filter(|&pair| differs(pair)).count();
    let first = got.iter().zip(expected).position(differs);
    match first {
        None if got.len() == expected.len() => true,
        None => {
            println!(
                "FAILED: {what}: {} logits, expected {}",
                got.len(),
                expected.len()
            );
            false
        }
        Some(first) => {
            let (got_first, expected_first) = (got[first], expected[first]);
            println!(
                "FAILED: {what}: {count} of {} differ, the first at {first}: {got_first} for {expected_first}",
                got.len()
            );
            false
        }
    }
}

/// Logits after the last token of each step: a prompt in chunks, then token by token. `block` is that of a transform before the last
/// linear of each block, where the folder does not name one.
fn all_logits<D: Device>(
    device: &Arc<D>,
    folder: &Path,
    cache: &Option<CacheFormat>,
    block: Option<usize>,
) -> Vec<f32> {
    let options = LoadOptions {
        cache: cache.clone(),
        blocks_at_once: 2,
    };
    let mut config = ModelConfig::load(folder).expect("a configuration");
    config.hadamard_down = config.hadamard_down.or(block);
    let positions = config.max_positions;
    let weights = Weights::open(folder).expect("weights");
    let model = Arc::new(Model::build(Arc::clone(device), config, &weights, &options).expect("a model"));
    let limits = SessionLimits::new(1, (PROMPT_TOKENS + DECODED_TOKENS).min(positions), STEP_TOKENS);
    let mut session = Session::new(Arc::clone(&model), limits).expect("a session");
    let vocab_size = model.config().vocab_size;
    let tokens: Vec<u32> = (0..limits.context_tokens)
        .map(|place| ((place * 7919 + 13) % vocab_size) as u32)
        .collect();
    let (prompt, decoded) = tokens.split_at(tokens.len() - DECODED_TOKENS);
    let steps = prompt.chunks(STEP_TOKENS).chain(decoded.chunks(1));
    let of_step = steps.map(|step| {
        session.run(&[(0, step)]).expect("a step");
        logits(&mut session, &[step.len() as u32 - 1])
    });
    of_step.collect::<Vec<_>>().concat()
}

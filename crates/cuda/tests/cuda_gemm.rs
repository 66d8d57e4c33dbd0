//! W4A8 products on a card against the specification, bit for bit: sums and outputs of generated hostile cases, on every
//! configuration the table has for them, with marks around the outputs and every launch made twice.
//!
//! Without a card or a compiler it says SKIPPED, or fails with `DUALGRAIN_MAY_LACK=nothing`. Arguments: `--cases N` (default
//! 1,000), `--configs N` of each case (default 3), `--seed N`, and a word that keeps only configurations whose name holds
//! it. `cargo test --release -p dualgrain-cuda --test cuda_gemm -- --cases 10000`

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use dualgrain_cuda::{
    CudaError, Gemm, GemmConfig, GemmProblem, Gpu, Jit, Output, PackedLinear, QuantizedTokens, enumerate_all,
};
use dualgrain_device::naive;
use dualgrain_format::{GemmShape, GroupSize, QuantizedLinear};
use half::{bf16, f16};

use dualgrain_device::cases::{HOSTILITIES, Hostility, Random, activations, w4_layer};
use dualgrain_testing::skipped;

/// Largest M * N * K of a case: the specification is slow.
const MOST_WORK: usize = 6_000_000;
/// Marked bytes before and after an output.
const MARGIN: usize = 512;
const MARK: u8 = 0xa5;

struct Options {
    cases: usize,
    configs: usize,
    seed: u64,
    word: Option<String>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(words) => {
            println!("FAILED: {words}");
            return ExitCode::FAILURE;
        }
    };
    let ready = Gpu::open(0).and_then(|gpu| Ok((Jit::new(&gpu)?, gpu)));
    match ready {
        Ok((jit, gpu)) => match run(&jit, &gpu, &options) {
            Ok(0) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                println!("FAILED: {error}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            skipped("gpu", format_args!("no product compared on a GPU: {error}"));
            ExitCode::SUCCESS
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        cases: 1_000,
        configs: 3,
        seed: 1,
        word: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let next = arguments.next().and_then(|text| text.parse::<usize>().ok());
            next.ok_or(format!("{argument} wants a number"))
        };
        match argument.as_str() {
            "--cases" => options.cases = number()?,
            "--configs" => options.configs = number()?,
            "--seed" => options.seed = number()? as u64,
            // Options that cargo hands to every test.
            _ if argument.starts_with('-') => {}
            _ => options.word = Some(argument),
        }
    }
    Ok(options)
}

/// A product with what the specification makes of it.
struct Case {
    number: usize,
    words: String,
    shape: GemmShape,
    size: GroupSize,
    layer: QuantizedLinear,
    codes: Vec<i8>,
    scales: Vec<f32>,
    acc: Vec<i32>,
    d: Vec<f32>,
}

impl Case {
    /// Case `number` of a seed: always the same.
    fn new(seed: u64, number: usize) -> Self {
        let mut r = Random(seed.wrapping_mul(1 << 32).wrapping_add(number as u64));
        let size = [
            GroupSize::Along(32),
            GroupSize::Along(64),
            GroupSize::Along(128),
            GroupSize::WholeRow,
        ][r.below(4)];
        let how = HOSTILITIES[r.below(4)];
        let shape = shape(&mut r, how);
        let GemmShape { m, n, k } = shape;
        let layer = w4_layer(&mut r, (n, k), size, how);
        let (codes, scales) = activations(&mut r, (m, k), how);
        let (mut acc, mut d) = (vec![0; m * n], vec![0.0; m * n]);
        naive::gemm_w4a8(&codes, &scales, &layer, &mut acc, &mut d);
        Self {
            number,
            words: format!("case {number}: {shape} group {size} {how:?}"),
            shape,
            size,
            layer,
            codes,
            scales,
            acc,
            d,
        }
    }

    /// What `output` should hold, as bytes.
    fn expected(&self, output: Output) -> Vec<u8> {
        let halves = |bits: fn(f32) -> u16| self.d.iter().flat_map(|&d| bits(d).to_le_bytes()).collect();
        match output {
            Output::Sums => self.acc.iter().flat_map(|acc| acc.to_le_bytes()).collect(),
            Output::F32 => self.d.iter().flat_map(|d| d.to_le_bytes()).collect(),
            Output::F16 => halves(|d| f16::from_f32(d).to_bits()),
            Output::Bf16 => halves(|d| bf16::from_f32(d).to_bits()),
        }
    }
}

/// Around tiles and blocks, primes, and now and then a long K.
fn shape(r: &mut Random, how: Hostility) -> GemmShape {
    let ms = [
        17, 24, 31, 32, 33, 63, 64, 65, 97, 127, 128, 129, 191, 193, 255, 256, 257, 300, 515,
    ];
    let ns = [
        1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193, 251, 256, 257, 320, 385,
        509, 640, 1_031,
    ];
    let ks = [
        1, 3, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 97, 127, 128, 129, 160, 251, 255, 256, 257, 383,
        385, 512, 640, 1_021, 1_024, 2_047,
    ];
    loop {
        // Two of three cases have few tokens: most kernels are for them.
        let m = if r.below(3) < 2 {
            1 + r.below(17)
        } else {
            ms[r.below(ms.len())]
        };
        let n = ns[r.below(ns.len())];
        let long = r.below(60) == 0 && how != Hostility::ZeroTokens;
        let k = if long {
            28_671 + r.below(2)
        } else {
            ks[r.below(ks.len())]
        };
        if m * n * k <= MOST_WORK {
            return GemmShape { m, n, k };
        }
    }
}

/// Compares all cases; the number of those that differ.
fn run(jit: &Jit, gpu: &Gpu, options: &Options) -> Result<usize, CudaError> {
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let (sender, receiver) = sync_channel(4 * threads);
    let (failed, counts) = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    // A closed channel means that the card failed.
                    if number >= options.cases || sender.send(Case::new(options.seed, number)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        compare_all(jit, gpu, options, receiver)
    })?;
    let products: usize = counts.values().sum();
    for (config, count) in &counts {
        println!("{count:>7}  {config}");
    }
    println!(
        "{} cases, {products} products on {}: {failed} differ from the specification; {:.0} s",
        options.cases,
        gpu.info().name,
        started.elapsed().as_secs_f64()
    );
    Ok(failed)
}

type Counts = BTreeMap<String, usize>;

fn compare_all(
    jit: &Jit,
    gpu: &Gpu,
    options: &Options,
    cases: Receiver<Case>,
) -> Result<(usize, Counts), CudaError> {
    let (mut failed, mut counts) = (0, Counts::new());
    for case in cases {
        let mut r = Random(options.seed ^ case.number as u64);
        let weights = PackedLinear::new(gpu, &case.layer)?;
        let tokens = QuantizedTokens::upload(gpu, &case.codes, &case.scales, case.shape.k)?;
        for _ in 0..options.configs {
            let Some((problem, config)) = pick(&mut r, &case, gpu, options.word.as_deref()) else {
                continue;
            };
            let gemm = Gemm::new(jit, gpu, problem, config)?;
            let key = format!(
                "{} {config} {:?} {:?}",
                config.variant.kernel(),
                problem.group,
                problem.output
            );
            if let Err(words) = compare(gpu, &gemm, &weights, &tokens, &case, &mut r)? {
                println!("FAILED: {}: {key}: {words}", case.words);
                failed += 1;
            }
            *counts.entry(config.to_string()).or_default() += 1;
        }
    }
    Ok((failed, counts))
}

/// One of all configurations that run the case, whatever the cost function would say.
fn pick(r: &mut Random, case: &Case, gpu: &Gpu, word: Option<&str>) -> Option<(GemmProblem, GemmConfig)> {
    // Other outputs differ in the last step only; that is compared for one group length.
    let outputs = match case.size {
        GroupSize::Along(128) => &Output::ALL[..],
        _ => &[Output::Bf16, Output::Sums],
    };
    let problem = GemmProblem {
        shape: case.shape,
        group: case.size,
        output: outputs[r.below(outputs.len())],
    };
    let mut configs = enumerate_all(&problem, gpu.info());
    configs.retain(|config| word.is_none_or(|word| config.to_string().contains(word)));
    (!configs.is_empty()).then(|| (problem, configs[r.below(configs.len())]))
}

/// Launches twice into marked memory: kernels that cut K must leave their workspace as they found it.
fn compare(
    gpu: &Gpu,
    gemm: &Gemm,
    weights: &PackedLinear,
    tokens: &QuantizedTokens,
    case: &Case,
    r: &mut Random,
) -> Result<Result<(), String>, CudaError> {
    let output = gemm.problem().output;
    let expected = case.expected(output);
    // Outputs of any alignment that an element allows.
    let start = MARGIN + output.size_bytes() * r.below(9);
    let d = gpu.filled(start + expected.len() + MARGIN, MARK)?;
    let mut got = vec![0u8; d.len_bytes()];
    for launch in ["first", "second"] {
        d.fill(MARK)?;
        gemm.launch_at(weights, tokens, &d, start)?;
        d.read(0, &mut got)?;
        let (before, rest) = got.split_at(start);
        let (inside, after) = rest.split_at(expected.len());
        if before.iter().chain(after).any(|&byte| byte != MARK) {
            return Ok(Err(format!("{launch} launch wrote beside the output")));
        }
        if inside != expected {
            return Ok(Err(difference(launch, inside, &expected, output, case.shape)));
        }
    }
    Ok(Ok(()))
}

fn difference(launch: &str, got: &[u8], expected: &[u8], output: Output, shape: GemmShape) -> String {
    let size = output.size_bytes();
    let wrong: Vec<usize> = (0..expected.len() / size)
        .filter(|i| got[i * size..(i + 1) * size] != expected[i * size..(i + 1) * size])
        .collect();
    let first = wrong[0];
    format!(
        "{launch} launch: {} of {} elements differ, first at token {}, feature {}: {:02x?} instead of {:02x?}",
        wrong.len(),
        expected.len() / size,
        first / shape.n,
        first % shape.n,
        &got[first * size..(first + 1) * size],
        &expected[first * size..(first + 1) * size]
    )
}

//! Compiles every kernel of the table for every architecture it is meant for; needs NVRTC but no GPU.
//!
//! Fails on a kernel that does not compile, that does not keep to registers and shared memory (spills, arrays indexed
//! at run time), or whose registers do not fit its block. Without NVRTC it says SKIPPED, or fails
//! with `DUALGRAIN_MAY_LACK=nothing`. Arguments: `--list` prints the table and compiles nothing; a word keeps only the
//! kernels and configurations whose line holds it; `--all` compiles every row of the table with every group length and output, where
//! otherwise each row comes with some of them and each of them with some rows. With `DUALGRAIN_CUDA_CACHE` the compiled kernels go to that folder, for
//! a machine with a card.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dualgrain_cuda::{
    AttentionKernel, Before, CACHE_VARIABLE, Cache, CudaError, FLOAT_SCALES_TABLE, Input, KernelUse,
    NormRule, Output, Pointwise, Ring, RingTask, SGEMM_TILES, ScoreRule, Source, TABLE, TableType, Variant,
    attention_source, combine_source, compiler_version, freivalds_sources, gate_quantize_source,
    gather_rows_source, gemm_experts_sources, gemm_float_sources, gemm_w8a8_sm90_sources, gemm_w8a8_sources,
    hadamard_source, kernels, last_tokens_source, log_softmax_source, norm_source, operand_sources,
    pointwise_source, quantize_rows_sources, quantize_source, read_memory_source, rope_source,
    routing_sources, sample_source, sgemm_source, statistics_sources,
};
use dualgrain_device::Activation;
use dualgrain_device::CacheFormat;
use dualgrain_format::GroupSize;
use dualgrain_testing::skipped;

/// Compute capabilities and what the compiler calls them.
const ARCHS: [((i32, i32), &str); 3] = [((8, 0), "sm_80"), ((8, 9), "sm_89"), ((9, 0), "sm_90a")];

/// Architectures that the kernels of whole models compile for.
const ALL_ARCHS: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"];

/// Registers of a multiprocessor, on every architecture of `ARCHS`.
const REGISTERS: usize = 65_536;

struct Job {
    source: Source,
    arch: &'static str,
    words: String,
    threads: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let word = arguments.iter().find(|argument| !argument.starts_with('-'));
    let all = arguments.iter().any(|argument| argument == "--all");
    let jobs: Vec<Job> = jobs(all)
        .into_iter()
        .filter(|job| word.is_none_or(|word| job.words.contains(word)))
        .collect();
    if arguments.iter().any(|argument| argument == "--list") {
        jobs.iter().for_each(|job| println!("{}", job.words));
        return ExitCode::SUCCESS;
    }
    let found = check_the_check();
    match found {
        Ok(version) => compile_all(&jobs, &version),
        Err(error @ CudaError::LibraryMissing { .. }) => {
            let why = format_args!("{} kernels not compiled: {error}", jobs.len());
            skipped("nvrtc", why);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every row with every group length for bf16 and sums, and with every output for groups of 128; or every row in its usual form and with
/// a third of the others, another third for the next row.
fn jobs(all: bool) -> Vec<Job> {
    let outputs = [Output::F32, Output::F16].map(|output| (GroupSize::Along(128), output));
    let groups = GroupSize::ALL.map(|group| [(group, Output::Bf16), (group, Output::Sums)]);
    let mut jobs = Vec::new();
    for (row, variant) in TABLE.iter().enumerate() {
        for (capability, arch) in ARCHS {
            if variant.runs_on(capability) {
                let pairs = groups.iter().flatten().chain(&outputs).enumerate();
                let is_usual = |pair: &(GroupSize, Output)| *pair == (GroupSize::Along(128), Output::Bf16);
                let pairs = pairs.filter(|(at, pair)| all || is_usual(pair) || (row + at) % 3 == 0);
                let pairs = pairs.map(|(_, pair)| *pair);
                let pairs = pairs.filter(|&(group, output)| variant.exists(group, output));
                jobs.extend(pairs.map(|(group, output)| job(variant, arch, group, output)));
            }
        }
    }
    for variant in FLOAT_SCALES_TABLE {
        let outputs = [Output::Bf16, Output::F16, Output::F32];
        let outputs = outputs
            .into_iter()
            .filter(|&output| variant.exists(GroupSize::Along(128), output));
        jobs.extend(outputs.map(|output| job(variant, "sm_90a", GroupSize::Along(128), output)));
    }
    for (_, arch) in ARCHS {
        jobs.push(Job {
            source: read_memory_source(),
            arch,
            words: format!("read_memory {arch}"),
            threads: 512,
        });
        let checks = operand_sources().into_iter().chain(freivalds_sources());
        jobs.extend(checks.map(|source| Job {
            words: format!("{} {arch} {:?}", source.name, source.macros),
            source,
            arch,
            threads: 256,
        }));
        jobs.extend(SGEMM_TILES.map(|tile| Job {
            source: sgemm_source(tile),
            arch,
            words: format!("sgemm_tiled {arch} tile {tile}"),
            threads: tile * tile,
        }));
    }
    for arch in ALL_ARCHS {
        jobs.extend(linear_jobs(arch));
        jobs.extend(mixture_jobs(arch));
        jobs.extend(model_jobs(arch));
        jobs.extend(row_jobs(arch));
        jobs.extend(quantize_jobs(arch));
        jobs.extend(attention_jobs(arch));
    }
    jobs
}

/// Hopper: every format with common and odd heads, groups that fit tiles and such that do not. Elsewhere heads of 128 over codes and
/// floats: the texts differ by nothing but what Hopper has.
fn attention_jobs(arch: &'static str) -> Vec<Job> {
    let scales = || vec![1.0];
    let mut formats = vec![CacheFormat::Int8, CacheFormat::F16];
    let mut shapes = vec![(128, 4)];
    if arch == "sm_90a" {
        formats.extend([
            CacheFormat::F32,
            CacheFormat::Int8Static {
                key_scales: scales(),
                value_scales: scales(),
            },
        ]);
        shapes.extend([(64, 1), (80, 1), (96, 3), (256, 2), (40, 9)]);
    }
    let mut jobs = Vec::new();
    for (at, (format, (head_dim, group))) in formats
        .iter()
        .flat_map(|f| shapes.iter().map(move |s| (f, *s)))
        .enumerate()
    {
        let integers = !matches!(format, CacheFormat::F32 | CacheFormat::F16);
        for kernel in attention_kernels(arch, integers, head_dim) {
            let rule = ScoreRule {
                alibi: at % 3 == 0 && !rotates(kernel),
                soft_cap: at % 4 == 0 && !rotates(kernel),
                sinks: at % 6 < 2 && !rotates(kernel),
            };
            let plain = ScoreRule::default();
            jobs.push(attention_job(arch, kernel, (format, head_dim, group), rule));
            // It rotates where scores are plain.
            if kernel == AttentionKernel::PromptGroups && rule != plain {
                jobs.push(attention_job(arch, kernel, (format, head_dim, group), plain));
            }
        }
    }
    jobs
}

fn attention_job(
    arch: &'static str,
    kernel: AttentionKernel,
    (format, head_dim, group): (&CacheFormat, usize, usize),
    rule: ScoreRule,
) -> Job {
    let source = attention_source(kernel, format, head_dim, group, rule);
    Job {
        words: format!("{} {arch} {kernel:?} {:?}", source.name, source.macros),
        source,
        arch,
        threads: match kernel {
            AttentionKernel::Ring(ring, task) => ring.threads(task),
            AttentionKernel::PromptGroups => 512,
            _ => 128,
        },
    }
}

/// Those that an architecture has for a kind of cache.
fn attention_kernels(
    arch: &str,
    integers: bool,
    head_dim: usize,
) -> impl Iterator<Item = AttentionKernel> + use<> {
    let tiled = integers && head_dim <= 256;
    let ring = integers && has_bulk_copies(arch);
    // Two teams leave the fewest registers; they are measured on Hopper.
    let teams = if arch == "sm_90a" && head_dim <= 128 { 2 } else { 1 };
    let in_ring = |whole, joined, codes| {
        let task = RingTask { whole, joined, codes };
        (ring, AttentionKernel::Ring(Ring { stages: 4, teams }, task))
    };
    let grouped = integers && head_dim == 128 && arch == "sm_90a";
    let kernels = [
        (true, AttentionKernel::Write),
        (true, AttentionKernel::RotateWrite),
        (true, AttentionKernel::Spans),
        in_ring(true, false, false),
        in_ring(true, true, false),
        in_ring(false, true, true),
        (!tiled, AttentionKernel::Walk),
        (tiled, AttentionKernel::Prompt { warps: 4 }),
        (grouped, AttentionKernel::PromptGroups),
    ];
    let there = kernels
        .into_iter()
        .filter_map(|(is_there, kernel)| is_there.then_some(kernel));
    there.filter(move |&kernel| !rotates(kernel) || head_dim.is_multiple_of(64))
}

fn rotates(kernel: AttentionKernel) -> bool {
    match kernel {
        AttentionKernel::Ring(_, task) => task.joined,
        _ => kernel == AttentionKernel::RotateWrite,
    }
}

fn has_bulk_copies(arch: &str) -> bool {
    !arch.starts_with("sm_8")
}

/// Every quantization there is.
fn quantizations() -> impl Iterator<Item = (Before, Input)> {
    let all = Before::ALL
        .into_iter()
        .flat_map(|before| Input::ALL.map(|input| (before, input)));
    all.filter(|&(before, input)| before.takes(input))
}

fn quantize_jobs(arch: &'static str) -> impl Iterator<Item = Job> {
    let sources = quantizations().flat_map(|(before, input)| {
        let held = quantize_rows_sources(before, input).into_iter();
        held.chain([(quantize_source(before, input), 512)])
    });
    sources.map(move |(source, threads)| Job {
        words: format!("{} {arch} {:?}", source.name, source.macros),
        source,
        arch,
        threads,
    })
}

/// Products with INT8 and float weights.
fn linear_jobs(arch: &'static str) -> impl Iterator<Item = Job> {
    let groups = match arch {
        "sm_90a" => gemm_w8a8_sm90_sources(),
        _ => Vec::new(),
    };
    let sources = gemm_w8a8_sources()
        .into_iter()
        .chain(gemm_float_sources())
        .chain(groups);
    sources.map(move |(source, threads)| Job {
        words: format!("{} {arch} {:?}", source.name, source.macros),
        source,
        arch,
        threads,
    })
}

/// Mixtures of experts.
fn mixture_jobs(arch: &'static str) -> impl Iterator<Item = Job> {
    let sources = gemm_experts_sources().into_iter().chain(routing_sources());
    let sources = sources.chain([combine_source()]);
    sources.map(move |(source, threads)| Job {
        words: format!("{} {arch} {:?}", source.name, source.macros),
        source,
        arch,
        threads,
    })
}

/// Rows of activations: gathered, normed, rotated, changed element by element.
fn row_jobs(arch: &'static str) -> Vec<Job> {
    let mut sources = vec![rope_source(), hadamard_source()];
    let activations = [
        Activation::Relu,
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
    ];
    let gates = activations
        .into_iter()
        .flat_map(|f| [(f, Input::F32), (f, Input::Bf16)]);
    sources.extend(gates.map(|(f, input)| gate_quantize_source(f, input)));
    sources.extend(TableType::ALL.map(gather_rows_source));
    sources.extend(NormRule::ALL.map(norm_source));
    sources.extend(Pointwise::all().map(pointwise_source));
    let job = |source: Source| Job {
        words: format!("{} {arch} {:?}", source.name, source.macros),
        source,
        arch,
        threads: 256,
    };
    sources.into_iter().map(job).collect()
}

/// Sampling, and what calibration measures.
fn model_jobs(arch: &'static str) -> Vec<Job> {
    let job = |threads| {
        move |source: Source| Job {
            words: format!("{} {arch} {:?}", source.name, source.macros),
            source,
            arch,
            threads,
        }
    };
    let sampling = [sample_source(), log_softmax_source(), last_tokens_source()].map(job(512));
    let statistics = statistics_sources().into_iter().map(job(256));
    sampling.into_iter().chain(statistics).collect()
}

fn job(variant: &Variant, arch: &'static str, group: GroupSize, output: Output) -> Job {
    Job {
        source: variant.source(group, output),
        arch,
        words: format!("{} {arch} {variant} group {group} {output:?}", variant.kernel(),),
        threads: variant.threads(),
    }
}

/// A check that finds nothing must be known to find something: a kernel that indexes an array at run time.
fn check_the_check() -> Result<String, CudaError> {
    let (version, file) = compiler_version()?;
    let text = "extern \"C\" __global__ void probe(int *x) {\n#if SPILL\n\
                int a[64]; for (int i = 0; i < 64; i++) a[x[i] & 63] = x[64 + i];\n\
                x[128 + threadIdx.x] = a[x[threadIdx.x] & 63];\n#else\n\
                __shared__ int s[32]; s[threadIdx.x] = x[threadIdx.x]; __syncthreads();\n\
                x[threadIdx.x] = s[31 - threadIdx.x];\n#endif\n}";
    let probe = |spill| Source {
        name: "probe",
        text,
        headers: &[],
        macros: vec![("SPILL", spill)],
    };
    for (_, arch) in ARCHS {
        for (spill, expected) in [(0, false), (1, true)] {
            let found = kernels(&probe(spill).compile(arch)?)?;
            let [kernel] = &found[..] else {
                panic!("one kernel in the probe's cubin, found {found:?}");
            };
            assert_eq!(kernel.spills(), expected, "{arch}: {kernel:?}");
            assert!(kernel.num_registers > 0 && kernel.name == "probe", "{kernel:?}");
            assert!(expected || kernel.shared_bytes >= 128, "{arch}: {kernel:?}");
        }
    }
    Ok(format!("{version} ({file})"))
}

fn compile_all(jobs: &[Job], version: &str) -> ExitCode {
    let (next, failures, started) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(words) = check(job) {
                        println!("FAILED: {}: {words}", job.words);
                        failures.lock().expect("no panic while held").push(words);
                    }
                }
            });
        }
    });
    let failed = failures.into_inner().expect("all threads ended").len();
    println!(
        "{} of {} kernels compile with NVRTC {version} and keep to registers, in {:.0} s",
        jobs.len() - failed,
        jobs.len(),
        started.elapsed().as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn check(job: &Job) -> Result<(), String> {
    let started = Instant::now();
    // Only a cache that was named: a run of tests leaves the user's alone.
    let cache = match std::env::var_os(CACHE_VARIABLE) {
        Some(_) => Cache::of_user(),
        None => Cache::none(),
    };
    let cubin = job.source.cubin(job.arch, &cache);
    let cubin = cubin.map_err(|error| error.to_string())?;
    let found = kernels(&cubin).map_err(|error| error.to_string())?;
    let kernel = found
        .iter()
        .find(|kernel| kernel.name == job.source.name)
        .ok_or_else(|| format!("no kernel of this name, only {found:?}"))?;
    if std::env::var_os("DUALGRAIN_VERBOSE").is_some() {
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{}: {} registers, {seconds:.2} s",
            job.words, kernel.num_registers
        );
    }
    judge(kernel, job.threads)
}

fn judge(kernel: &KernelUse, threads: usize) -> Result<(), String> {
    if kernel.spills() {
        return Err(format!(
            "local memory: {} bytes of stack and {} beside it",
            kernel.stack_bytes, kernel.local_bytes
        ));
    }
    // Registers are handed out to warps by 8 a thread.
    let registers = (kernel.num_registers as usize).next_multiple_of(8) * threads;
    if registers > REGISTERS {
        return Err(format!("{registers} registers in a block of {threads} threads"));
    }
    Ok(())
}

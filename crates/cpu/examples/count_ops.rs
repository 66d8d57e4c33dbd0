//! Instructions that every hot operation needs, counted by valgrind's callgrind: a slower kernel shows on a machine whose
//! timings say nothing, since a count does not depend on what else runs there.
//!
//!     cargo run --release -p dualgrain-cpu --example count_ops -- [--isa NAME] [--op PREFIX] [--csv FILE] [--check FILE]
//!
//! The program runs itself under callgrind, one operation at a time on one thread, once with one call and once with two: the
//! difference is a call without start-up, operands and first-time buffers. `--check` compares with a recorded file and fails
//! where an operation needs over 3 % more (20 % on the portable path). Valgrind knows AVX2 but no AVX-512, so the portable path and AVX2 are counted.
//! Counts belong to a compiler, which the record names: a new compiler wants a new record. AVX-VNNI, AVX-512 and AMX
//! kernels have no counts.

#[path = "bench_ops/operands.rs"]
mod operands;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};

use dualgrain_cpu::{Cache, CpuDevice, Isa, Matrix, Quantized};
use dualgrain_device::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Device, Operand, PAGE_TOKENS, Step,
};
use dualgrain_format::{GroupSize, LinearWeights};

use crate::operands::{grouped_w4, matrix, quantized, w4, w8};

/// More instructions than recorded, times this, are a regression; as many fewer are worth a new record.
fn limit(isa: &str) -> f64 {
    match isa {
        // What the compiler inlines into the portable loops changes with sources far from them: 15 % for the same loop.
        "portable" => 1.2,
        _ => 1.03,
    }
}

/// Instruction sets that valgrind can run.
const COUNTED: [Isa; 2] = [Isa::Portable, Isa::Avx2];

fn main() -> ExitCode {
    let options = Options::from_args();
    if let Some(name) = &options.run {
        run(name, &options);
        return ExitCode::SUCCESS;
    }
    let Some(valgrind) = output(Command::new("valgrind").arg("--version")) else {
        println!("SKIPPED: valgrind is not installed, no instructions were counted");
        return ExitCode::SUCCESS;
    };
    if cfg!(debug_assertions) {
        println!("counts of a debug build mean nothing; add --release");
        return ExitCode::FAILURE;
    }
    if let Some(path) = &options.check
        && let Some(problem) = other_build(&read(path))
    {
        println!("{problem}");
        return ExitCode::SUCCESS;
    }
    let counts = count_all(&options);
    if let Some(path) = &options.csv {
        std::fs::write(path, csv(&valgrind, &counts)).expect("writable CSV path");
    }
    match &options.check {
        Some(path) => check(path, &counts),
        None => ExitCode::SUCCESS,
    }
}

#[derive(Default)]
struct Options {
    isa: Option<String>,
    op: String,
    csv: Option<String>,
    check: Option<String>,
    /// Of a child: the operation to run, and how often.
    run: Option<String>,
    calls: usize,
}

impl Options {
    fn from_args() -> Self {
        let (mut options, mut args) = (Self::default(), std::env::args().skip(1));
        while let Some(name) = args.next() {
            let value = args.next().unwrap_or_else(|| panic!("{name} wants a value"));
            match name.as_str() {
                "--isa" => options.isa = Some(value),
                "--op" => options.op = value,
                "--csv" => options.csv = Some(value),
                "--check" => options.check = Some(value),
                "--run" => options.run = Some(value),
                "--calls" => options.calls = value.parse().expect("a number of calls"),
                _ => panic!("unknown option {name}"),
            }
        }
        options
    }
}

/// One operation on one instruction set.
struct Count {
    op: &'static str,
    isa: &'static str,
    shape: String,
    instructions: u64,
    /// Multiply-adds or elements.
    units: usize,
    unit: &'static str,
}

impl Count {
    fn key(&self) -> String {
        format!("{},{},{}", self.op, self.isa, self.shape)
    }

    fn per_unit(&self) -> f64 {
        self.instructions as f64 / self.units as f64
    }
}

/// Counts and prints what was asked for.
fn count_all(options: &Options) -> Vec<Count> {
    println!(
        "{:<22} {:<8} {:<18} {:>13} {:>9} per",
        "op", "isa", "shape", "instructions", ""
    );
    let mut counts = Vec::new();
    for isa in COUNTED.into_iter().filter(|isa| isa.is_available()) {
        if options.isa.as_ref().is_some_and(|name| name != isa.name()) {
            continue;
        }
        for op in operations()
            .into_iter()
            .filter(|op| op.name.starts_with(&options.op))
        {
            let count = Count {
                op: op.name,
                isa: isa.name(),
                instructions: instructions(&op, isa, 2) - instructions(&op, isa, 1),
                shape: op.shape,
                units: op.units,
                unit: op.unit,
            };
            println!(
                "{:<22} {:<8} {:<18} {:>13} {:>9.4} {}",
                count.op,
                count.isa,
                count.shape,
                count.instructions,
                count.per_unit(),
                count.unit
            );
            counts.push(count);
        }
    }
    counts
}

/// Instructions of a process that calls an operation `calls` times.
fn instructions(op: &Operation, isa: Isa, calls: usize) -> u64 {
    let program = std::env::current_exe().expect("the path of this program");
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([
            "--run",
            &op.key(),
            "--isa",
            isa.name(),
            "--calls",
            &calls.to_string(),
        ])
        .output()
        .expect("valgrind starts");
    let said = String::from_utf8_lossy(&out.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(instructions) if out.status.success() => instructions,
        _ => panic!(
            "{} on {} under callgrind ({}):\n{said}",
            op.key(),
            isa.name(),
            out.status
        ),
    }
}

/// What the child does.
fn run(name: &str, options: &Options) {
    let isa = Isa::by_name(options.isa.as_deref().unwrap_or_default()).expect("an instruction set");
    let device = CpuDevice::with_isa(1, isa).expect("available");
    let op = operations().into_iter().find(|op| op.key() == name);
    let mut call = (op.expect("an operation").prepare)(device);
    (0..options.calls).for_each(|_| call());
}

/// What a command prints, if it can be run.
fn output(command: &mut Command) -> Option<String> {
    let out = command.output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn csv(valgrind: &str, counts: &[Count]) -> String {
    let unknown = || "unknown".to_owned();
    let revision = output(Command::new("git").args(["describe", "--always", "--dirty"]));
    let compiler = output(Command::new("rustc").arg("--version"));
    let mut csv = format!(
        "# callgrind of {valgrind}; instructions of one call on one thread; {}; git {}\n\
         op,isa,shape,instructions,per_unit,unit\n",
        compiler.unwrap_or_else(unknown),
        revision.unwrap_or_else(unknown),
    );
    for count in counts {
        let per_unit = count.per_unit();
        let _ = writeln!(
            csv,
            "{},{},{per_unit:.5},{}",
            count.key(),
            count.instructions,
            count.unit
        );
    }
    csv
}

/// Compares with a recorded file; fails for regressions, and when there was nothing to compare.
fn check(path: &str, counts: &[Count]) -> ExitCode {
    let recorded = recorded(&read(path));
    let (mut compared, mut regressions) = (0, 0);
    for count in counts {
        let Some(&before) = recorded.get(&count.key()) else {
            println!("{} is not in {path}", count.key());
            continue;
        };
        compared += 1;
        let ratio = count.instructions as f64 / before as f64;
        if ratio > limit(count.isa) {
            regressions += 1;
            println!(
                "REGRESSION: {} needs {} instructions, {:.1} % more than the {before} recorded",
                count.key(),
                count.instructions,
                100.0 * (ratio - 1.0)
            );
        } else if ratio < 2.0 - limit(count.isa) {
            println!(
                "{} needs {:.1} % fewer: record it",
                count.key(),
                100.0 * (1.0 - ratio)
            );
        }
    }
    println!(
        "{compared} operations compared with {path}, {regressions} need more instructions than they may"
    );
    if compared == 0 || regressions > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Why counts of this build say nothing beside those recorded: another compiler.
fn other_build(text: &str) -> Option<String> {
    let recorded = text
        .lines()
        .next()?
        .split("; ")
        .find(|part| part.starts_with("rustc "))?;
    let here = output(Command::new("rustc").arg("--version")).unwrap_or_default();
    (recorded != here).then(|| format!("SKIPPED: recorded with {recorded}, this is {here}"))
}

/// Instructions by `op,isa,shape`. The portable path was once called naive.
fn recorded(text: &str) -> BTreeMap<String, u64> {
    let rows = text
        .lines()
        .filter(|line| !line.starts_with(['#']) && !line.starts_with("op,"));
    rows.map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let instructions = fields.get(3).and_then(|count| count.parse().ok());
        let instructions = instructions.unwrap_or_else(|| panic!("no number of instructions in {line:?}"));
        let isa = if fields[1] == "naive" {
            "portable"
        } else {
            fields[1]
        };
        (format!("{},{isa},{}", fields[0], fields[2]), instructions)
    })
    .collect()
}

/// Something to count: `prepare` makes operands and gives what is called.
struct Operation {
    name: &'static str,
    shape: String,
    units: usize,
    unit: &'static str,
    prepare: Box<dyn Fn(CpuDevice) -> Call>,
}

type Call = Box<dyn FnMut()>;

impl Operation {
    fn key(&self) -> String {
        format!("{}/{}", self.name, self.shape)
    }
}

fn operations() -> Vec<Operation> {
    let (n, k) = (512, 1_024);
    let mut operations = Vec::new();
    for m in [1, 8, 512] {
        operations.push(product("gemm_w4a8", (m, n, k), w4));
        operations.push(product("gemm_w8a8", (m, n, k), w8));
    }
    // One scale a row: what the fine grain costs in instructions.
    operations.push(product("gemm_w4a8_channel", (512, n, k), |n, k| {
        grouped_w4(n, k, GroupSize::WholeRow)
    }));
    for m in [1, 512] {
        operations.push(gated_product((m, n, k)));
        operations.push(added_product((m, n, k)));
    }
    operations.extend(rows((64, 2_048)));
    for (tokens, context) in [(1, 1_024), (128, 128)] {
        operations.push(cache_write((tokens, context)));
        operations.push(attention((tokens, context)));
    }
    operations
}

fn product(
    name: &'static str,
    (m, n, k): (usize, usize, usize),
    make: fn(usize, usize) -> LinearWeights,
) -> Operation {
    Operation {
        name,
        shape: format!("{m}x{n}x{k}"),
        units: m * n * k,
        unit: "multiply-add",
        prepare: Box::new(move |device| {
            let (a, weights) = (
                activations(&device, m, k),
                device.pack(make(n, k)).expect("packs"),
            );
            let mut out = device.matrix(m, n);
            Box::new(move || device.gemm(&mut out, Operand::Int8(&a), &weights))
        }),
    }
}

fn activations(device: &CpuDevice, m: usize, k: usize) -> Quantized {
    quantized(device, &matrix(device, m, k))
}

/// Gate and up of a feed-forward block.
fn gated_product((m, n, k): (usize, usize, usize)) -> Operation {
    Operation {
        name: "gemm_w4a8_gated",
        shape: format!("{m}x{n}x{k}"),
        units: m * n * k,
        unit: "multiply-add",
        prepare: Box::new(move |device| {
            let (a, weights) = (activations(&device, m, k), device.pack(w4(n, k)).expect("packs"));
            let (mut out, mut wide) = (device.matrix(m, n / 2), device.matrix(m, n));
            Box::new(move || {
                device.gemm_gated(&mut out, &mut wide, Operand::Int8(&a), &weights, Activation::Silu);
            })
        }),
    }
}

/// A product that is added to the stream.
fn added_product((m, n, k): (usize, usize, usize)) -> Operation {
    Operation {
        name: "gemm_w4a8_added",
        shape: format!("{m}x{n}x{k}"),
        units: m * n * k,
        unit: "multiply-add",
        prepare: Box::new(move |device| {
            let (a, weights) = (activations(&device, m, k), device.pack(w4(n, k)).expect("packs"));
            let (mut x, mut y) = (matrix(&device, m, n), device.matrix(m, n));
            Box::new(move || device.gemm_add(&mut x, &mut y, Operand::Int8(&a), &weights))
        }),
    }
}

/// Operations on rows of `x[m,k]`.
fn rows((m, k): (usize, usize)) -> [Operation; 6] {
    let of_rows = |name, units, prepare| Operation {
        name,
        shape: format!("{m}x{k}"),
        units,
        unit: "element",
        prepare,
    };
    [
        of_rows(
            "rows_quantize",
            m * k,
            Box::new(move |b: CpuDevice| -> Call {
                let (x, mut out) = (matrix(&b, m, k), b.quantized(m, k));
                Box::new(move || b.quantize(&mut out, &x, ActivationScale::PerToken))
            }),
        ),
        of_rows(
            "rows_rms_norm",
            m * k,
            Box::new(move |b| {
                let (x, weight, mut out) = (matrix(&b, m, k), matrix(&b, 1, k), b.matrix(m, k));
                Box::new(move || b.rms_norm(&mut out, &x, &weight, 1e-5))
            }),
        ),
        of_rows(
            "rows_rms_norm_quantize",
            m * k,
            Box::new(move |b| {
                let (x, weight) = (matrix(&b, m, k), matrix(&b, 1, k));
                let (mut out, mut h) = (b.quantized(m, k), b.matrix(m, k));
                let scale = ActivationScale::PerToken;
                Box::new(move || b.rms_norm_quantize(&mut out, &mut h, &x, &weight, 1e-5, scale))
            }),
        ),
        of_rows(
            "rows_gated_silu",
            m * k / 2,
            Box::new(move |b| {
                let (x, mut out) = (matrix(&b, m, k), b.matrix(m, k / 2));
                Box::new(move || b.gated(&mut out, &x, Activation::Silu))
            }),
        ),
        of_rows(
            "rows_rope",
            m * k,
            Box::new(move |b| {
                let (mut x, angles) = (matrix(&b, m, k), matrix(&b, m, HEAD_DIM));
                Box::new(move || b.rope(&mut x, 0..k, HEAD_DIM, &angles))
            }),
        ),
        of_rows(
            "rows_log_softmax",
            m * k,
            Box::new(move |b| {
                let mut x = matrix(&b, m, k);
                Box::new(move || b.log_softmax(&mut x))
            }),
        ),
    ]
}

/// Attention of a 1.1B Llama: queries, then keys, then values side by side.
const HEADS: usize = 32;
const KV_HEADS: usize = 4;
const HEAD_DIM: usize = 64;
const Q: usize = HEADS * HEAD_DIM;
const KV: usize = KV_HEADS * HEAD_DIM;

/// Keys and values of the last `tokens` of a context into an INT8 cache.
fn cache_write((tokens, context): (usize, usize)) -> Operation {
    Operation {
        name: "attention_write_int8",
        shape: format!("{tokens}over{context}x{HEADS}/{KV_HEADS}"),
        units: tokens * 2 * KV,
        unit: "element",
        prepare: Box::new(move |device| {
            let mut sequence = Sequence::new(&device, context);
            let x = matrix(&device, tokens, Q + 2 * KV);
            Box::new(move || sequence.write(&device, &x, context - tokens))
        }),
    }
}

/// The last `tokens` of a context over an INT8 cache.
fn attention((tokens, context): (usize, usize)) -> Operation {
    // Queries and the keys they see.
    let pairs = tokens * (context - tokens) + tokens * (tokens + 1) / 2;
    Operation {
        name: "attention_int8",
        shape: format!("{tokens}over{context}x{HEADS}/{KV_HEADS}"),
        units: 2 * pairs * Q,
        unit: "multiply-add",
        prepare: Box::new(move |device| {
            let mut sequence = Sequence::new(&device, context);
            sequence.write(&device, &matrix(&device, context, Q + 2 * KV), 0);
            let x = matrix(&device, tokens, Q + 2 * KV);
            let mut out = device.matrix(tokens, Q);
            let params = AttentionParams {
                num_heads: HEADS,
                scale: 0.125,
                sliding_window: None,
                alibi_slopes: None,
            };
            Box::new(move || {
                let step = sequence.step(context - tokens, tokens);
                device.attention(&mut out, &x, 0..Q, &sequence.cache, 0, &params, &step);
            })
        }),
    }
}

/// A sequence alone in its cache.
struct Sequence {
    cache: Cache,
    positions: Vec<u32>,
    sequences: Vec<u32>,
    page_tables: [Vec<u32>; 1],
}

impl Sequence {
    fn new(device: &CpuDevice, context: usize) -> Self {
        let num_pages = context.div_ceil(PAGE_TOKENS);
        let shape = CacheShape {
            num_layers: 1,
            num_kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            num_pages,
        };
        Self {
            cache: device.cache(shape, &CacheFormat::Int8).expect("fits"),
            positions: (0..context as u32).collect(),
            sequences: vec![0; context],
            page_tables: [(0..num_pages as u32).collect()],
        }
    }

    fn step(&self, first: usize, tokens: usize) -> Step<'_> {
        Step {
            positions: &self.positions[first..first + tokens],
            sequences: &self.sequences[..tokens],
            page_tables: &self.page_tables,
        }
    }

    fn write(&mut self, device: &CpuDevice, x: &Matrix, first: usize) {
        // Not `step`, which would borrow the cache too.
        let step = Step {
            positions: &self.positions[first..first + device.rows(x)],
            sequences: &self.sequences[..device.rows(x)],
            page_tables: &self.page_tables,
        };
        device.cache_write(&mut self.cache, 0, x, Q..Q + KV, Q + KV..Q + 2 * KV, &step);
    }
}

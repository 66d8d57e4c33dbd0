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

mod attention;
#[path = "../bench_ops/operands.rs"]
mod operands;
mod operation;
mod products;
mod record;
mod rows;

use std::process::{Command, ExitCode};

use dualgrain_cpu::{CpuDevice, Isa};

use crate::attention::{attention, cache_write};
use crate::operands::{grouped_w4, w4, w8};
use crate::operation::Operation;
use crate::products::{added_product, gated_product, product};
use crate::record::{Count, check, csv, other_build, output, read};
use dualgrain_format::GroupSize;

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
    operations.extend(rows::rows((64, 2_048)));
    for (tokens, context) in [(1, 1_024), (128, 128)] {
        operations.push(cache_write((tokens, context)));
        operations.push(attention((tokens, context)));
    }
    operations
}

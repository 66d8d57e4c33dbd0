//! The rows of a sweep before anything is measured: which kernels and configurations run on a product, and their facts.

use dualgrain_cuda::{
    Analytic, Cost as _, CublasType, CudaError, GemmConfig, GemmProblem, Gpu, GpuInfo, Output, SgemmTiled,
    Split, TABLE, Variant, enumerate, enumerate_all,
};
use dualgrain_device::naive::Transposes;
use dualgrain_format::GemmShape;

use crate::data::{Cut, Row};
use crate::measure::space::{Configs, FloatCase, FloatKernel, ShapeTask, hash};
use crate::product::Layout;

/// Configurations that would take longer are not worth their time.
const MOST_TIME_S: f64 = 0.02;
/// Of those that are out of proportion, only such as take no more than so many times the best.
const MOST_TIMES_BEST: f64 = 6.0;
/// Threads a multiprocessor holds.
const SM_THREADS: f64 = 2_048.0;
/// Energy is measured oftener where the choice of a kernel is close, and less often elsewhere.
const CLOSE: f64 = 1.25;
const CLOSE_WEIGHT: f64 = 2.0;
const FAR_WEIGHT: f64 = 0.7;
/// What is measured besides the project's 4-bit products.
const OTHER_KERNELS: [&str; 5] = [
    "cublaslt_int8",
    "cublas_bf16",
    "cublas_f16",
    "cublas_f32",
    "sgemm_tiled",
];

/// Kernels and libraries of a card.
pub(crate) fn kernels() -> Vec<&'static str> {
    let own = TABLE.iter().map(|variant| variant.kernel());
    let mut all: Vec<&str> = own.chain(OTHER_KERNELS).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Configurations and the share of their rows that get energy.
pub(crate) fn configs(task: &ShapeTask, problem: &GemmProblem, info: &GpuInfo) -> Vec<(GemmConfig, f64)> {
    let time_s = |config: &GemmConfig| Analytic.time_s(problem, config, info);
    let mut sensible = enumerate(problem, info);
    sensible.sort_by(|a, b| time_s(a).total_cmp(&time_s(b)));
    let best_s = sensible.first().map_or(0.0, time_s);
    let others = enumerate_all(problem, info).into_iter();
    let others = others.filter(|config| !sensible.contains(config) && time_s(config) < MOST_TIME_S);
    let chosen = match task.configs {
        Configs::Sensible => sensible.clone(),
        Configs::All => sensible.iter().copied().chain(others).collect(),
        Configs::Some(0) => Vec::new(),
        Configs::Some(count) => {
            let order = |config: &GemmConfig| hash(3, &format!("{:?} {config}", task.shape));
            // The likeliest first, then a draw of the rest, then some that are out of proportion.
            let (head, tail) = sensible.split_at(sensible.len().min(count / 3));
            let mut tail = tail.to_vec();
            tail.sort_by_key(order);
            tail.truncate((count - count / 6).saturating_sub(head.len()));
            let mut odd: Vec<_> = others
                .filter(|config| time_s(config) < MOST_TIMES_BEST * best_s)
                .collect();
            odd.sort_by_key(order);
            odd.truncate(count - head.len() - tail.len());
            head.iter().copied().chain(tail).chain(odd).collect()
        }
    };
    let energy_share = |config: &GemmConfig| {
        let weight = if time_s(config) < CLOSE * best_s {
            CLOSE_WEIGHT
        } else {
            FAR_WEIGHT
        };
        weight * task.energy_share
    };
    chosen
        .into_iter()
        .map(|config| (config, energy_share(&config)))
        .collect()
}

/// Whether the row's energy is measured too: drawn by its key, so that every run draws alike.
pub(crate) fn draws_energy(seed: u64, row: &Row, energy_share: f64) -> bool {
    let draw = hash(seed, &row.key()) as f64 / u64::MAX as f64;
    draw < energy_share
}

/// Share of a float product's rows with energy: more of those like the project's own.
pub(crate) fn float_share(task: &ShapeTask, case: &FloatCase) -> f64 {
    let plain = case.layout == Layout::Nt && case.blend == (1.0, 0.0);
    task.energy_share * if plain { CLOSE_WEIGHT } else { FAR_WEIGHT }
}

pub(crate) fn problem(task: &ShapeTask) -> GemmProblem {
    let (m, n, k) = task.shape;
    let output = match task.output {
        "f32" => Output::F32,
        "f16" => Output::F16,
        _ => Output::Bf16,
    };
    GemmProblem {
        shape: GemmShape { m, n, k },
        group: task.group_size,
        output,
    }
}

pub(crate) fn w4a8_row(task: &ShapeTask, problem: &GemmProblem, config: GemmConfig, info: &GpuInfo) -> Row {
    let geometry = config.geometry(problem, info);
    let variant = config.variant;
    let mut row = Row::blank(variant.kernel(), task.shape);
    row.config = config.to_string();
    row.group_size = task.group_size;
    row.output = task.output.to_owned();
    (row.tile_m, row.tile_n, row.tile_k) = (variant.tile_m(), variant.tile_n(), 128);
    (row.stages, row.split_k) = match variant {
        Variant::Gemm(gemm) | Variant::FloatScales(gemm) => {
            (gemm.stages(problem.group, problem.output), gemm.split_k)
        }
        Variant::Gemv(gemv) => (gemv.depth, gemv.warps),
        Variant::Ampere(ampere) => (ampere.stages, 1),
    };
    row.threads = variant.threads();
    row.cluster = geometry.launch.cluster as usize;
    row.cut = cut_of(config.split);
    row.ctas = geometry.launch.grid[0] as usize;
    row.shared_bytes = geometry.launch.shared_bytes;
    row
}

fn cut_of(split: Split) -> Cut {
    match split {
        Split::Whole => Cut::Whole,
        Split::Tail => Cut::Tail,
        Split::All => Cut::All,
    }
}

pub(crate) fn int8_row(task: &ShapeTask) -> Row {
    let mut row = Row::blank("cublaslt_int8", task.shape);
    row.output = "i32".to_owned();
    row
}

pub(crate) fn kind_of(kernel: FloatKernel) -> CublasType {
    match kernel {
        FloatKernel::CublasBf16 => CublasType::Bf16,
        FloatKernel::CublasF16 => CublasType::F16,
        FloatKernel::CublasF32 | FloatKernel::Tiled(_) => CublasType::F32,
    }
}

pub(crate) fn output_of(kind: CublasType) -> Output {
    match kind {
        CublasType::F32 => Output::F32,
        CublasType::F16 => Output::F16,
        CublasType::Bf16 => Output::Bf16,
    }
}

pub(crate) fn float_row(shape: (usize, usize, usize), case: &FloatCase) -> Row {
    let (kernel, output) = match case.kernel {
        FloatKernel::CublasBf16 => ("cublas_bf16", "bf16"),
        FloatKernel::CublasF16 => ("cublas_f16", "f16"),
        FloatKernel::CublasF32 => ("cublas_f32", "f32"),
        FloatKernel::Tiled(_) => ("sgemm_tiled", "f32"),
    };
    let mut row = Row::blank(kernel, shape);
    row.layout = case.layout;
    (row.alpha, row.beta) = (f64::from(case.blend.0), f64::from(case.blend.1));
    row.output = output.to_owned();
    if let FloatKernel::Tiled(tile) = case.kernel {
        row.config = format!("tile{tile}");
        (row.tile_m, row.tile_n, row.tile_k) = (tile, tile, tile);
        (row.stages, row.cluster, row.split_k) = (1, 1, 1);
        row.threads = tile * tile;
    }
    row
}

pub(crate) fn set_tiled(row: &mut Row, tiled: &SgemmTiled, device: &Gpu) -> Result<(), CudaError> {
    let kernel = tiled.kernel();
    row.ctas = tiled.geometry((row.m, row.n))?.grid[0] as usize;
    row.shared_bytes = tiled.shared_bytes();
    row.registers = kernel.num_registers() as usize;
    row.ctas_per_sm = kernel.blocks_per_sm(row.threads, 0)?;
    set_occupancy(row, device);
    Ok(())
}

/// Occupancy and waves of a row whose CTAs are known.
pub(crate) fn set_occupancy(row: &mut Row, device: &Gpu) {
    // A CTA's threads count in whole warps.
    row.occupancy = (row.ctas_per_sm * row.threads.next_multiple_of(32)) as f64 / SM_THREADS;
    let resident = row.ctas_per_sm * device.info().num_sms;
    row.waves = row.ctas as f64 / resident.max(1) as f64;
}

pub(crate) fn transposes(layout: Layout) -> Transposes {
    match layout {
        Layout::Nn => Transposes { a: false, b: false },
        Layout::Nt => Transposes { a: false, b: true },
        Layout::Tn => Transposes { a: true, b: false },
        Layout::Tt => Transposes { a: true, b: true },
    }
}

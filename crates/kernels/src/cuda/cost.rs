//! An analytic estimate of a product's time: what the tensor cores, the unpacking, the memory and the rounds of tiles
//! allow. It ranks the table's rows; its constants are the chip's where nothing else is said, and fitted where they say.

use super::config::{Cost, GemmConfig, GemmProblem, Split, Variant};
use super::device::DeviceInfo;
use super::gemv::GemvSm90;
use super::packing::{BLOCK_K, BLOCK_N};
use super::sm80::GemmSm80;
use super::sm90::{GemmSm90, resident_ctas};

/// The estimate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Analytic;

/// Share of the memory's peak that a copy reaches (4.3 of 4.9 TB/s on an H200).
const MEMORY_SHARE: f64 = 0.88;
/// int8 multiply-adds of a multiprocessor's tensor cores in a cycle, Hopper.
const MACS_PER_CYCLE: f64 = 4096.0;
/// Cycles to unpack 64 x 128 weights: the INT32 pipe's half rate, 14 instructions a scheduler for 64 x 32.
const UNPACK_CYCLES: f64 = 112.0;
/// Barriers and addresses of a step, cycles.
const STEP_CYCLES: f64 = 60.0;
/// Bytes a multiprocessor gets from the second-level cache in a cycle.
const L2_BYTES_PER_CYCLE: f64 = 48.0;
/// From asking for bytes to having them, under load, seconds.
const LATENCY_S: f64 = 1.1e-6;
/// Start and end of a kernel, seconds.
const LAUNCH_S: f64 = 2.0e-6;
/// Cycles to write a tile's element out.
const EPILOGUE_CYCLES: f64 = 0.06;
/// Handing the sums of a cut tile over through memory, seconds.
const MEETING_S: f64 = 3.0e-6;
/// Handing sums over inside a cluster, seconds.
const EXCHANGE_S: f64 = 0.7e-6;

impl Cost for Analytic {
    fn time_s(&self, problem: &GemmProblem, config: &GemmConfig, device: &DeviceInfo) -> f64 {
        let work_s = match &config.variant {
            Variant::Gemm(gemm) => tiles_s(problem, config, gemm, device),
            Variant::Gemv(gemv) => strips_s(problem, gemv, device),
            Variant::Ampere(ampere) => ampere_s(problem, ampere, device),
        };
        LAUNCH_S + memory_s(problem, device).max(work_s)
    }
}

/// Every byte once.
fn memory_s(problem: &GemmProblem, device: &DeviceInfo) -> f64 {
    let shape = problem.shape;
    let weights =
        shape.n as f64 * shape.k as f64 * problem.group.block_bytes() as f64 / (BLOCK_N * BLOCK_K) as f64;
    let tokens = shape.m as f64 * (shape.k + shape.n * problem.output.size_bytes()) as f64;
    (weights + tokens) / (device.memory_bytes_per_s * MEMORY_SHARE)
}

/// The rounds of tiles of the busiest multiprocessor.
fn tiles_s(problem: &GemmProblem, config: &GemmConfig, gemm: &GemmSm90, device: &DeviceInfo) -> f64 {
    let geometry = config.geometry(problem, device);
    let resident = resident_ctas(device.num_sms, gemm.cluster_ctas()) as f64;
    let running = f64::from(geometry.launch.grid[0]).min(resident);
    let k_blocks = problem.k_blocks() as f64;
    let parts = gemm.split_k as f64;
    let whole = (geometry.tiles - geometry.cut_tiles) as f64;
    let cut = geometry.cut_tiles as f64;
    let rounds = (whole * parts / running).ceil();
    let steps = rounds * (k_blocks / parts).ceil() + (cut * k_blocks / running).ceil();
    let meeting_s = match config.split {
        Split::Whole if gemm.split_k > 1 => EXCHANGE_S * rounds,
        Split::Whole => 0.0,
        Split::Tail | Split::All => MEETING_S,
    };
    let written = rounds / parts + (cut / running).ceil();
    let tile = (gemm.tile_m * gemm.tile_n()) as f64;
    let epilogue_s = written * tile * EPILOGUE_CYCLES / device.clock_hz;
    steps * step_s(problem, gemm, device) + epilogue_s + meeting_s
}

/// One slot of the ring: 128 columns of K of one tile.
fn step_s(problem: &GemmProblem, gemm: &GemmSm90, device: &DeviceInfo) -> f64 {
    let blocks = (gemm.warp_groups * gemm.subtiles) as f64;
    let tensor = blocks * (gemm.tile_m * BLOCK_N * BLOCK_K) as f64 / MACS_PER_CYCLE;
    let unpack = blocks * UNPACK_CYCLES;
    let tokens = (gemm.tile_m * BLOCK_K / gemm.cluster) as f64;
    let bytes = tokens + blocks * problem.group.block_bytes() as f64;
    // The two overlap, but not fully: warp groups wait for each other at the ends.
    let compute = tensor.max(unpack) + 0.15 * tensor.min(unpack) + STEP_CYCLES;
    let cycles = compute.max(bytes / L2_BYTES_PER_CYCLE);
    // Slots in flight bound what latency lets through.
    let in_flight = (gemm.stages(problem.group, problem.output) - 1) as f64;
    (cycles / device.clock_hz).max(LATENCY_S / in_flight)
}

/// The strips of the busiest multiprocessor.
fn strips_s(problem: &GemmProblem, gemv: &GemvSm90, device: &DeviceInfo) -> f64 {
    let strips = problem.shape.n.div_ceil(gemv.tile_n()) as f64;
    let places = (device.num_sms * gemv.ctas) as f64;
    let rounds = (strips / places).ceil() * gemv.ctas as f64;
    let block_bytes = problem.group.block_bytes() as f64 / 4.0;
    let bytes = rounds * problem.k_blocks() as f64 * block_bytes;
    let in_flight = (gemv.ctas * gemv.warps * gemv.depth) as f64 * block_bytes;
    bytes * (LATENCY_S / in_flight).max(1.0 / (L2_BYTES_PER_CYCLE * device.clock_hz))
}

/// Rounds of tiles at the rate of mma.sync, half of wgmma's.
fn ampere_s(problem: &GemmProblem, ampere: &GemmSm80, device: &DeviceInfo) -> f64 {
    let shape = problem.shape;
    let tiles = shape.m.div_ceil(ampere.tile_m) * shape.n.div_ceil(ampere.tile_n());
    let resident = (device.shared_bytes / ampere.shared_bytes(problem.group)).clamp(1, 4);
    let rounds = tiles.div_ceil(device.num_sms * resident) * resident;
    let tensor = (ampere.tile_m * ampere.tile_n() * BLOCK_K) as f64 / (MACS_PER_CYCLE / 2.0);
    let unpack = (ampere.tile_n() / BLOCK_N * ampere.warps_m) as f64 * UNPACK_CYCLES;
    let step_s = (tensor + unpack + STEP_CYCLES) / device.clock_hz;
    let latency_s = LATENCY_S / (resident * (ampere.stages - 1)) as f64;
    (rounds * problem.k_blocks()) as f64 * step_s.max(latency_s)
}

//! An analytic estimate of a product's time: what the tensor cores, the unpacking, the memory and the rounds of tiles
//! allow. Good enough to rank the table's rows; the figures are the machine's own except where a comment says otherwise.

use super::config::{Cost, GemmConfig, GemmProblem, Split};
use super::device::DeviceInfo;
use super::packing::{BLOCK_K, BLOCK_N};

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
/// Cycles to write a tile's element out, all threads of a warp group together.
const EPILOGUE_CYCLES: f64 = 0.06;
/// Handing the sums of a cut tile over, seconds.
const MEETING_S: f64 = 1.5e-6;

impl Cost for Analytic {
    fn time_s(&self, problem: &GemmProblem, config: &GemmConfig, device: &DeviceInfo) -> f64 {
        LAUNCH_S + memory_s(problem, device).max(tiles_s(problem, config, device))
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
fn tiles_s(problem: &GemmProblem, config: &GemmConfig, device: &DeviceInfo) -> f64 {
    let geometry = config.geometry(problem, device);
    let (blocks, k_blocks) = (f64::from(geometry.launch.grid[0]), problem.k_blocks() as f64);
    let whole = (geometry.tiles - geometry.cut_tiles) as f64;
    let cut = geometry.cut_tiles as f64;
    let steps = (whole / blocks).ceil() * k_blocks + (cut * k_blocks / blocks).ceil();
    let meeting_s = match config.split {
        Split::Whole => 0.0,
        Split::Tail | Split::All => MEETING_S,
    };
    let written = ((whole + cut) / blocks).ceil().max(1.0);
    let tile = (config.variant.tile_m * config.variant.tile_n()) as f64;
    let epilogue_s = written * tile * EPILOGUE_CYCLES / device.clock_hz;
    steps * step_s(problem, config, device) + epilogue_s + meeting_s
}

/// One slot of the ring: 128 columns of K of one tile.
fn step_s(problem: &GemmProblem, config: &GemmConfig, device: &DeviceInfo) -> f64 {
    let variant = config.variant;
    let subtiles = (variant.warp_groups * variant.subtiles) as f64;
    let tensor = subtiles * (variant.tile_m * BLOCK_N * BLOCK_K) as f64 / MACS_PER_CYCLE;
    let unpack = subtiles * UNPACK_CYCLES;
    let bytes = variant.step_bytes(problem.group) as f64;
    // The two overlap, but not fully: warp groups wait for each other at the ends.
    let compute = tensor.max(unpack) + 0.15 * tensor.min(unpack) + STEP_CYCLES;
    let cycles = compute.max(bytes / L2_BYTES_PER_CYCLE);
    // Slots in flight bound what latency lets through.
    let in_flight = (variant.stages(problem.group, problem.output) - 1).max(1) as f64;
    (cycles / device.clock_hz).max(LATENCY_S / in_flight)
}

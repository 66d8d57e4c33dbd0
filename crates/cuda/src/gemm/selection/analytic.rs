//! An analytic estimate of a product's time: what the tensor cores, the unpacking, the memory and the rounds of tiles
//! allow. It ranks the table's rows. Its constants began as the chip's own and were then fitted to 1,400 timings on an H200
//! (eight LLM shapes, M = 1 to 4,096): what it chooses there is 1.3 % slower than the best on average, 7 % at worst.

use super::cost::Cost;
use crate::driver::GpuInfo;
use crate::gemm::kernels::{GemmConfig, GemmSm80, GemmSm90, GemvSm90, Split, Variant};
use crate::gemm::operands::{BLOCK_K, BLOCK_N, block_bytes};
use crate::gemm::problem::GemmProblem;

/// The estimate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Analytic;

/// Share of the memory's peak that weights arrive at.
const MEMORY_SHARE: f64 = 0.905;
/// int8 multiply-adds of a multiprocessor's tensor cores in a cycle, Hopper.
const MACS_PER_CYCLE: f64 = 4096.0;
/// Cycles to unpack 64 x 128 weights and multiply them by few tokens.
const UNPACK_CYCLES: f64 = 159.3;
/// Share of the shorter of unpacking and multiplying that the longer does not hide.
const HIDDEN_BADLY: f64 = 0.217;
/// Barriers and addresses of a step, cycles.
const STEP_CYCLES: f64 = 172.7;
/// Bytes a multiprocessor gets from the second-level cache in a cycle, and how much dearer activations are.
const L2_BYTES_PER_CYCLE: f64 = 38.9;
const TOKEN_SHARE: f64 = 1.35;
/// From asking for bytes to having them, seconds.
const LATENCY_S: f64 = 1.42e-06;
/// Start and end of a kernel, seconds.
const LAUNCH_S: f64 = 2.35e-06;
/// Cycles to write a tile's element out.
const EPILOGUE_CYCLES: f64 = 0.243;
/// Handing the sums of cut tiles over through memory: seconds, and seconds for each byte of sums.
const MEETING_S: f64 = 5.5e-6;
const MEETING_S_PER_BYTE: f64 = 2.0e-12;
/// Handing sums over inside a cluster, seconds.
const EXCHANGE_S: f64 = 9.85e-07;
/// Bytes of weights the strip kernel takes in a cycle: two CTAs a multiprocessor, one, and one with more than 8 tokens.
const STRIP_BYTES_PER_CYCLE: [f64; 3] = [16.2, 12.0, 10.5];
/// Its first bytes, seconds.
const STRIP_START_S: f64 = 0.3e-6;
/// Bytes of activations it copies in a cycle beforehand.
const STRIP_TOKEN_BYTES_PER_CYCLE: f64 = 64.0;

/// Share of wgmma's rate that `gemm_w4a8_sm80` reaches with mma.sync on an H200, its only measured card: two strips a warp, and four.
const MMA_SHARE: [f64; 2] = [0.30, 0.35];
/// A warp's part of a block's copies and barriers, seconds, where products are short.
const AMPERE_WARP_STEP_S: f64 = 9e-8;
/// From its start to a CTA's first slot, seconds.
const AMPERE_FILL_S: f64 = 2e-6;
/// Meeting in the workspace: seconds, and seconds for each byte of sums.
const AMPERE_MEETING_S: f64 = 0.3e-6;
const AMPERE_MEETING_S_PER_BYTE: f64 = 3.5e-13;

impl Cost for Analytic {
    fn time_s(&self, problem: &GemmProblem, config: &GemmConfig, gpu: &GpuInfo) -> f64 {
        let work_s = match &config.variant {
            Variant::Gemm(gemm) | Variant::FloatScales(gemm) => tiles_s(problem, config, gemm, gpu),
            Variant::Gemv(gemv) => strips_s(problem, gemv, gpu),
            Variant::Ampere(ampere) => ampere_s(problem, config, ampere, gpu),
        };
        LAUNCH_S + memory_s(problem, gpu).max(work_s)
    }
}

/// Bytes of the packed weights.
fn weight_bytes(problem: &GemmProblem) -> f64 {
    let elements = problem.shape.n as f64 * problem.shape.k as f64;
    elements * block_bytes(problem.group) as f64 / (BLOCK_N * BLOCK_K) as f64
}

/// Bytes a second from memory.
fn memory_rate(gpu: &GpuInfo) -> f64 {
    gpu.memory_bytes_per_s * MEMORY_SHARE
}

/// Every byte once.
fn memory_s(problem: &GemmProblem, gpu: &GpuInfo) -> f64 {
    let shape = problem.shape;
    let tokens = shape.m as f64 * (shape.k + shape.n * problem.output.size_bytes()) as f64;
    (weight_bytes(problem) + tokens) / memory_rate(gpu)
}

/// The rounds of tiles of the busiest multiprocessor.
fn tiles_s(problem: &GemmProblem, config: &GemmConfig, gemm: &GemmSm90, gpu: &GpuInfo) -> f64 {
    let geometry = config.geometry(problem, gpu);
    let running = f64::from(geometry.launch.grid[0]);
    let (k_blocks, parts) = (problem.k_blocks() as f64, gemm.split_k as f64);
    let (whole, cut) = (
        (geometry.tiles - geometry.cut_tiles) as f64,
        geometry.cut_tiles as f64,
    );
    let rounds = (whole * parts / running).ceil();
    let steps = rounds * (k_blocks / parts).ceil() + (cut * k_blocks / running).ceil();
    let sum_bytes = running * (4 * gemm.tile_m * gemm.tile_n()) as f64;
    let exchange_s = if gemm.split_k > 1 {
        rounds * EXCHANGE_S
    } else {
        0.0
    };
    let meeting_s = match config.split {
        Split::Whole => exchange_s,
        Split::Tail | Split::All => exchange_s + MEETING_S + sum_bytes * MEETING_S_PER_BYTE,
    };
    let written = rounds / parts + (cut / running).ceil();
    let tile = (gemm.tile_m * gemm.tile_n()) as f64;
    let epilogue_s = written * tile * EPILOGUE_CYCLES / gpu.clock_hz;
    steps * step_s(problem, gemm, running, gpu) + epilogue_s + meeting_s
}

/// One slot of the ring: 128 columns of K of one tile, while `running` CTAs share the memory.
fn step_s(problem: &GemmProblem, gemm: &GemmSm90, running: f64, gpu: &GpuInfo) -> f64 {
    let blocks = (gemm.warp_groups * gemm.subtiles) as f64;
    let tensor = blocks * (gemm.tile_m * BLOCK_N * BLOCK_K) as f64 / MACS_PER_CYCLE;
    let unpack = blocks * UNPACK_CYCLES;
    let compute = tensor.max(unpack) + HIDDEN_BADLY * tensor.min(unpack) + STEP_CYCLES;
    let weights = blocks * block_bytes(problem.group) as f64;
    let tokens = (gemm.tile_m * BLOCK_K / gemm.cluster) as f64;
    let cycles = compute.max((weights + TOKEN_SHARE * tokens) / L2_BYTES_PER_CYCLE);
    // Weights that one token tile reads come from memory every time.
    let stream_s = match problem.shape.m <= gemm.tile_m {
        true => weights * running / memory_rate(gpu),
        false => 0.0,
    };
    // Slots in flight bound what latency lets through.
    let in_flight = (gemm.stages(problem.group, problem.output) - 1) as f64;
    (cycles / gpu.clock_hz).max(stream_s).max(LATENCY_S / in_flight)
}

/// The strips of the busiest multiprocessor.
fn strips_s(problem: &GemmProblem, gemv: &GemvSm90, gpu: &GpuInfo) -> f64 {
    let strips = problem.shape.n.div_ceil(gemv.tile_n());
    let rounds = strips.div_ceil(gpu.num_sms * gemv.ctas) * gemv.ctas;
    let block_bytes = block_bytes(problem.group) as f64 / 4.0;
    let bytes = (rounds * problem.k_blocks()) as f64 * block_bytes;
    let in_flight = (gemv.ctas * gemv.warps * gemv.depth) as f64 * block_bytes;
    let bytes_per_cycle = match (gemv.ctas, gemv.tile_m) {
        (2.., _) => STRIP_BYTES_PER_CYCLE[0],
        (_, ..=8) => STRIP_BYTES_PER_CYCLE[1],
        _ => STRIP_BYTES_PER_CYCLE[2],
    };
    let rate = (in_flight / LATENCY_S).min(bytes_per_cycle * gpu.clock_hz);
    let tokens = (gemv.tile_m * problem.shape.k) as f64 / (STRIP_TOKEN_BYTES_PER_CYCLE * gpu.clock_hz);
    STRIP_START_S + bytes / rate + tokens
}

/// Rounds of tiles at the rate of mma.sync; CTAs that share a multiprocessor share it, but each waits for its own copies.
fn ampere_s(problem: &GemmProblem, config: &GemmConfig, ampere: &GemmSm80, gpu: &GpuInfo) -> f64 {
    let geometry = config.geometry(problem, gpu);
    let ctas = geometry.launch.grid[0] as usize;
    let resident = ampere.resident(problem.group, gpu);
    let rounds = ctas.div_ceil(gpu.num_sms * resident);
    let beside = resident.min(ctas.div_ceil(gpu.num_sms));
    let macs = (beside * ampere.tile_m * ampere.tile_n() * BLOCK_K) as f64;
    let share = MMA_SHARE[usize::from(ampere.strips > 2)];
    let tensor_s = macs / (MACS_PER_CYCLE * share * gpu.clock_hz);
    let step_s = tensor_s.max((ampere.threads() / 32) as f64 * AMPERE_WARP_STEP_S);
    let blocks = (problem.k_blocks() * geometry.tiles).div_ceil(ctas);
    let sum_bytes = (4 * ctas * ampere.tile_m * ampere.tile_n()) as f64;
    let meeting_s = match geometry.cut_tiles {
        0 => 0.0,
        _ => AMPERE_MEETING_S + sum_bytes * AMPERE_MEETING_S_PER_BYTE,
    };
    AMPERE_FILL_S + (rounds * blocks) as f64 * step_s + meeting_s
}

#[cfg(test)]
mod tests {
    use dualgrain_format::{GemmShape, GroupSize};

    use super::*;
    use crate::gemm::problem::Output;
    use crate::gemm::selection::candidates::enumerate;

    /// With the read rate that the constants were fitted at.
    fn h200() -> GpuInfo {
        GpuInfo {
            memory_bytes_per_s: 4.917e12,
            ..GpuInfo::h200()
        }
    }

    fn problem(m: usize, n: usize, k: usize) -> GemmProblem {
        GemmProblem {
            shape: GemmShape { m, n, k },
            group: GroupSize::Along(128),
            output: Output::F16,
        }
    }

    #[test]
    fn estimates_are_finite_and_never_beat_the_memory() {
        for m in [1, 3, 17, 64, 200, 5_000] {
            for (n, k) in [(1, 1), (4_096, 11_008), (57_344, 8_192), (511, 131_071)] {
                let problem = problem(m, n, k);
                for config in enumerate(&problem, &h200()) {
                    let time_s = Analytic.time_s(&problem, &config, &h200());
                    assert!(
                        time_s.is_finite() && time_s > memory_s(&problem, &h200()),
                        "{config}"
                    );
                }
            }
        }
    }
}

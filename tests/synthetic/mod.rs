//! A measured set of a card that does not exist: a roofline with rounds of tiles, launches and noise, so that verbs over
//! measurements can be run where there is neither a card nor a measured set. Every draw comes from one seed.

use dualgrain_format::GroupSize;
use std::path::Path;

use dualgrain_device::cases::Random;
use dualgrain_perf::{Cut, Layout, Machine, MachineKind, Manifest, PROTOCOL, QualityFlag, Row, RowWriter};

fn unit(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1_u64 << 53) as f64
}

/// About 1, 2 % either way.
fn noise(random: &mut Random) -> f64 {
    (0.04 * (unit(random) + unit(random) - 1.0)).exp()
}

fn log_between(random: &mut Random, low: f64, high: f64) -> usize {
    (low * (high / low).powf(unit(random))).round() as usize
}

/// The machine.
pub fn manifest() -> Manifest {
    Manifest {
        protocol: PROTOCOL,
        machine: Machine {
            name: "a card of the imagination".to_owned(),
            kind: MachineKind::Gpu,
            num_units: 132,
            clock_hz: 1.98e9,
            read_bytes_per_s: 4.2e12,
            last_level_cache_bytes: 60 << 20,
            memory_bytes: 140 << 30,
            shared_bytes: 232_448,
            capability: 90,
            int8_ops_per_s: 1.4e15,
            half_ops_per_s: 7e14,
            float_ops_per_s: 5e13,
            idle_power_w: Some(80.0),
            power_limit_w: Some(700.0),
            small_ops: None,
            timed_models: Vec::new(),
        },
        driver: "none".to_owned(),
        version: "test".to_owned(),
        date: "2026-11-22".to_owned(),
        method: "computed, not measured".to_owned(),
        operands: "none".to_owned(),
    }
}

/// A kernel in a size, and how good it is.
struct Config {
    kernel: &'static str,
    name: String,
    tile: (usize, usize),
    group_size: GroupSize,
    bits: (f64, f64),
    ops_per_s: f64,
    ctas_per_sm: usize,
    threads: usize,
    shared_bytes: usize,
}

fn configs() -> Vec<Config> {
    let mut configs = Vec::new();
    for (tile_m, tile_n) in [(8, 64), (16, 128), (32, 128), (64, 128), (128, 128), (256, 128)] {
        for kernel in ["gemm_w4a8_sm90", "gemm_w4a8_sm80"] {
            configs.push(Config {
                kernel,
                name: format!("m{tile_m}n{tile_n}"),
                tile: (tile_m, tile_n),
                group_size: GroupSize::Along(128),
                bits: (8.0, 4.0),
                ops_per_s: if kernel.ends_with("90") { 1.1e15 } else { 5e14 }
                    * (tile_m as f64 / 256.0).powf(0.15),
                ctas_per_sm: 1 + 64 / tile_m.max(32),
                threads: 384,
                shared_bytes: 60_000 + 600 * tile_m,
            });
        }
    }
    for (kernel, bits, ops_per_s) in [("cublas_bf16", 16.0, 6.5e14), ("cublaslt_int8", 8.0, 1.2e15)] {
        configs.push(Config {
            kernel,
            name: String::new(),
            tile: (128, 256),
            group_size: GroupSize::WholeRow,
            bits: (bits, bits),
            ops_per_s,
            ctas_per_sm: 1,
            threads: 256,
            shared_bytes: 0,
        });
    }
    configs
}

fn tiled(tile: usize) -> Config {
    Config {
        kernel: "sgemm_tiled",
        name: format!("t{tile}"),
        tile: (tile, tile),
        group_size: GroupSize::WholeRow,
        bits: (32.0, 32.0),
        // Best at 16, worse with lone or many threads.
        ops_per_s: 6e12 * (tile as f64 / 16.0).min(1.0).powf(1.4)
            / (1.0 + 0.02 * tile.saturating_sub(16) as f64),
        ctas_per_sm: (2048 / (tile * tile).max(64)).clamp(1, 32),
        threads: tile * tile,
        shared_bytes: 8 * tile * tile,
    }
}

fn row(config: &Config, shape: [usize; 3], layout: Layout, with_energy: bool, random: &mut Random) -> Row {
    let machine = manifest().machine;
    let [m, n, k] = shape;
    let (tiles_m, tiles_n) = (m.div_ceil(config.tile.0), n.div_ceil(config.tile.1));
    let ctas = tiles_m * tiles_n;
    let waves = ctas as f64 / (machine.num_units * config.ctas_per_sm) as f64;
    let padded = 2.0 * (tiles_m * config.tile.0) as f64 * (tiles_n * config.tile.1) as f64 * k as f64;
    let compute_s = padded / config.ops_per_s * waves.ceil() / waves.max(1e-9).min(waves.ceil());
    let bytes =
        (m * k) as f64 * config.bits.0 / 8.0 + (n * k) as f64 * config.bits.1 / 8.0 + (2 * m * n) as f64;
    let memory_s = bytes / machine.read_bytes_per_s / 0.85;
    let slower = match layout {
        Layout::Nt => 1.0,
        Layout::Nn => 1.05,
        Layout::Tn => 1.1,
        Layout::Tt => 1.4,
    };
    let time = (2e-6 + compute_s.max(memory_s) * slower) * noise(random);
    let busy = (2.0 * m as f64 * n as f64 * k as f64 / time / config.ops_per_s).min(1.0);
    let reading = (bytes / time / machine.read_bytes_per_s).min(1.0);
    let power = (90.0 + 420.0 * busy + 180.0 * reading).min(700.0) * noise(random);
    Row {
        kernel: config.kernel.to_owned(),
        config: config.name.clone(),
        m,
        n,
        k,
        group_size: config.group_size,
        layout,
        alpha: 1.0,
        beta: 0.0,
        output: if config.kernel == "sgemm_tiled" {
            "f32"
        } else {
            "bf16"
        }
        .to_owned(),
        tile_m: config.tile.0,
        tile_n: config.tile.1,
        tile_k: 64,
        stages: 4,
        threads: config.threads,
        cluster: 1,
        split_k: 1,
        cut: Cut::Whole,
        ctas,
        ctas_per_sm: config.ctas_per_sm,
        occupancy: ((config.threads * config.ctas_per_sm) as f64 / 2048.0).min(1.0),
        registers: 64,
        shared_bytes: config.shared_bytes,
        waves,
        verified: "freivalds".to_owned(),
        flag: None,
        time_s: Some(time),
        time_q1_s: Some(0.99 * time),
        time_q3_s: Some(1.01 * time),
        runs: 9,
        power_w: with_energy.then_some(power),
        energy_j: with_energy.then_some(power * time),
        energy_window_s: with_energy.then_some(0.5),
        energy_runs: if with_energy { 100 } else { 0 },
        sm_clock_hz: Some(1.98e9),
        memory_clock_hz: None,
        temperature_c: Some(50.0),
        throttle_reasons: Some(0),
    }
}

/// `num_shapes` sampled shapes in every configuration, and the tiles of the naive kernel on a few.
pub fn rows(num_shapes: usize) -> Vec<Row> {
    let random = &mut Random(7);
    let mut rows = Vec::new();
    for index in 0..num_shapes {
        let shape = [
            log_between(random, 1.0, 8192.0),
            64 * log_between(random, 4.0, 800.0),
            64 * log_between(random, 4.0, 400.0),
        ];
        for config in configs() {
            rows.push(row(&config, shape, Layout::Nt, index % 4 == 0, random));
        }
    }
    for (index, side) in [256, 512, 1024, 2048, 8192].into_iter().enumerate() {
        for tile in 1..=32 {
            for layout in Layout::ALL {
                rows.push(row(&tiled(tile), [side; 3], layout, index % 2 == 0, random));
            }
        }
    }
    let flags = [QualityFlag::BelowResolution, QualityFlag::Unsteady];
    for (row, flag) in rows.iter_mut().step_by(97).zip(flags.into_iter().cycle()) {
        row.flag = Some(flag);
    }
    rows
}

/// The set on disk.
pub fn write(folder: &Path, num_shapes: usize) {
    let mut writer = RowWriter::open(folder, &manifest()).unwrap();
    for row in rows(num_shapes) {
        writer.append(&row).unwrap();
    }
}

//! A machine that does not exist: rows made from a formula with rounds of tiles, memory, a power limit and noise, so that
//! tests know what there is to learn.

use dualgrain_format::GroupSize;
use dualgrain_perf::{Cut, Dataset, Layout, Machine, MachineKind, Manifest, PROTOCOL, Row};

/// The machine, with ceilings like a large card's.
pub fn manifest() -> Manifest {
    Manifest {
        protocol: PROTOCOL,
        machine: Machine {
            name: "Formula 100".to_owned(),
            kind: MachineKind::Gpu,
            num_units: 100,
            clock_hz: 1.5e9,
            read_bytes_per_s: 2e12,
            last_level_cache_bytes: 40 << 20,
            memory_bytes: 80 << 30,
            shared_bytes: 160 << 10,
            capability: 80,
            int8_ops_per_s: 6e14,
            half_ops_per_s: 3e14,
            float_ops_per_s: 2e13,
            idle_power_w: Some(60.0),
            power_limit_w: Some(400.0),
            small_ops: None,
            timed_models: Vec::new(),
        },
        driver: "none".to_owned(),
        version: "test".to_owned(),
        date: "2026-11-22".to_owned(),
        method: "a formula".to_owned(),
        operands: "none".to_owned(),
    }
}

/// Numbers that look random.
pub struct Noise(pub u64);

impl Noise {
    /// From 0 to 1.
    pub fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Between two numbers, evenly in the logarithm.
    pub fn size(&mut self, least: f64, most: f64) -> usize {
        (least.ln() + self.next() * (most / least).ln()).exp().round() as usize
    }
}

/// Tiles of the made-up 4-bit kernel.
pub const TILES: [(usize, usize, usize); 8] = [
    (16, 64, 1),
    (16, 128, 2),
    (32, 128, 1),
    (64, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 1),
    (256, 128, 1),
];

/// One row of the made-up kernel.
pub fn row(
    (m, n, k): (usize, usize, usize),
    (tile_m, tile_n, split_k): (usize, usize, usize),
    noise: f64,
) -> Row {
    let machine = manifest().machine;
    let tiles = m.div_ceil(tile_m) * n.div_ceil(tile_n) * split_k;
    let waves = tiles as f64 / machine.num_units as f64;
    let bytes = (n * k) as f64 * 0.512 + (m * k) as f64 + (2 * m * n) as f64;
    let rate = machine.int8_ops_per_s / machine.num_units as f64;
    let small = 1.0 - 0.4 / (1.0 + (tile_m * tile_n) as f64 / 8192.0);
    let tile_s =
        2.0 * (tile_m * tile_n * k) as f64 / split_k as f64 / (rate * small) + 0.4e-6 * split_k as f64;
    let compute_s = waves.ceil() * tile_s;
    let memory_s = bytes / machine.read_bytes_per_s / 0.9;
    let time_s = (2.2e-6 + compute_s.max(memory_s) + 0.15 * compute_s.min(memory_s)) * noise;
    let ops = 2.0 * (m * n * k) as f64;
    let busy = ops / time_s / machine.int8_ops_per_s;
    let moved = bytes / time_s / machine.read_bytes_per_s;
    let power_w = (60.0 + 250.0 * busy.min(1.0) + 120.0 * moved.min(1.0)) * (1.0 + 0.3 * (noise - 1.0));
    Row {
        kernel: "gemm_w4a8_formula".to_owned(),
        config: format!("m{tile_m}n{tile_n}_k{split_k}"),
        m,
        n,
        k,
        group_size: GroupSize::Along(128),
        layout: Layout::Nt,
        alpha: 1.0,
        beta: 0.0,
        output: "bf16".to_owned(),
        tile_m,
        tile_n,
        tile_k: 128,
        stages: 4,
        threads: 256,
        cluster: 1,
        split_k,
        cut: Cut::Whole,
        ctas: tiles,
        ctas_per_sm: 1,
        occupancy: 0.125,
        registers: 128,
        shared_bytes: 100_000,
        waves,
        verified: "freivalds".to_owned(),
        flag: None,
        time_s: Some(time_s),
        time_q1_s: Some(time_s * 0.99),
        time_q3_s: Some(time_s * 1.01),
        runs: 9,
        power_w: Some(power_w),
        energy_j: Some(power_w * time_s),
        energy_window_s: Some(0.5),
        energy_runs: 1000,
        sm_clock_hz: Some(1.5e9),
        memory_clock_hz: None,
        temperature_c: None,
        throttle_reasons: Some(0),
    }
}

/// All tiles on `shapes` shapes, power on every third.
pub fn set(shapes: usize) -> Dataset {
    let mut noise = Noise(42);
    let mut rows = Vec::new();
    for shape in 0..shapes {
        let sides = (
            noise.size(1.0, 4096.0),
            64 * noise.size(4.0, 512.0),
            64 * noise.size(4.0, 256.0),
        );
        for tile in TILES {
            let mut row = row(sides, tile, 1.0 + 0.02 * (noise.next() - 0.5));
            if shape % 3 != 0 {
                (row.power_w, row.energy_j, row.energy_window_s) = (None, None, None);
            }
            rows.push(row);
        }
    }
    Dataset {
        manifest: manifest(),
        rows,
    }
}

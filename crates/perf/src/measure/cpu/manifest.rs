//! The manifest of a CPU's set: what Linux says of the machine, its measured ceilings, and the method.

use std::time::Duration;

use dualgrain_cpu::{CpuDevice, Isa, available, last_level_cache_bytes};
use dualgrain_format::GroupSize;

use super::op::ProductType;
use super::operands::DrawnOperands;
use super::timed_models::timed_models;
use crate::data::{Manifest, PROTOCOL, Row};
use crate::error::PerfError;
use crate::machine::{Machine, MachineKind};
use crate::measure::date::today;
use crate::measure::options::SweepOptions;
use crate::measure::small_ops;
use crate::product::ops;

/// Share of the free memory that a model which is timed may take.
const SHARE_OF_FREE: f64 = 0.8;
/// Side of the product whose speed stands for the ceiling of floats.
const CEILING_SIDE: usize = 1_024;
/// Models are timed for a quarter of a minute or so: shorter sweeps go without.
const LEAST_BUDGET_FOR_MODELS: Duration = Duration::from_secs(30);

pub(crate) fn manifest(
    name: &str,
    (max_threads, free_bytes): (usize, usize),
    options: &SweepOptions,
) -> Result<Manifest, PerfError> {
    let times_models = options
        .budget
        .is_none_or(|budget| budget >= LEAST_BUDGET_FOR_MODELS);
    let instruction_sets: Vec<&str> = available().into_iter().map(Isa::name).collect();
    Ok(Manifest {
        protocol: PROTOCOL,
        machine: machine(name, max_threads, free_bytes as f64, times_models)?,
        driver: format!("instruction sets {}", instruction_sets.join(" ")),
        version: options.version.clone(),
        date: today(),
        method: "checked at full size (Freivalds; integers modulo 2^32, outputs bit by bit from the sums; small ones against the \
             specification), then wall time: median and quartiles of 5 repetitions of 2.5 ms, weights \
             rotate through copies of 320 MB together (128 at most), the next one named as models name it; energy of all packages by RAPL over 0.3 s, where its \
             counters could be read"
            .to_owned(),
        operands: "4-bit codes uniform, group scales 4..14, zero points 6..9; int8 codes uniform in -127..127; floats nearly \
                   normal (three uniform ones added), mean 0, variance 1"
            .to_owned(),
    })
}

fn machine(
    name: &str,
    max_threads: usize,
    free_bytes: f64,
    times_models: bool,
) -> Result<Machine, PerfError> {
    let isa = available().into_iter().next_back().unwrap_or(Isa::Portable);
    let device = CpuDevice::with_isa(max_threads, isa)?;
    let peak = device.measure_peak()?;
    let float_ops_per_s = float_ceiling(&device)?;
    Ok(Machine {
        name: name.to_owned(),
        kind: MachineKind::Cpu,
        num_units: max_threads,
        clock_hz: clock_hz().unwrap_or(0.0),
        read_bytes_per_s: peak.read_bytes_per_s,
        last_level_cache_bytes: last_level_cache_bytes().unwrap_or(0),
        memory_bytes: meminfo_bytes("MemTotal:").unwrap_or(0),
        shared_bytes: 0,
        capability: 0,
        int8_ops_per_s: peak.int8_ops_per_s.unwrap_or(0.0),
        half_ops_per_s: float_ops_per_s,
        float_ops_per_s,
        idle_power_w: None,
        power_limit_w: None,
        small_ops: Some(small_ops::measure(&device, &small_ops::ON_CPU, None)?),
        timed_models: match times_models {
            true => timed_models(&device, SHARE_OF_FREE * free_bytes)?,
            false => Vec::new(),
        },
    })
}

fn float_ceiling(device: &CpuDevice) -> Result<f64, PerfError> {
    let side = CEILING_SIDE;
    let operands = DrawnOperands::new(ProductType::F32, (side, side, side), GroupSize::Along(128))?;
    let linears = [operands.pack(device)?];
    let (a, x) = operands.upload(device)?;
    let mut row = Row::blank("", (side, side, side));
    operands.measure(&mut row, device, &linears, (&a, &x), None)?;
    Ok(row
        .time_q1_s
        .map_or(0.0, |time_s| ops((side, side, side)) / time_s))
}

/// The highest clock Linux tells of: the limit that is set for the first core, else what the cores run at now.
fn clock_hz() -> Option<f64> {
    let limit = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq");
    let limit_khz: Option<f64> = limit.ok().and_then(|text| text.trim().parse().ok());
    limit_khz.map(|khz| khz * 1e3).or_else(clock_now_hz)
}

fn clock_now_hz() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let clocks = text
        .lines()
        .filter(|line| line.starts_with("cpu MHz"))
        .filter_map(|line| line.split_once(':')?.1.trim().parse::<f64>().ok());
    clocks.fold(None, |most: Option<f64>, clock| {
        Some(most.unwrap_or(0.0).max(clock * 1e6))
    })
}

/// What Linux says of its memory under a name.
pub(crate) fn meminfo_bytes(name: &str) -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<usize>()
        .ok()?
        .checked_mul(1_024)
}

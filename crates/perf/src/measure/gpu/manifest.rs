//! The manifest of a card's set: its ceilings, measured in the same run, and the method.

use std::time::Duration;

use dualgrain_cuda::{
    Arena, CublasType, CudaDevice, Jit, compiler_version, driver_version, read_bytes_per_s,
};

use super::ceilings::{CEILING_SIDE, F32_CEILING_SIDE, float_ceiling, int8_ceiling};
use super::counter::CounterLog;
use super::lag::lag;
use super::libraries::Libraries;
use super::meter::Meter;
use crate::data::{Manifest, PROTOCOL};
use crate::error::PerfError;
use crate::machine::{Machine, MachineKind};
use crate::measure::date::today;
use crate::measure::options::SweepOptions;
use crate::measure::small_ops;
use crate::small_ops::SmallOpRates;

/// How long idle power is watched.
const IDLE_S: f64 = 2.5;

pub(crate) fn manifest(
    options: &SweepOptions,
    jit: &Jit,
    meter: &mut Meter<'_>,
    libraries: &Libraries,
    arena: &mut Arena,
) -> Result<Manifest, PerfError> {
    let (device, info) = (meter.device, meter.device.info());
    // Before anything runs.
    let idle_power_w = meter.idle_power_w(IDLE_S);
    let lag = lag(jit, meter, arena)?;
    let tick_s = meter.tick_s();
    let meter: &Meter<'_> = meter;
    let card = meter.card.as_ref();
    let machine = Machine {
        name: info.name.clone(),
        kind: MachineKind::Gpu,
        num_units: info.num_sms,
        clock_hz: card
            .and_then(|card| card.max_sm_clock_hz().ok())
            .unwrap_or(info.clock_hz),
        read_bytes_per_s: read_bytes_per_s(jit, device, 3)?,
        last_level_cache_bytes: info.l2_bytes,
        memory_bytes: info.memory_bytes,
        shared_bytes: info.shared_bytes,
        capability: (10 * info.capability.0 + info.capability.1) as u32,
        int8_ops_per_s: int8_ceiling(jit, meter, libraries, arena)?,
        half_ops_per_s: float_ceiling(jit, meter, libraries, arena, (CublasType::Bf16, CEILING_SIDE))?,
        float_ops_per_s: float_ceiling(jit, meter, libraries, arena, (CublasType::F32, F32_CEILING_SIDE))?,
        idle_power_w,
        power_limit_w: card.and_then(|card| card.power_limit_w().ok()),
        // A card too small for the cache of this has its other ceilings all the same.
        small_ops: small_op_rates(info.index).ok(),
        timed_models: Vec::new(),
    };
    Ok(Manifest {
        protocol: PROTOCOL,
        machine,
        driver: driver_words(),
        version: options.version.clone(),
        date: today(),
        method: method(tick_s.zip(lag), options.ticks),
        operands: OPERANDS.to_owned(),
    })
}

/// The rates of a card between products.
///
/// # Errors
/// A card that cannot be opened or has too little memory.
pub fn small_op_rates(index: usize) -> Result<SmallOpRates, PerfError> {
    let device = CudaDevice::open(index)?;
    let card = dualgrain_cuda::Nvml::open().and_then(|nvml| nvml.device(device.gpu().info()));
    let counter = card.ok().as_ref().and_then(CounterLog::start);
    let power_of = |start, end| {
        counter
            .as_ref()
            .and_then(|counter| counter.mean_power_w(start, end))
    };
    small_ops::measure(&device, &small_ops::ON_CARD, Some(&power_of))
}

const OPERANDS: &str = "made on the card, every value a hash of its place: 4-bit codes uniform, group scales 4..14, zero \
     points 6..9; int8 codes uniform in -127..127; floats nearly normal (three uniform ones added), mean 0, variance 1";

pub(crate) fn driver_words() -> String {
    let nvml = dualgrain_cuda::Nvml::open().and_then(|nvml| nvml.driver_version());
    let cuda = driver_version().map_or_else(|error| error.to_string(), |(version, _)| version);
    let compiler = compiler_version().map_or_else(|error| error.to_string(), |(version, _)| version);
    format!(
        "driver {}, CUDA {cuda}, NVRTC {compiler}",
        nvml.unwrap_or_else(|_| "unknown".to_owned())
    )
}

fn method(counter: Option<(f64, Duration)>, ticks: usize) -> String {
    let energy = match counter {
        // Rounded: the same words on every card of a kind.
        Some((tick_s, _)) => format!(
            "energy by NVML's counter, which moves every {:.0} ms and is behind by a lag that each run measures with a step of \
             load (20 to 40 ms on an H200): from a movement that shows a moment at least 60 ms after the product began to run over and over, {ticks} movements \
             long, 10 where the card is at its power limit; energy of a product = power * its mean time inside",
            (tick_s * 100.0).round() * 10.0
        ),
        None => "no energy: the driver shows no counter that moves".to_owned(),
    };
    format!(
        "checked at full size (Freivalds; integers modulo 2^32, W4A8 outputs bit by bit against verified sums), then CUDA \
         graphs of 1.3 to 5 ms, weights rotated through copies past the second-level cache, 4 ms warm-up (40 ms where power \
         has to settle), median and quartiles of 5 replays by events (2 where a replay takes over 50 ms; all of the region \
         where energy is measured); {energy}"
    )
}

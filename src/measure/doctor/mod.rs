//! `doctor`: what this machine offers and which kernels run on it.

#[cfg(feature = "cuda")]
mod gpu;

use anyhow::Result;
use serde::Serialize;

use dualgrain_cpu::CpuDevice;
use dualgrain_perf::Rapl;

use crate::cli::arguments::Common;
use crate::cli::terminal::Terminal;
use crate::cli::units::bytes;
#[cfg(feature = "cuda")]
use crate::measure::doctor::gpu::Gpu;
use crate::measure::machine;

#[derive(Serialize)]
struct Report {
    version: &'static str,
    os: &'static str,
    architecture: &'static str,
    cpu: Option<String>,
    cores: usize,
    memory_bytes: Option<u64>,
    memory_available_bytes: Option<u64>,
    instruction_sets: Vec<&'static str>,
    chosen: &'static str,
    forced_by_environment: Option<String>,
    /// Whether the energy of the processors can be read; else why not, and what to do.
    cpu_energy: String,
    gpu: String,
    #[cfg(feature = "cuda")]
    cuda: Gpu,
}

/// Looks and reports; fails only when a forced instruction set is not there.
pub fn run(common: &Common, terminal: &Terminal) -> Result<()> {
    let device = CpuDevice::new(common.threads)?;
    let memory = machine::memory();
    #[cfg(feature = "cuda")]
    let cuda = Gpu::look();
    #[cfg(feature = "cuda")]
    let gpu = cuda.text();
    #[cfg(not(feature = "cuda"))]
    let gpu = "this program was built without the feature `cuda`; everything runs on the CPU".to_owned();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        architecture: std::env::consts::ARCH,
        cpu: machine::cpu_name(),
        cores: machine::cores(),
        memory_bytes: memory.map(|m| m.total_bytes),
        memory_available_bytes: memory.map(|m| m.available_bytes),
        instruction_sets: dualgrain_cpu::available().iter().map(|isa| isa.name()).collect(),
        chosen: device.isa().name(),
        forced_by_environment: std::env::var("DUALGRAIN_BACKEND")
            .ok()
            .filter(|name| !name.is_empty()),
        cpu_energy: cpu_energy(),
        gpu,
        #[cfg(feature = "cuda")]
        cuda,
    };
    terminal.result(&report, &text(&report))
}

fn cpu_energy() -> String {
    match Rapl::open() {
        Ok(rapl) => format!("{} processor packages have a counter (RAPL)", rapl.num_packages()),
        Err(why) => format!("not readable: {why}"),
    }
}

fn text(report: &Report) -> String {
    let shown = |size: Option<u64>| size.map_or("unknown".to_owned(), bytes);
    let forced = match &report.forced_by_environment {
        Some(name) => format!(" (forced by DUALGRAIN_BACKEND={name})"),
        None => String::new(),
    };
    format!(
        "dualgrain {}\n\
         system            {} {}\n\
         processor         {}\n\
         cores             {}\n\
         memory            {} total, {} available\n\
         instruction sets  {}\n\
         kernels           {}{forced}\n\
         energy            {}\n\
         gpu               {}\n",
        report.version,
        report.os,
        report.architecture,
        report.cpu.as_deref().unwrap_or("unknown"),
        report.cores,
        shown(report.memory_bytes),
        shown(report.memory_available_bytes),
        report.instruction_sets.join(", "),
        report.chosen,
        report.cpu_energy,
        report.gpu,
    )
}

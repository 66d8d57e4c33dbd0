//! `bench`: tokens per second of prefill and decoding.

pub mod card;
pub mod case;
pub mod rate;
mod report;
mod row;
pub mod timing;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use dualgrain::engine::Model;
use dualgrain::{AnyDevice, CpuDevice};

use crate::cli::arguments::{Bench, Common};
use crate::cli::interruption::interrupt_flag;
use crate::cli::output_file;
use crate::cli::terminal::Terminal;
use crate::measure::machine;
use crate::run::bench::card::CardMeter;
use crate::run::bench::case::Case;
use crate::run::bench::report::{Machine, Report};
use crate::run::bench::timing::time_case;
use crate::run::model_folder;

/// Times every combination of the counts asked for.
pub fn run(options: &Bench, common: &Common, terminal: &Terminal) -> Result<()> {
    let folder = options.model.as_deref().context("a model folder is needed")?;
    let cases = cases(options);
    // What can not be is refused before seconds or hours of work.
    let config = model_folder::config(folder)?;
    cases.iter().try_for_each(|case| case.check(&config))?;
    if let Some(path) = &options.csv {
        output_file::check(path, output_file::BENCH, options.replacing.replace)?;
        output_file::can_write(path)?;
    }
    let mut bench = Timing {
        options,
        folder,
        terminal,
        interrupted: interrupt_flag()?,
        report: Report::new(folder, &config),
    };
    let outcome = thread_counts(options, common)
        .into_iter()
        .try_for_each(|threads| bench.with_threads(threads, &cases));
    // What was measured before an error or Ctrl-C is not thrown away.
    if !bench.report.rows.is_empty() {
        terminal.result(&bench.report, &bench.report.text())?;
    }
    outcome
}

/// Each number of threads once, in the order asked for.
fn thread_counts(options: &Bench, common: &Common) -> Vec<usize> {
    if options.thread_counts.is_empty() {
        return vec![machine::threads(common.threads)];
    }
    let mut counts = Vec::new();
    for &count in &options.thread_counts {
        if !counts.contains(&count) {
            counts.push(count);
        }
    }
    counts
}

/// Each combination once.
fn cases(options: &Bench) -> Vec<Case> {
    let mut cases = Vec::new();
    for &batch in &options.batch {
        for &prompt_tokens in &options.prompt_tokens {
            for &generate_tokens in &options.generate_tokens {
                let case = Case {
                    batch,
                    prompt_tokens,
                    generate_tokens,
                };
                if !cases.contains(&case) {
                    cases.push(case);
                }
            }
        }
    }
    cases
}

/// A run of `bench`, and what it has found so far.
struct Timing<'a> {
    options: &'a Bench,
    folder: &'a Path,
    terminal: &'a Terminal,
    interrupted: Arc<AtomicBool>,
    report: Report,
}

impl Timing<'_> {
    fn with_threads(&mut self, threads: usize, cases: &[Case]) -> Result<()> {
        machine::warn_of_too_many_threads(threads, self.terminal);
        // The probe's buffer is no memory of the model's, so the peak is counted from here where the system can do that.
        let started = Instant::now();
        let choice = self.options.device.choice;
        let device = model_folder::device(
            choice,
            threads,
            (self.folder, self.options.device.memory),
            self.terminal,
        )?;
        let device_s = started.elapsed().as_secs_f64();
        // What the CPU can do is set beside its own rows alone.
        let on_cpu = device.cpu().is_some();
        if machine::can_forget_peak() {
            if on_cpu {
                self.measure_machine(threads)?;
            }
            machine::forget_peak();
        }
        let timed = self.time_cases(device, device_s, cases);
        let peak = machine::peak_resident_bytes();
        self.report.peak_resident_bytes = self.report.peak_resident_bytes.max(peak);
        if on_cpu && !self.interrupted.load(Ordering::Relaxed) && !self.report.rows.is_empty() {
            self.measure_machine(threads)?;
        }
        self.write_csv()?;
        timed
    }

    /// `device_s` are the seconds that opening the device took: they belong to the load.
    fn time_cases(&mut self, device: Arc<AnyDevice>, device_s: f64, cases: &[Case]) -> Result<()> {
        let memory = (self.options.device.memory, self.terminal);
        for case in cases {
            model_folder::check_memory(&[(self.folder, None)], &device, case.limits(&device), memory)
                .with_context(|| case.text())?;
        }
        let started = Instant::now();
        let model = Arc::new(model_folder::load(self.folder, &device, None)?);
        let load_s = device_s + started.elapsed().as_secs_f64();
        self.report.kernels = device.kernels();
        self.report.device = dualgrain_device::Device::name(&*device);
        self.report.linear_bytes = model.linear_bytes();
        self.report.weight_bytes = model.weight_bytes();
        let meter = CardMeter::new(&device, self.report.is_quantized);
        for (index, case) in cases.iter().enumerate() {
            let detail = format!("{} threads", device.num_threads());
            self.terminal
                .progress("timing", &detail, index as u64, cases.len() as u64);
            self.time(&model, case, &meter, load_s)?;
        }
        Ok(())
    }

    fn time(
        &mut self,
        model: &Arc<Model<AnyDevice>>,
        case: &Case,
        meter: &CardMeter,
        load_s: f64,
    ) -> Result<()> {
        let row = time_case(model, case, self.options.repeat, meter, &self.interrupted)?;
        let Some(mut row) = row else {
            bail!("interrupted at {}", case.text())
        };
        row.load_s = load_s;
        self.terminal.say(&row.text());
        self.report.rows.push(row);
        self.write_csv()
    }

    fn measure_machine(&mut self, threads: usize) -> Result<()> {
        self.terminal.progress("measuring the machine", "", 0, 1);
        // More threads than cores say nothing more, and take long to say it.
        let device = CpuDevice::new(threads.min(machine::cores()))?;
        let peak = match device.measure_peak() {
            Ok(peak) => peak,
            // Shares are missing then, times are not.
            Err(error) => {
                self.terminal
                    .say(&format!("the machine was not measured: {error}"));
                return Ok(());
            }
        };
        self.report.compare(Machine {
            threads,
            probe_threads: device.num_threads(),
            int8_ops_per_s: peak.int8_ops_per_s,
            read_bytes_per_s: peak.read_bytes_per_s,
            read_bytes_per_s_samples: vec![peak.read_bytes_per_s],
            int8_ops_per_s_samples: peak.int8_ops_per_s.into_iter().collect(),
        });
        Ok(())
    }

    fn write_csv(&self) -> Result<()> {
        let Some(path) = &self.options.csv else {
            return Ok(());
        };
        std::fs::write(path, self.report.csv()).with_context(|| format!("writing {}", path.display()))
    }
}

//! `bench`: tokens per second of prefill and decoding.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use dualgrain_engine::{LoadOptions, Model, Product, Session, SessionLimits, products};
use dualgrain_kernels::Backend;
use dualgrain_kernels::cpu::CpuBackend;
use serde::Serialize;

use crate::arguments::{Bench, BenchGemm, BenchProduct, Common};
use crate::machine;
use crate::terminal::{Terminal, bytes, table};

/// Tokens of a prompt that are run in one step.
const STEP_TOKENS: usize = 512;

#[derive(Serialize)]
struct Report {
    model: String,
    kernels: &'static str,
    #[serde(skip)]
    is_quantized: bool,
    linear_bytes: usize,
    machine: Vec<Machine>,
    peak_resident_bytes: Option<u64>,
    rows: Vec<Row>,
}

/// What the machine can do at best.
#[derive(Clone, Copy, Serialize)]
struct Machine {
    threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    int8_ops_per_s: Option<f64>,
    read_bytes_per_s: f64,
}

/// Measured speeds of one combination.
#[derive(Serialize)]
pub struct Row {
    threads: usize,
    batch: usize,
    prompt_tokens: usize,
    generate_tokens: usize,
    /// Prompt tokens per second, all sequences together.
    pub prefill_tokens_per_s: f64,
    prefill_spread: f64,
    /// Generated tokens per second, all sequences together.
    pub decode_tokens_per_s: f64,
    decode_spread: f64,
    /// Operations of the linears' products a second while prompts run; a multiply-add is two.
    prefill_ops_per_s: f64,
    /// These by what the registers alone can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_share_of_peak: Option<f64>,
    /// Bytes of packed linears read a second while tokens are generated.
    decode_read_bytes_per_s: f64,
    /// These by what reading alone can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_share_of_read: Option<f64>,
    cache_bytes: usize,
}

/// One combination to time.
pub struct Case {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens generated after each.
    pub generate_tokens: usize,
}

/// Times every combination of the counts asked for.
pub fn run(options: &Bench, common: &Common, terminal: &Terminal) -> Result<()> {
    if let Some(BenchProduct::Gemm(options)) = &options.product {
        return run_gemm(options, terminal);
    }
    let model = options.model.as_deref().context("a model folder is needed")?;
    let counts = if options.thread_counts.is_empty() {
        vec![common.threads]
    } else {
        options.thread_counts.clone()
    };
    let cases = cases(options);
    let mut report = None;
    for &threads in &counts {
        let backend = Arc::new(CpuBackend::new(threads)?);
        let loaded = Arc::new(Model::load(backend, model, &LoadOptions::default())?);
        let report = report.get_or_insert_with(|| Report {
            model: model.display().to_string(),
            kernels: loaded.backend().isa().name(),
            is_quantized: loaded.config().quantization.is_some(),
            linear_bytes: loaded.linear_bytes(),
            machine: Vec::new(),
            peak_resident_bytes: None,
            rows: Vec::new(),
        });
        for (index, case) in cases.iter().enumerate() {
            let detail = format!("{} threads", model_threads(&loaded));
            terminal.progress("timing", &detail, index as u64, cases.len() as u64);
            report.rows.push(time_case(&loaded, case, options.repeat)?);
        }
    }
    let mut report = report.expect("at least one thread count");
    // The probe reads a buffer of its own, which is no memory of the model's.
    report.peak_resident_bytes = machine::peak_resident_bytes();
    for &threads in &counts {
        terminal.progress("measuring the machine", "", 0, 1);
        report.compare(Machine::measure(threads)?);
    }
    terminal.result(&report, &text(&report))
}

#[cfg(feature = "cuda")]
fn run_gemm(options: &BenchGemm, terminal: &Terminal) -> Result<()> {
    crate::bench_gemm::run(options, terminal)
}

#[cfg(not(feature = "cuda"))]
fn run_gemm(_: &BenchGemm, _: &Terminal) -> Result<()> {
    anyhow::bail!("this program was built without the feature `cuda`")
}

impl Machine {
    fn measure(threads: usize) -> Result<Self> {
        let backend = CpuBackend::new(threads)?;
        let peak = backend.measure_peak()?;
        Ok(Self {
            threads: backend.num_threads(),
            int8_ops_per_s: peak.int8_ops_per_s,
            read_bytes_per_s: peak.read_bytes_per_s,
        })
    }
}

impl Report {
    /// Sets the rows of as many threads beside what the machine can do with them.
    fn compare(&mut self, machine: Machine) {
        for row in self.rows.iter_mut().filter(|row| row.threads == machine.threads) {
            row.prefill_share_of_peak = machine
                .int8_ops_per_s
                .filter(|_| self.is_quantized)
                .map(|peak| row.prefill_ops_per_s / peak);
            row.decode_share_of_read = Some(row.decode_read_bytes_per_s / machine.read_bytes_per_s);
        }
        self.machine.push(machine);
    }
}

fn model_threads(model: &Model<CpuBackend>) -> usize {
    model.backend().num_threads()
}

fn cases(options: &Bench) -> Vec<Case> {
    let mut cases = Vec::new();
    for &batch in &options.batch {
        for &prompt_tokens in &options.prompt_tokens {
            for &generate_tokens in &options.generate_tokens {
                cases.push(Case {
                    batch,
                    prompt_tokens,
                    generate_tokens,
                });
            }
        }
    }
    cases
}

/// One warm-up and `repeat` timed rounds; the median and the relative distance of the quartiles.
pub fn time_case(model: &Arc<Model<CpuBackend>>, case: &Case, repeat: usize) -> Result<Row> {
    let limits = SessionLimits {
        num_sequences: case.batch,
        context_tokens: case.prompt_tokens + case.generate_tokens,
        step_tokens: STEP_TOKENS.max(case.batch),
    };
    let positions = model.config().max_positions;
    ensure!(
        limits.context_tokens <= positions,
        "{} prompt and {} generated tokens do not fit the model's {positions} positions",
        case.prompt_tokens,
        case.generate_tokens
    );
    check_memory(model, limits)?;
    let mut session = Session::new(Arc::clone(model), limits)?;
    let vocab = model.config().vocab_size as u32;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for round in 0..=repeat {
        let (prefill_s, decode_s) = time_round(&mut session, case, vocab)?;
        if round > 0 {
            prefill.push((case.batch * case.prompt_tokens) as f64 / prefill_s);
            decode.push((case.batch * case.generate_tokens) as f64 / decode_s);
        }
    }
    let (prefill_tokens_per_s, prefill_spread) = median_and_spread(&mut prefill);
    let (decode_tokens_per_s, decode_spread) = median_and_spread(&mut decode);
    Ok(Row {
        threads: model_threads(model),
        batch: case.batch,
        prompt_tokens: case.prompt_tokens,
        generate_tokens: case.generate_tokens,
        prefill_tokens_per_s,
        prefill_spread,
        decode_tokens_per_s,
        decode_spread,
        prefill_ops_per_s: prefill_tokens_per_s * ops_per_token(model, case.prompt_tokens),
        prefill_share_of_peak: None,
        // A step reads every linear once, whatever the batch.
        decode_read_bytes_per_s: decode_tokens_per_s / case.batch as f64 * model.linear_bytes() as f64,
        decode_share_of_read: None,
        cache_bytes: session.memory().cache_bytes,
    })
}

/// Operations of the linears' products for each token of a prompt; the head runs on its last token only.
fn ops_per_token(model: &Model<CpuBackend>, prompt_tokens: usize) -> f64 {
    let weights = |product: &Product| {
        let weights = (product.count * product.shape.n * product.shape.k) as f64;
        match product.name {
            "head" => weights / prompt_tokens as f64,
            _ => weights,
        }
    };
    2.0 * products(model.config(), 1).iter().map(weights).sum::<f64>()
}

/// A case that does not fit should be refused, not killed by the system half-way.
fn check_memory(model: &Model<CpuBackend>, limits: SessionLimits) -> Result<()> {
    let needed = Session::required_bytes(model, limits).unwrap_or(u64::MAX);
    if let Some(memory) = machine::memory() {
        ensure!(
            needed <= memory.available_bytes,
            "batch {} with {} tokens each needs {} beside the model, {} are free: take a smaller --batch",
            limits.num_sequences,
            limits.context_tokens,
            bytes(needed),
            bytes(memory.available_bytes)
        );
    }
    Ok(())
}

/// Seconds for all prompts, and for all generated tokens; logits are computed once a prompt and once a step.
fn time_round(session: &mut Session<CpuBackend>, case: &Case, vocab: u32) -> Result<(f64, f64)> {
    let token = |sequence: usize, position: usize| {
        (sequence as u32)
            .wrapping_mul(7919)
            .wrapping_add((position as u32).wrapping_mul(104_729))
            % vocab
    };
    let started = Instant::now();
    for sequence in 0..case.batch {
        session.reset(sequence);
        let prompt: Vec<u32> = (0..case.prompt_tokens)
            .map(|position| token(sequence, position))
            .collect();
        let last = session.prefill(sequence, &prompt)?;
        session.logits(&[last])?;
    }
    let prefill_s = started.elapsed().as_secs_f64();
    let rows: Vec<u32> = (0..case.batch as u32).collect();
    let started = Instant::now();
    for position in 0..case.generate_tokens {
        let tokens: Vec<u32> = (0..case.batch)
            .map(|sequence| token(sequence, position))
            .collect();
        let batch: Vec<(usize, &[u32])> = tokens.iter().map(std::slice::from_ref).enumerate().collect();
        session.run(&batch)?;
        session.logits(&rows)?;
    }
    Ok((prefill_s, started.elapsed().as_secs_f64()))
}

/// Median, and (third quartile - first quartile) / median.
fn median_and_spread(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    let quantile = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize];
    (quantile(0.5), (quantile(0.75) - quantile(0.25)) / quantile(0.5))
}

fn text(report: &Report) -> String {
    let header = [
        "threads",
        "batch",
        "prompt",
        "generate",
        "prefill tok/s",
        "+-",
        "decode tok/s",
        "+-",
        "prefill GOPS",
        "of peak",
        "decode GB/s",
        "of read",
        "cache",
    ];
    let share = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.0} %", 100.0 * share));
    let rows = report.rows.iter().map(|row| {
        vec![
            row.threads.to_string(),
            row.batch.to_string(),
            row.prompt_tokens.to_string(),
            row.generate_tokens.to_string(),
            format!("{:.1}", row.prefill_tokens_per_s),
            format!("{:.0} %", 50.0 * row.prefill_spread),
            format!("{:.1}", row.decode_tokens_per_s),
            format!("{:.0} %", 50.0 * row.decode_spread),
            format!("{:.0}", row.prefill_ops_per_s / 1e9),
            share(row.prefill_share_of_peak),
            format!("{:.1}", row.decode_read_bytes_per_s / 1e9),
            share(row.decode_share_of_read),
            bytes(row.cache_bytes as u64),
        ]
    });
    let peak = report
        .peak_resident_bytes
        .map_or(String::new(), |peak| format!(", peak memory {}", bytes(peak)));
    let machine = report.machine.iter().map(machine_text).collect::<String>();
    format!(
        "{} with {} kernels, linears {}{peak}\n{machine}{}",
        report.model,
        report.kernels,
        bytes(report.linear_bytes as u64),
        table(&header, &rows.collect::<Vec<_>>())
    )
}

fn machine_text(machine: &Machine) -> String {
    let peak = machine.int8_ops_per_s.map_or(String::new(), |ops| {
        format!("{:.0} GOPS in registers, ", ops / 1e9)
    });
    format!(
        "this machine with {} threads: {peak}{:.1} GB/s read from memory\n",
        machine.threads,
        machine.read_bytes_per_s / 1e9
    )
}

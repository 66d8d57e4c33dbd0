//! Speed of every operation that matters, per instruction set: correctness first, then a table and a CSV.
//!
//!     cargo run --release -p dualgrain-kernels --example bench_ops -- [--threads N] [--isa NAME] [--op PREFIX] [--shape PREFIX] [--csv FILE]
//!
//! Weights rotate through copies that pass the caches together, times are the median (and the least) of several
//! rounds; with one thread they are its time on the processor, so that other programs disturb less. A rate stands beside the machine's own: multiply-adds in registers, bytes read from memory.

use std::hint::black_box;
use std::io::Write as _;

use dualgrain_format::{
    FloatLinear, FloatValues, GroupSize, Int8Linear, LinearWeights, QuantizedLinear, QuantizedParts,
};
use dualgrain_kernels::cpu::{CpuBackend, Isa, Linear, Matrix, Quantized, available};
use dualgrain_kernels::{
    Activation, ActivationScale, AttentionParams, Backend, CacheFormat, CacheShape, Gram, Operand,
    PAGE_TOKENS, Step, naive,
};
use half::bf16;
use rustix::time::{ClockId, clock_gettime};

/// Copies of a layer pass this size together, so that none stays in a cache.
const ROTATION_BYTES: usize = 1 << 29;
const ROUNDS: usize = 7;
const MIN_ROUND_S: f64 = 0.03;

fn main() {
    let options = Options::from_args();
    let mut table = Table::new(options.op.clone(), options.shape.clone());
    for isa in available() {
        if options.isa.as_ref().is_some_and(|name| name != isa.name())
            || (options.isa.is_none() && isa == Isa::Naive)
        {
            continue;
        }
        let backend = CpuBackend::with_isa(options.threads, isa).expect("available");
        check(&backend);
        peaks(&backend, &mut table);
        memory(&backend, &mut table);
        linears(&backend, &mut table);
        attention(&backend, &mut table);
        quantizer(&backend, &mut table);
        rows(&backend, &mut table);
        model(&backend, &mut table);
    }
    if let Some(path) = options.csv {
        std::fs::write(&path, table.csv).expect("writable CSV path");
    }
}

struct Options {
    threads: usize,
    isa: Option<String>,
    op: String,
    shape: String,
    csv: Option<String>,
}

impl Options {
    fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let value = |name: &str| {
            let at = args.iter().position(|arg| arg == name)?;
            args.get(at + 1).cloned()
        };
        Self {
            threads: value("--threads").map_or(1, |v| v.parse().expect("a number of threads")),
            isa: value("--isa"),
            op: value("--op").unwrap_or_default(),
            shape: value("--shape").unwrap_or_default(),
            csv: value("--csv"),
        }
    }
}

/// Rows printed and collected as CSV.
struct Table {
    csv: String,
    filter: String,
    shape: String,
}

impl Table {
    fn new(filter: String, shape: String) -> Self {
        println!(
            "{:<22} {:<11} {:>3} {:<18} {:>11} {:>11} {:>9} unit",
            "op", "isa", "thr", "shape", "median_us", "least_us", "rate"
        );
        Self {
            csv: "op,isa,threads,shape,median_s,least_s,rate,unit\n".to_owned(),
            filter,
            shape,
        }
    }

    fn wants(&self, op: &str) -> bool {
        op.starts_with(&self.filter)
    }

    /// Times `f` and prints `amount / least time` in units of 1e9.
    fn row(
        &mut self,
        backend: &CpuBackend,
        op: &str,
        shape: &str,
        amount: f64,
        unit: &str,
        mut f: impl FnMut(),
    ) {
        if !self.wants(op) || !shape.starts_with(&self.shape) {
            return;
        }
        let (median, least) = time(backend.num_threads() == 1, &mut f);
        let (isa, threads, rate) = (backend.isa().name(), backend.num_threads(), amount / least / 1e9);
        println!(
            "{op:<22} {isa:<11} {threads:>3} {shape:<18} {:>11.1} {:>11.1} {rate:>9.1} {unit}",
            median * 1e6,
            least * 1e6
        );
        self.csv += &format!("{op},{isa},{threads},{shape},{median:.9},{least:.9},{rate:.3},{unit}\n");
        std::io::stdout().flush().expect("stdout");
    }
}

/// Seconds on the wall clock, or of this thread on the processor.
fn now(on_processor: bool) -> f64 {
    let clock = if on_processor {
        ClockId::ThreadCPUTime
    } else {
        ClockId::Monotonic
    };
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Median and least seconds a call.
fn time(on_processor: bool, f: &mut impl FnMut()) -> (f64, f64) {
    let mut round = |calls: usize| {
        let start = now(on_processor);
        (0..calls).for_each(|_| f());
        (now(on_processor) - start) / calls as f64
    };
    let calls = (MIN_ROUND_S / round(1).max(1e-7)).ceil().clamp(1.0, 1e6) as usize;
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(calls)).collect();
    rounds.sort_by(f64::total_cmp);
    (rounds[ROUNDS / 2], rounds[0])
}

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

fn floats(len: usize) -> Vec<f32> {
    let mut next = random(len as u64);
    (0..len)
        .map(|_| (next() & 0xffff) as f32 / 32_768.0 - 1.0)
        .collect()
}

/// A layer with zero point 8 and group scales that keep the int8 guard.
fn w4(n: usize, k: usize) -> LinearWeights {
    let (mut next, groups) = (random(7), k.div_ceil(128));
    let parts = QuantizedParts {
        q: (0..n * k / 2).map(|_| next() as u8).collect(),
        zero: vec![0x88; n * groups.div_ceil(2)],
        s2: (0..n * groups).map(|_| 1 + (next() % 15) as u8).collect(),
        s1: vec![0.01; n],
        bias: None,
        ta: None,
    };
    LinearWeights::W4(QuantizedLinear::new((n, k), GroupSize::Along(128), parts).expect("valid layer"))
}

fn w8(n: usize, k: usize) -> LinearWeights {
    let mut next = random(9);
    let w8 = (0..n * k).map(|_| next() as i8).map(|w| w.max(-127)).collect();
    LinearWeights::W8(Int8Linear::new((n, k), w8, vec![0.01; n], None, None).expect("valid layer"))
}

fn float(n: usize, k: usize, halves: bool) -> LinearWeights {
    let values = floats(n * k);
    let values = match halves {
        true => FloatValues::Bf16(values.iter().map(|v| bf16::from_f32(*v)).collect()),
        false => FloatValues::F32(values),
    };
    LinearWeights::Float(FloatLinear::new(n, k, values, None).expect("valid layer"))
}

fn matrix(backend: &CpuBackend, rows: usize, columns: usize) -> Matrix {
    let mut x = backend.matrix(rows, columns);
    backend.upload(&mut x, &floats(rows * columns));
    x
}

fn quantized(backend: &CpuBackend, x: &Matrix) -> Quantized {
    let mut a = backend.quantized(backend.rows(x), backend.columns(x));
    backend.quantize(&mut a, x, ActivationScale::PerToken);
    a
}

/// No timing of wrong results: a product against the specification first.
fn check(backend: &CpuBackend) {
    let LinearWeights::W4(layer) = w4(96, 256) else {
        unreachable!("w4 makes W4 layers")
    };
    let x = matrix(backend, 13, 256);
    let a = quantized(backend, &x);
    let rows: Vec<(Vec<i8>, f32)> = (0..13).map(|row| a.row(row)).collect();
    let codes: Vec<i8> = rows.iter().flat_map(|(codes, _)| codes.clone()).collect();
    let scales: Vec<f32> = rows.iter().map(|(_, scale)| *scale).collect();
    let (mut acc, mut d) = (vec![0; 13 * 96], vec![0.0; 13 * 96]);
    naive::gemm_w4a8(&codes, &scales, &layer, &mut acc, &mut d);
    let packed = backend.pack(LinearWeights::W4(layer)).expect("packs");
    assert_eq!(
        backend.gemm_acc(&a, &packed),
        acc,
        "{} differs from the specification",
        backend.isa().name()
    );
}

/// What the registers alone can do: multiply-adds without a load, on one thread.
fn peaks(backend: &CpuBackend, table: &mut Table) {
    #[cfg(target_arch = "x86_64")]
    if backend.num_threads() == 1 {
        const STEPS: usize = 100_000;
        let (lanes, run): (usize, fn(usize)) = match backend.isa() {
            // SAFETY: the backend exists, so the instruction set does.
            Isa::Avx512Vnni => (16, |steps| unsafe { peak::fma_avx512(steps) }),
            // SAFETY: as above.
            Isa::Avx2 | Isa::AvxVnni => (8, |steps| unsafe { peak::fma_avx2(steps) }),
            Isa::Naive => return,
        };
        let operations = (2 * peak::CHAINS * lanes * STEPS) as f64;
        table.row(backend, "peak_fma", "registers", operations, "GFLOPS", || {
            run(STEPS)
        });
        if backend.isa() == Isa::Avx512Vnni {
            // SAFETY: as above.
            let run = || unsafe { peak::dot_avx512(STEPS) };
            table.row(backend, "peak_dot", "registers", 4.0 * operations, "GOPS", run);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod peak {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    pub const CHAINS: usize = 12;

    #[target_feature(enable = "avx2,fma")]
    pub fn fma_avx2(steps: usize) {
        let (a, mut acc) = (black_box(_mm256_set1_ps(0.5)), [_mm256_setzero_ps(); CHAINS]);
        for _ in 0..steps {
            acc.iter_mut().for_each(|acc| *acc = _mm256_fmadd_ps(a, a, *acc));
        }
        black_box(acc);
    }

    #[target_feature(enable = "avx512f")]
    pub fn fma_avx512(steps: usize) {
        let (a, mut acc) = (black_box(_mm512_set1_ps(0.5)), [_mm512_setzero_ps(); CHAINS]);
        for _ in 0..steps {
            acc.iter_mut().for_each(|acc| *acc = _mm512_fmadd_ps(a, a, *acc));
        }
        black_box(acc);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn dot_avx512(steps: usize) {
        let (a, mut acc) = (black_box(_mm512_set1_epi8(3)), [_mm512_setzero_si512(); CHAINS]);
        for _ in 0..steps {
            acc.iter_mut()
                .for_each(|acc| *acc = _mm512_dpbusd_epi32(*acc, a, a));
        }
        black_box(acc);
    }
}

/// Bytes a second that all threads read together.
fn memory(backend: &CpuBackend, table: &mut Table) {
    let mut data = vec![
        1u64;
        if table.wants("memory_read") {
            ROTATION_BYTES / 8
        } else {
            0
        }
    ];
    let bytes = data.len() as f64 * 8.0;
    table.row(backend, "memory_read", "512MiB", bytes, "GB/s", || {
        backend.for_each_chunk(&mut data, 1 << 17, |_, chunk| {
            black_box(chunk.iter().fold(0u64, |sum, v| sum.wrapping_add(*v)));
        });
    });
}

/// Shapes of a 1.1B Llama: qkv, o, gate_up, down.
const LAYERS: [(usize, usize); 4] = [(2_560, 2_048), (2_048, 2_048), (11_264, 2_048), (2_048, 5_632)];

fn linears(backend: &CpuBackend, table: &mut Table) {
    type Make = fn(usize, usize) -> LinearWeights;
    let makes: [(&str, Make); 4] = [
        ("gemm_w4a8", w4),
        ("gemm_w8a8", w8),
        ("gemm_f32", |n, k| float(n, k, false)),
        ("gemm_bf16", |n, k| float(n, k, true)),
    ];
    for (op, make) in makes {
        if !op.starts_with(&table.filter) && !table.filter.starts_with(op) {
            continue;
        }
        for (n, k) in LAYERS {
            let mut layers = vec![backend.pack(make(n, k)).expect("packs")];
            let bytes = backend.linear_bytes(&layers[0]);
            // Decode reads each copy once; prefill stays with one.
            let copies = ROTATION_BYTES.div_ceil(bytes).min(24);
            for m in [1, 4, 16, 128, 1024] {
                if m == 1 {
                    layers.extend((1..copies).map(|_| backend.pack(make(n, k)).expect("packs")));
                }
                let x = matrix(backend, m, k);
                let a = quantized(backend, &x);
                let mut out = backend.matrix(m, n);
                let mut turn = 0;
                let mut call = |layers: &[Linear]| {
                    turn = (turn + 1) % layers.len();
                    let operand = if op.ends_with("a8") {
                        Operand::Int8(&a)
                    } else {
                        Operand::Float(&x)
                    };
                    backend.gemm(&mut out, operand, &layers[turn]);
                };
                let operations = 2.0 * (m * n * k) as f64;
                let (amount, unit) = match m {
                    1 | 4 => (bytes as f64, "GB/s"),
                    _ => (operations, if op.ends_with("a8") { "GOPS" } else { "GFLOPS" }),
                };
                table.row(backend, op, &format!("{m}x{n}x{k}"), amount, unit, || {
                    call(&layers)
                });
            }
        }
    }
}

/// Attention of a 1.1B Llama (32 heads over 4 of 64) and of a small one (8 over 8 of 64).
fn attention(backend: &CpuBackend, table: &mut Table) {
    if !table.wants("attention") && !table.filter.starts_with("attention") {
        return;
    }
    for (num_heads, num_kv_heads) in [(32, 4), (8, 8)] {
        for format in [CacheFormat::F32, CacheFormat::F16, CacheFormat::Int8] {
            for (tokens, context) in [(1_024, 1_024), (1, 2_048)] {
                one_attention(
                    backend,
                    table,
                    (num_heads, num_kv_heads),
                    &format,
                    (tokens, context),
                );
            }
        }
    }
}

fn one_attention(
    backend: &CpuBackend,
    table: &mut Table,
    (num_heads, num_kv_heads): (usize, usize),
    format: &CacheFormat,
    (tokens, context): (usize, usize),
) {
    let head_dim = 64;
    let num_pages = context / PAGE_TOKENS;
    let shape = CacheShape {
        num_layers: 1,
        num_kv_heads,
        head_dim,
        num_pages,
    };
    let mut cache = backend.cache(shape, format).expect("fits");
    let (q, kv) = (num_heads * head_dim, num_kv_heads * head_dim);
    let page_tables = [(0..num_pages as u32).collect::<Vec<_>>()];
    let all = matrix(backend, context, q + 2 * kv);
    let positions: Vec<u32> = (0..context as u32).collect();
    let sequences = vec![0; context];
    let step = Step {
        positions: &positions,
        sequences: &sequences,
        page_tables: &page_tables,
    };
    let name = match format {
        CacheFormat::F32 => "f32",
        CacheFormat::F16 => "f16",
        _ => "int8",
    };
    let shape = format!("{tokens}over{context}x{num_heads}/{num_kv_heads}");
    let written = (context * 2 * kv * 4) as f64;
    table.row(
        backend,
        &format!("attention_write_{name}"),
        &shape,
        written,
        "GB/s",
        || {
            backend.cache_write(&mut cache, 0, &all, q..q + kv, q + kv..q + 2 * kv, &step);
        },
    );
    let x = matrix(backend, tokens, q + 2 * kv);
    let step = Step {
        positions: &positions[context - tokens..],
        sequences: &sequences[..tokens],
        page_tables: &page_tables,
    };
    let params = AttentionParams {
        num_heads,
        scale: 0.125,
        sliding_window: None,
        alibi_slopes: None,
    };
    let mut out = backend.matrix(tokens, q);
    // Pairs of query and key under the causal mask.
    let pairs = (tokens * (context - tokens)) as f64 + (tokens * (tokens + 1)) as f64 / 2.0;
    let operations = 4.0 * pairs * q as f64;
    table.row(
        backend,
        &format!("attention_{name}"),
        &shape,
        operations,
        "GFLOPS",
        || {
            backend.attention(&mut out, &x, 0..q, &cache, 0, &params, &step);
        },
    );
}

/// The quantizer's hot loops.
fn quantizer(backend: &CpuBackend, table: &mut Table) {
    for k in [512, 2_048, 5_632] {
        if !table.wants("gram_accumulate") {
            break;
        }
        let (mut gram, x) = (Gram::new(k), matrix(backend, 1_024, k));
        let operations = 1_024.0 * (k * (k + 1)) as f64;
        table.row(
            backend,
            "gram_accumulate",
            &format!("1024x{k}"),
            operations,
            "GFLOPS",
            || {
                backend.gram_accumulate(&mut gram, &x);
            },
        );
    }
    // Candidates of all rows over one group, of some rows over the whole input.
    for (rows, k) in [
        (10_240, 64),
        (10_240, 128),
        (768, 512),
        (768, 2_048),
        (768, 5_632),
    ] {
        if !table.wants("quadratic_rows") {
            break;
        }
        let (gram, errors, mut out) = (Gram::new(k), floats(rows * k), vec![0.0; rows]);
        let operations = rows as f64 * (k * (k + 1)) as f64;
        table.row(
            backend,
            "quadratic_rows",
            &format!("{rows}x{k}"),
            operations,
            "GFLOPS",
            || {
                backend.quadratic_rows(&gram, &errors, &mut out);
            },
        );
    }
}

fn rows(backend: &CpuBackend, table: &mut Table) {
    for (m, k) in [(1, 2_048), (1_024, 2_048)] {
        let x = matrix(backend, m, k);
        let weight = matrix(backend, 1, k);
        let (mut out, mut a) = (backend.matrix(m, k), backend.quantized(m, k));
        let (shape, elements) = (format!("{m}x{k}"), (m * k) as f64);
        table.row(backend, "rows_rms_norm", &shape, elements, "Gel/s", || {
            backend.rms_norm(&mut out, &x, &weight, 1e-5)
        });
        table.row(backend, "rows_quantize", &shape, elements, "Gel/s", || {
            backend.quantize(&mut a, &x, ActivationScale::PerToken);
        });
        let mut half = backend.matrix(m, k / 2);
        table.row(
            backend,
            "rows_gated_silu",
            &shape,
            elements / 2.0,
            "Gel/s",
            || {
                backend.gated(&mut half, &x, Activation::Silu);
            },
        );
        let mut logits = matrix(backend, m, k);
        table.row(backend, "rows_log_softmax", &shape, elements, "Gel/s", || {
            backend.log_softmax(&mut logits)
        });
        table.row(backend, "rows_add", &shape, elements, "Gel/s", || {
            backend.add(&mut out, &x)
        });
    }
}

/// All operations of a step of a 1.1B Llama (22 layers, hidden 2,048, W4 linears, W8 head, INT8 cache), weights distinct.
struct Model<'a> {
    backend: &'a CpuBackend,
    layers: Vec<[Linear; 4]>,
    head: Linear,
    cache: dualgrain_kernels::cpu::Cache,
    norm: Matrix,
}

const HIDDEN: usize = 2_048;
const QKV: usize = 2_560;
const CONTEXT: usize = 1_024;

impl<'a> Model<'a> {
    fn new(backend: &'a CpuBackend) -> Self {
        let weights = LAYERS.map(|(n, k)| w4(n, k));
        let pack = |weights: &LinearWeights| backend.pack(weights.clone()).expect("packs");
        let layers: Vec<_> = (0..22).map(|_| weights.each_ref().map(pack)).collect();
        let shape = CacheShape {
            num_layers: 22,
            num_kv_heads: 4,
            head_dim: 64,
            num_pages: CONTEXT / PAGE_TOKENS,
        };
        let cache = backend.cache(shape, &CacheFormat::Int8).expect("fits");
        let head = backend.pack(w8(32_000, HIDDEN)).expect("packs");
        Self {
            backend,
            layers,
            head,
            cache,
            norm: matrix(backend, 1, HIDDEN),
        }
    }

    fn bytes(&self) -> usize {
        let linears = self.layers.iter().flatten().chain([&self.head]);
        linears.map(|linear| self.backend.linear_bytes(linear)).sum()
    }

    /// Runs tokens at positions `first..`; buffers are made once by the caller, as an engine does.
    fn step(&mut self, x: &mut Matrix, buffers: &mut Buffers, first: usize) {
        let (b, tokens) = (self.backend, self.backend.rows(x));
        let positions: Vec<u32> = (first as u32..(first + tokens) as u32).collect();
        let sequences = vec![0; tokens];
        let page_tables = [(0..(CONTEXT / PAGE_TOKENS) as u32).collect()];
        let step = Step {
            positions: &positions,
            sequences: &sequences,
            page_tables: &page_tables,
        };
        let params = AttentionParams {
            num_heads: 32,
            scale: 0.125,
            sliding_window: None,
            alibi_slopes: None,
        };
        let Buffers {
            y,
            wide,
            act,
            codes,
            angles,
            ..
        } = buffers;
        b.upload(angles, &vec![0.5; tokens * 64]);
        for (layer, [qkv, o, gate_up, down]) in self.layers.iter().enumerate() {
            b.rms_norm(y, x, &self.norm, 1e-5);
            b.quantize(codes, y, ActivationScale::PerToken);
            b.gemm(wide, Operand::Int8(codes), qkv);
            b.rope(wide, 0..2_304, 64, angles);
            b.cache_write(&mut self.cache, layer, wide, 2_048..2_304, 2_304..QKV, &step);
            b.attention(y, wide, 0..2_048, &self.cache, layer, &params, &step);
            b.quantize(codes, y, ActivationScale::PerToken);
            b.gemm(y, Operand::Int8(codes), o);
            b.add(x, y);
            b.rms_norm(y, x, &self.norm, 1e-5);
            b.quantize(codes, y, ActivationScale::PerToken);
            b.gemm(wide, Operand::Int8(codes), gate_up);
            b.gated(act, wide, Activation::Silu);
            b.quantize(codes, act, ActivationScale::PerToken);
            b.gemm(y, Operand::Int8(codes), down);
            b.add(x, y);
        }
        b.gather(y, x, &[tokens as u32 - 1]);
        b.quantize(codes, y, ActivationScale::PerToken);
        b.gemm(wide, Operand::Int8(codes), &self.head);
    }
}

/// Matrices of a step.
struct Buffers {
    y: Matrix,
    wide: Matrix,
    act: Matrix,
    codes: Quantized,
    angles: Matrix,
}

fn model(backend: &CpuBackend, table: &mut Table) {
    if !table.wants("model_1b") || backend.isa() == Isa::Naive {
        return;
    }
    let mut model = Model::new(backend);
    let mut buffers = Buffers {
        y: backend.matrix(512, HIDDEN),
        wide: backend.matrix(512, 11_264),
        act: backend.matrix(512, 5_632),
        codes: backend.quantized(512, 5_632),
        angles: backend.matrix(512, 64),
    };
    let bytes = model.bytes() as f64;
    for (tokens, first, op) in [(1, 64, "model_1b_decode"), (512, 0, "model_1b_prefill")] {
        let mut x = matrix(backend, tokens, HIDDEN);
        let shape = format!("{tokens}at{first}");
        // Rates in 1e9: tokens a second would be unreadable, so bytes read, or operations.
        let (amount, unit) = match tokens {
            1 => (bytes, "GB/s"),
            _ => (tokens as f64 * 2.0 * 0.97e9, "GOPS"),
        };
        table.row(backend, op, &shape, amount, unit, || {
            model.step(&mut x, &mut buffers, first)
        });
    }
}

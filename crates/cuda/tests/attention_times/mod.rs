//! Times of attention in the shape of a Llama with 8 billion parameters: tokens of many sequences, prompts, writing to the cache.

use dualgrain_cuda::{
    Attended, Attention, AttentionWorkspace, Before, Buffer, CacheWrite, CudaError, Gpu, Input, Jit,
    PagedCache, Quantize, QuantizedTokens, RotatedQueries, StepTokens, times_s,
};
use dualgrain_device::cases::Random;
use dualgrain_device::{
    ActivationScale, AttentionParams, CacheFormat, CacheShape, PAGE_TOKENS, StepLayout, StepLimits,
};

/// Sequences of one length whose cache is written, and their step.
struct Timed {
    cache: PagedCache,
    step: StepTokens,
    workspace: AttentionWorkspace,
    x: Buffer,
    columns: usize,
}

const HEADS: usize = 32;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;

impl Timed {
    /// `sequences` of `length` positions each, the last `tokens` of them in the step.
    fn new(
        jit: &Jit,
        gpu: &Gpu,
        format: &CacheFormat,
        (sequences, length, tokens): (usize, usize, usize),
    ) -> Result<Self, CudaError> {
        let pages = length.div_ceil(PAGE_TOKENS);
        let shape = CacheShape {
            num_layers: 1,
            num_kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            num_pages: sequences * pages,
        };
        let limits = StepLimits {
            tokens: length.max(sequences * tokens),
            sequences,
            pages_per_sequence: pages,
        };
        let columns = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
        let pattern = Random(5).floats(1 << 20);
        let table = |s: usize| (0..pages).map(|p| (p * sequences + s) as u32).collect();
        let page_tables: Vec<Vec<u32>> = (0..sequences).map(table).collect();
        let mut timed = Self {
            cache: PagedCache::new(gpu, shape, format)?,
            step: StepTokens::new(gpu, limits)?,
            workspace: AttentionWorkspace::new(gpu, limits, HEADS, HEAD_DIM)?,
            x: gpu.upload_repeated(&pattern, length * columns)?,
            columns,
        };
        let write = CacheWrite::new(jit, gpu, &timed.cache)?;
        let (keys, values) = (HEADS * HEAD_DIM, (HEADS + KV_HEADS) * HEAD_DIM);
        for sequence in 0..sequences {
            timed.fill(&page_tables, sequence..sequence + 1, 0..length)?;
            let x = (&timed.x, columns);
            write.launch(
                x,
                (keys..values, values..columns),
                &mut timed.cache,
                0,
                &timed.step,
            )?;
            gpu.synchronize()?;
        }
        timed.fill(&page_tables, 0..sequences, length - tokens..length)?;
        timed.x = gpu.upload_repeated(&pattern, sequences * tokens * columns)?;
        Ok(timed)
    }

    fn fill(
        &mut self,
        page_tables: &[Vec<u32>],
        sequences: std::ops::Range<usize>,
        positions: std::ops::Range<usize>,
    ) -> Result<(), CudaError> {
        let all = sequences
            .clone()
            .flat_map(|s| positions.clone().map(move |p| (p as u32, s as u32)));
        let (positions, sequences): (Vec<u32>, Vec<u32>) = all.unzip();
        self.step.fill(&StepLayout {
            positions: &positions,
            sequences: &sequences,
            page_tables,
        })
    }

    fn time_s(&self, gpu: &Gpu, attention: &Attention, repeats: usize) -> Result<f64, CudaError> {
        let out = gpu.filled(4 * self.step.num_tokens() * HEADS * HEAD_DIM, 0)?;
        let queries = 0..HEADS * HEAD_DIM;
        let times = times_s(gpu, 3, repeats, |_| {
            let x = (&self.x, self.columns);
            attention.launch(
                &out,
                x,
                queries.clone(),
                &self.cache,
                0,
                &self.step,
                &self.workspace,
            )
        })?;
        Ok(times[1])
    }
}

/// What rotation, writing, attention and codes of a step's tokens take in a row: as three kernels, and as one.
fn print_decode(
    jit: &Jit,
    gpu: &Gpu,
    format: &CacheFormat,
    (sequences, length): (usize, usize),
) -> Result<(), CudaError> {
    let mut timed = Timed::new(jit, gpu, format, (sequences, length, 1))?;
    let write = CacheWrite::new(jit, gpu, &timed.cache)?;
    let attention = Attention::new(jit, gpu, &timed.cache, &params())?;
    let quantize = Quantize::new(jit, gpu, Before::Nothing, Input::F32)?;
    let angles = gpu.upload(&Random(3).floats(sequences * HEAD_DIM))?;
    let out = gpu.filled(4 * sequences * HEADS * HEAD_DIM, 0)?;
    let (keys, values) = (HEADS * HEAD_DIM, (HEADS + KV_HEADS) * HEAD_DIM);
    let columns = [0..keys, keys..values, values..timed.columns];
    let codes = QuantizedTokens::empty(gpu, sequences, HEADS * HEAD_DIM)?;
    let buffers = std::cell::RefCell::new((&mut timed.cache, codes));
    let (x, step, workspace) = ((&timed.x, timed.columns), &timed.step, &timed.workspace);
    let apart = times_s(gpu, 3, 10, |_| {
        let (cache, codes) = &mut *buffers.borrow_mut();
        let all = (columns.clone(), RotatedQueries::All);
        write.launch_rotated(x, all, &angles, (cache, 0), step)?;
        attention.launch(&out, x, columns[0].clone(), cache, 0, step, workspace)?;
        quantize.launch(&out, None, ActivationScale::PerToken, codes)
    })?;
    let joined = times_s(gpu, 3, 10, |_| {
        let (cache, codes) = &mut *buffers.borrow_mut();
        let place = (&mut **cache, 0);
        if attention.makes_codes(step) {
            let to = Attended::Codes(codes, ActivationScale::PerToken);
            return attention.launch_joined(to, x, columns.clone(), &angles, place, (step, workspace));
        }
        let to = Attended::Floats(&out);
        attention.launch_joined(to, x, columns.clone(), &angles, place, (step, workspace))?;
        quantize.launch(&out, None, ActivationScale::PerToken, codes)
    })?;
    println!(
        "{format:?}: {sequences} tokens over {length} positions, from rotation to codes: {:.2} us apart, {:.2} us joined",
        apart[1] * 1e6,
        joined[1] * 1e6
    );
    Ok(())
}

fn params() -> AttentionParams {
    AttentionParams {
        num_heads: HEADS,
        scale: 1.0 / (HEAD_DIM as f32).sqrt(),
        sliding_window: None,
        soft_cap: None,
        alibi_slopes: None,
        sinks: None,
    }
}

pub fn print_all(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    for format in [CacheFormat::Int8, CacheFormat::F16] {
        for (sequences, length) in [(64, 8_192), (256, 1_100), (16, 1_024), (1, 1_024), (1, 8_192)] {
            let timed = Timed::new(jit, gpu, &format, (sequences, length, 1))?;
            let attention = Attention::new(jit, gpu, &timed.cache, &params())?;
            let time = timed.time_s(gpu, &attention, 10)?;
            let bytes = sequences * length * format.bytes_per_token(KV_HEADS, HEAD_DIM);
            println!(
                "{format:?}: {sequences} tokens over {length} positions: {:.2} us, {:.0} GB/s",
                time * 1e6,
                bytes as f64 / time / 1e9
            );
        }
    }
    for (sequences, length) in [(1, 1_088), (1, 8_192), (16, 1_088), (64, 1_088), (256, 1_088)] {
        print_decode(jit, gpu, &CacheFormat::Int8, (sequences, length))?;
    }
    let formats = [
        CacheFormat::Int8,
        CacheFormat::Int8Static {
            key_scales: vec![0.01],
            value_scales: vec![0.01],
        },
    ];
    for format in &formats {
        for (length, tokens) in [(2_048, 2_048), (8_192, 2_048), (8_192, 8_192)] {
            let timed = Timed::new(jit, gpu, format, (1, length, tokens))?;
            for warps in [4, 8] {
                let attention = Attention::with_prompt_warps(jit, gpu, &timed.cache, &params(), warps)?;
                let time = timed.time_s(gpu, &attention, 5)?;
                print_prompt((length, tokens), &format!("{format:?} {warps} warps"), time);
            }
        }
    }
    let timed = Timed::new(jit, gpu, &CacheFormat::F16, (1, 2_048, 2_048))?;
    let attention = Attention::new(jit, gpu, &timed.cache, &params())?;
    print_prompt((2_048, 2_048), "F16", timed.time_s(gpu, &attention, 2)?);
    for format in [CacheFormat::Int8, CacheFormat::F16] {
        print_write_time(jit, gpu, &format)?;
        for sequences in [1, 16, 64] {
            print_rotation(jit, gpu, &format, (sequences, 1_000, 1), RotatedQueries::All)?;
        }
        for of in [RotatedQueries::All, RotatedQueries::OfSpans] {
            print_rotation(jit, gpu, &format, (1, 2_048, 2_048), of)?;
        }
    }
    Ok(())
}

/// Of the last `tokens` of `length`.
fn print_prompt((length, tokens): (usize, usize), words: &str, time: f64) {
    let pairs = (tokens * (length - tokens) + tokens * (tokens + 1) / 2) * HEADS;
    let operations = 4 * pairs * HEAD_DIM;
    println!(
        "{words}: the last {tokens} tokens of a prompt of {length}: {:.2} us, {:.0} TOPS",
        time * 1e6,
        operations as f64 / time / 1e12
    );
}

fn print_write_time(jit: &Jit, gpu: &Gpu, format: &CacheFormat) -> Result<(), CudaError> {
    let mut timed = Timed::new(jit, gpu, format, (1, 8_192, 8_192))?;
    let write = CacheWrite::new(jit, gpu, &timed.cache)?;
    let (keys, values) = (HEADS * HEAD_DIM, (HEADS + KV_HEADS) * HEAD_DIM);
    let cache = std::cell::RefCell::new(&mut timed.cache);
    let times = times_s(gpu, 3, 5, |_| {
        let (x, places) = ((&timed.x, timed.columns), (keys..values, values..timed.columns));
        write.launch(x, places, &mut cache.borrow_mut(), 0, &timed.step)
    })?;
    println!(
        "{format:?}: keys and values of 8192 tokens written in {:.2} us",
        times[1] * 1e6
    );
    Ok(())
}

/// What the rotation of a step's tokens, and their keys and values into the cache, add to a chain of launches that wait for one another.
fn print_rotation(
    jit: &Jit,
    gpu: &Gpu,
    format: &CacheFormat,
    (sequences, length, tokens): (usize, usize, usize),
    of: RotatedQueries,
) -> Result<(), CudaError> {
    let mut timed = Timed::new(jit, gpu, format, (sequences, length, tokens))?;
    let write = CacheWrite::new(jit, gpu, &timed.cache)?;
    let angles = gpu.upload(&Random(3).floats(sequences * tokens * HEAD_DIM))?;
    let (keys, values) = (HEADS * HEAD_DIM, (HEADS + KV_HEADS) * HEAD_DIM);
    let cache = std::cell::RefCell::new(&mut timed.cache);
    let times = times_s(gpu, 3, 1, |_| {
        let (x, columns) = (
            (&timed.x, timed.columns),
            ([0..keys, keys..values, values..timed.columns], of),
        );
        write.launch_rotated(x, columns, &angles, (&mut cache.borrow_mut(), 0), &timed.step)
    })?;
    println!(
        "{format:?}: {} tokens rotated and written, queries {of:?}: {:.2} us",
        sequences * tokens,
        times[1] * 1e6
    );
    Ok(())
}

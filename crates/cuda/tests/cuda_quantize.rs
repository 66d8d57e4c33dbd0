//! Quantization on a card, alone and behind RMSNorm or SwiGLU, and Hadamard transforms, against the specification, bit for bit.
//!
//! Without a card or a compiler it says SKIPPED, or fails with `DUALGRAIN_MAY_LACK=nothing`. `--cases N` (default 300);
//! `--times` prints times afterwards: bf16 rows that no launch finds in a cache, and the f32 rows of a Llama's step with 8 billion
//! parameters, each launch behind the one before it.

mod card;

use std::process::ExitCode;

use dualgrain_cuda::{
    Before, Buffer, CudaError, GateQuantize, Gpu, Hadamard, Input, Jit, Pointwise, PointwiseRows, Quantize,
    QuantizedTokens, TokenCodes, rotation_copies, times_s,
};
use dualgrain_device::{Activation, ActivationScale, GateLimit, naive};
use half::{bf16, f16};

use dualgrain_device::cases::Random;

fn main() -> ExitCode {
    card::compare("quantization", 300, compare_all, print_times)
}

/// Blocks of transforms.
const BLOCKS: [usize; 9] = [2, 4, 8, 16, 32, 64, 128, 256, 512];

/// A quantization with what the specification makes of it.
struct Case {
    m: usize,
    k: usize,
    before: Before,
    input: Input,
    scale: ActivationScale,
    eps: f32,
    x: Vec<f32>,
    /// Added to x first, where that is fused.
    y: Vec<f32>,
    weight: Vec<f32>,
}

impl Case {
    fn new(r: &mut Random) -> Self {
        let ks = [
            1, 2, 3, 7, 8, 15, 16, 17, 20, 24, 31, 33, 255, 256, 257, 1_021, 1_024, 2_052, 4_092, 4_096,
            4_099, 5_120, 8_192, 11_008,
        ];
        let k = ks[r.below(ks.len())];
        // Now and then more tokens than multiprocessors: CTAs have fewer threads then.
        let m = match r.below(40) {
            0 if k < 2_000 => 300,
            _ => 1 + r.below(5),
        };
        let before = Before::ALL[r.below(4)];
        let inputs: Vec<Input> = Input::ALL
            .into_iter()
            .filter(|&input| before.takes(input))
            .collect();
        let input = inputs[r.below(inputs.len())];
        let columns = before.input_columns(k);
        let mut x = Vec::new();
        for _ in 0..m {
            // Rows of zeros, of tiny, of common and of huge numbers.
            let size = [0.0, 1e-30, 1.0, 1.0, 30.0, 85.0, 100.0, 3e4][r.below(8)];
            x.extend((0..columns).map(|_| rounded(input, r.float() * size)));
            // Neither of them is a number to scale by.
            if r.below(8) == 0 {
                let last = x.len() - 1 - r.below(columns);
                x[last] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][r.below(3)];
            }
        }
        Self {
            m,
            k,
            before,
            input,
            scale: match r.below(3) {
                0 => ActivationScale::Static(0.001 + r.float().abs()),
                _ => ActivationScale::PerToken,
            },
            eps: 1e-5,
            y: added_rows(r, input, x.len()),
            x,
            weight: r.floats(k),
        }
    }

    fn expected(&self) -> TokenCodes {
        self.expected_with(Activation::Silu, None)
    }

    fn expected_with(&self, f: Activation, block: Option<usize>) -> TokenCodes {
        let (mut codes, mut scales) = (vec![0i8; self.m * self.k], Vec::new());
        let mut row = vec![0.0; self.k];
        let x = self.added();
        let inputs = x.chunks_exact(self.before.input_columns(self.k));
        for (x, codes) in inputs.zip(codes.chunks_exact_mut(self.k)) {
            match self.before {
                Before::Nothing => row.copy_from_slice(x),
                Before::RmsNorm | Before::AddRmsNorm => naive::rms_norm(x, &self.weight, self.eps, &mut row),
                Before::SwiGlu => naive::gated(x, f, &mut row),
            }
            if let Some(block) = block {
                naive::hadamard(&mut row, block);
            }
            scales.push(naive::quantize_row(&row, self.scale, codes));
        }
        let sum = |row: &[i8]| row.iter().map(|&code| i32::from(code)).sum();
        let sums = codes.chunks_exact(self.k).map(sum).collect();
        TokenCodes { codes, sums, scales }
    }

    /// x, with y where that is added first.
    fn added(&self) -> Vec<f32> {
        let mut x = self.x.clone();
        if self.before == Before::AddRmsNorm {
            naive::add(&mut x, &self.y);
        }
        x
    }

    /// x, and y where that is added first.
    fn upload(&self, gpu: &Gpu) -> Result<(Buffer, Option<Buffer>), CudaError> {
        match self.before {
            Before::AddRmsNorm => Ok((gpu.upload(&self.x)?, Some(self.upload_as_input(gpu, &self.y)?))),
            _ => Ok((self.upload_as_input(gpu, &self.x)?, None)),
        }
    }

    fn upload_as_input(&self, gpu: &Gpu, values: &[f32]) -> Result<Buffer, CudaError> {
        let bits = |f: fn(f32) -> u16| values.iter().map(|&x| f(x)).collect::<Vec<u16>>();
        match self.input {
            Input::F32 => gpu.upload(values),
            Input::F16 => gpu.upload(&bits(|x| f16::from_f32(x).to_bits())),
            Input::Bf16 => gpu.upload(&bits(|x| bf16::from_f32(x).to_bits())),
        }
    }

    /// Whether the kernel that gives a row to a cluster makes the same of it, with every activation, and with every transform that fits.
    fn equals_clusters(&self, jit: &Jit, gpu: &Gpu, x: &Buffer) -> Result<bool, CudaError> {
        let mut equal = true;
        if self.input == Input::F16 {
            return Ok(equal);
        }
        for f in [
            Activation::Silu,
            Activation::Relu,
            Activation::Gelu,
            Activation::GeluTanh,
        ] {
            let kernel = GateQuantize::new(jit, gpu, f, self.input)?;
            let Some(kernel) = kernel.filter(|kernel| kernel.takes(self.k)) else {
                continue;
            };
            let blocks = BLOCKS.into_iter().filter(|block| self.k.is_multiple_of(*block));
            let blocks = std::iter::once(None).chain(blocks.map(Some));
            for block in blocks.filter(|&block| kernel.transforms(block)) {
                let mut tokens = QuantizedTokens::empty(gpu, self.m, self.k)?;
                kernel.launch(x, block, self.scale, &mut tokens)?;
                let (got, expected) = (tokens.download()?, self.expected_with(f, block));
                if got != expected {
                    println!(
                        "FAILED: {} with {f:?} in clusters, blocks {block:?}",
                        self.words()
                    );
                    equal = false;
                }
            }
        }
        Ok(equal)
    }

    /// Whether `x` on the card is the sum.
    fn holds_sum(&self, x: &Buffer) -> Result<bool, CudaError> {
        let mut got = vec![0.0f32; self.x.len()];
        x.read(0, &mut got)?;
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        Ok(got.iter().zip(&self.added()).all(same))
    }

    fn words(&self) -> String {
        let Self {
            m,
            k,
            before,
            input,
            scale,
            ..
        } = self;
        format!("{m}x{k} {before:?} {input:?} {scale:?}")
    }
}

/// What is added: numbers of every size that the type can hold, now and then one that is none.
fn added_rows(r: &mut Random, input: Input, len: usize) -> Vec<f32> {
    let size = [1e-40, 1e-3, 1.0, 1e4, 3e38][r.below(5)];
    let mut y: Vec<f32> = r.floats(len).iter().map(|v| rounded(input, v * size)).collect();
    if r.below(8) == 0 {
        let at = r.below(len);
        y[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][r.below(3)];
    }
    y
}

/// A number the input's type can hold.
fn rounded(input: Input, x: f32) -> f32 {
    match input {
        Input::F32 => x,
        Input::F16 => f16::from_f32(x).to_f32(),
        Input::Bf16 => bf16::from_f32(x).to_f32(),
    }
}

/// Runs of rows that are transformed alone: how many blocks differ.
fn transforms_differ(jit: &Jit, gpu: &Gpu) -> Result<usize, CudaError> {
    let (kernel, mut r, mut failed) = (Hadamard::new(jit, gpu)?, Random(12), 0);
    for block in BLOCKS {
        for (m, columns) in [(1, block), (5, 3 * block), (3, 4_096 + block), (130, 14_336)] {
            let mut expected = r.floats(m * columns);
            let x = gpu.upload(&expected)?;
            kernel.launch(&x, (m, columns), block)?;
            naive::hadamard(&mut expected, block);
            let mut got = vec![0.0f32; expected.len()];
            x.read(0, &mut got)?;
            let differs = got.iter().zip(&expected).any(|(a, b)| a.to_bits() != b.to_bits());
            if differs {
                println!("FAILED: transform of {m}x{columns} in blocks of {block}");
                failed += 1;
            }
        }
    }
    Ok(failed)
}

/// Rows that are activated, gated and added alone: how many operations differ, some of them with limits that numbers reach and pass.
fn gates_differ(jit: &Jit, gpu: &Gpu) -> Result<usize, CudaError> {
    let limited = [0.5, 1.75, 7.0].map(|limit| GateLimit::new(limit).map(Activation::Clamped));
    let plain = [
        Activation::Silu,
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
    ];
    let (m, columns, mut r, mut failed) = (9, 331, Random(13), 0);
    for f in plain.into_iter().chain(limited.into_iter().flatten()) {
        let x: Vec<bf16> = r
            .floats(2 * m * columns)
            .iter()
            .map(|v| bf16::from_f32(9.0 * v))
            .collect();
        let wide: Vec<f32> = x.iter().map(|v| v.to_f32()).collect();
        let (mut gated, mut active) = (vec![0.0; m * columns], wide[..m * columns].to_vec());
        for (x, out) in wide
            .chunks_exact(2 * columns)
            .zip(gated.chunks_exact_mut(columns))
        {
            naive::gated(x, f, out);
        }
        let sums: Vec<f32> = gated.iter().zip(&wide).map(|(out, x)| out + x).collect();
        let (from, narrow, out) = (gpu.upload(&wide)?, gpu.upload(&x)?, gpu.upload(&active)?);
        naive::activate(&mut active, f);
        for (operation, x, expected) in [
            (Pointwise::Activate(f), &out, &active),
            (Pointwise::Gate(f, Input::F32), &from, &gated),
            (Pointwise::Add(Input::F32), &from, &sums),
            (Pointwise::Gate(f, Input::Bf16), &narrow, &gated),
            (Pointwise::Add(Input::Bf16), &narrow, &sums),
        ] {
            let rows = PointwiseRows::new(jit, gpu, operation)?;
            match operation {
                Pointwise::Add(_) => rows.launch(&out, x, (m, columns))?,
                _ => rows.launch_activation(f, &out, x, (m, columns))?,
            }
            let mut got = vec![0.0f32; m * columns];
            out.read(0, &mut got)?;
            if got.iter().zip(expected).any(|(a, b)| a.to_bits() != b.to_bits()) {
                println!("FAILED: {operation:?}");
                failed += 1;
            }
        }
    }
    Ok(failed)
}

/// Numbers that are rounded to bfloat16 on the card: how many differ. Ties, both neighbours of each, ends of the range, subnormal numbers,
/// infinite ones and none.
fn rounded_differ(jit: &Jit, gpu: &Gpu) -> Result<usize, CudaError> {
    let near = |bits: u32| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)];
    let patterns = (0..=0xffff_u32).flat_map(|high| near(high << 16 | 0x8000));
    let values: Vec<f32> = patterns.map(f32::from_bits).collect();
    let x = gpu.upload(&values)?;
    PointwiseRows::new(jit, gpu, Pointwise::Round)?.round(&x, (3, 1 << 16))?;
    let mut got = vec![0.0f32; values.len()];
    x.read(0, &mut got)?;
    let same = |(got, v): (&f32, &f32)| {
        let expected = naive::to_bf16(*v);
        got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan())
    };
    let different = got.iter().zip(&values).filter(|pair| !same(*pair)).count();
    if different > 0 {
        println!("FAILED: {different} numbers rounded to bfloat16");
    }
    Ok(different)
}

fn compare_all(jit: &Jit, gpu: &Gpu, count: usize) -> Result<usize, CudaError> {
    let alone = transforms_differ(jit, gpu)? + gates_differ(jit, gpu)? + rounded_differ(jit, gpu)?;
    let (mut r, mut failed) = (Random(11), alone);
    for _ in 0..count {
        let case = Case::new(&mut r);
        let kernel = Quantize::new(jit, gpu, case.before, case.input)?;
        let ((x, y), weight) = (case.upload(gpu)?, gpu.upload(&case.weight)?);
        let norm = (&weight, case.eps);
        let mut tokens = QuantizedTokens::empty(gpu, case.m, case.k)?;
        match y {
            Some(y) => kernel.launch_added((&x, &y), norm, case.scale, &mut tokens)?,
            None => {
                let norm = (case.before == Before::RmsNorm).then_some(norm);
                kernel.launch(&x, norm, case.scale, &mut tokens)?;
            }
        }
        if case.before == Before::SwiGlu {
            failed += usize::from(!case.equals_clusters(jit, gpu, &x)?);
        }
        let (got, expected) = (tokens.download()?, case.expected());
        let bits = |scales: &[f32]| scales.iter().map(|scale| scale.to_bits()).collect::<Vec<_>>();
        let parts = [
            got.codes != expected.codes,
            got.sums != expected.sums,
            bits(&got.scales) != bits(&expected.scales),
            case.before == Before::AddRmsNorm && !case.holds_sum(&x)?,
        ];
        if parts.contains(&true) {
            println!(
                "FAILED: {}: codes, sums, scales, x differ: {parts:?}",
                case.words()
            );
            failed += 1;
        }
    }
    Ok(failed)
}

/// Bytes in and out over the time, with rows that no launch finds in a cache.
fn print_times(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    for (before, k) in [
        (Before::Nothing, 8_192),
        (Before::RmsNorm, 4_096),
        (Before::RmsNorm, 8_192),
        (Before::SwiGlu, 11_008),
        (Before::SwiGlu, 28_672),
    ] {
        let kernel = Quantize::new(jit, gpu, before, Input::Bf16)?;
        let weight = gpu.upload(&vec![1.0f32; k])?;
        let norm = (before == Before::RmsNorm).then_some((&weight, 1e-5));
        for m in [1, 16, 4_096] {
            let len = m * before.input_columns(k);
            let mut r = Random(5);
            let pattern: Vec<u16> = (0..1 << 16)
                .map(|_| bf16::from_f32(4.0 * r.float()).to_bits())
                .collect();
            let copies = rotation_copies(gpu, 2 * len).min(64);
            let x = (0..copies).map(|_| gpu.upload_repeated(&pattern, len));
            let x = x.collect::<Result<Vec<Buffer>, _>>()?;
            let tokens = std::cell::RefCell::new(QuantizedTokens::empty(gpu, m, k)?);
            let scale = ActivationScale::PerToken;
            let times = times_s(gpu, 3, copies, |i| {
                kernel.launch(&x[i], norm, scale, &mut tokens.borrow_mut())
            })?;
            let bytes = (2 * len + m * k) as f64;
            println!(
                "{before:?} k = {k}, {m} tokens: {:.2} us, {:.0} GB/s",
                times[1] * 1e6,
                bytes / times[1] / 1e9
            );
        }
    }
    print_chains(jit, gpu)
}

/// What an operation of a step adds to a chain of launches that wait for one another. Few rows come from the second-level cache, as
/// in a step; with many no launch finds its own there.
fn print_chains(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    let (hidden, wide) = (4_096, 14_336);
    let add = PointwiseRows::new(jit, gpu, Pointwise::Add(Input::F32))?;
    let (x, y) = (random_rows(gpu, 256)?, random_rows(gpu, 256)?);
    let times = times_s(gpu, 3, 1, |_| add.launch(&x, &y, (1, 256)))?;
    println!("a launch that adds 256 elements: {:.2} us", times[1] * 1e6);
    let gate = GateQuantize::new(jit, gpu, Activation::Silu, Input::Bf16)?;
    for before in [Before::AddRmsNorm, Before::RmsNorm, Before::Nothing] {
        let input = match before {
            Before::AddRmsNorm => Input::Bf16,
            _ => Input::F32,
        };
        let kernel = Quantize::new(jit, gpu, before, input)?;
        let weight = gpu.upload(&Random(7).floats(hidden))?;
        let norm = (&weight, 1e-5);
        print_chain(gpu, before, hidden, |x, y, tokens| match before {
            Before::AddRmsNorm => kernel.launch_added((x, y), norm, ActivationScale::PerToken, tokens),
            Before::RmsNorm => kernel.launch(x, Some(norm), ActivationScale::PerToken, tokens),
            _ => kernel.launch(x, None, ActivationScale::PerToken, tokens),
        })?;
    }
    let Some(gate) = gate else { return Ok(()) };
    print_chain(gpu, Before::SwiGlu, wide, |x, _, tokens| {
        gate.launch(x, None, ActivationScale::PerToken, tokens)
    })?;
    println!("the same, transformed in blocks of 128:");
    print_chain(gpu, Before::SwiGlu, wide, |x, _, tokens| {
        gate.launch(x, Some(128), ActivationScale::PerToken, tokens)
    })
}

fn print_chain(
    gpu: &Gpu,
    before: Before,
    k: usize,
    launch: impl Fn(&Buffer, &Buffer, &mut QuantizedTokens) -> Result<(), CudaError>,
) -> Result<(), CudaError> {
    for m in [1, 4, 16, 64, 128, 256, 2_048, 8_192] {
        let len = m * before.input_columns(k);
        let copies = if m <= 256 {
            1
        } else {
            rotation_copies(gpu, 2 * len)
        };
        let rows = |_| match before {
            Before::SwiGlu => Ok((random_halves(gpu, len)?, random_halves(gpu, 1)?)),
            _ => Ok((random_rows(gpu, len)?, random_halves(gpu, len)?)),
        };
        let rows = (0..copies).map(rows).collect::<Result<Vec<_>, CudaError>>()?;
        let tokens = std::cell::RefCell::new(QuantizedTokens::empty(gpu, m, k)?);
        let times = times_s(gpu, 3, copies, |i| {
            launch(&rows[i].0, &rows[i].1, &mut tokens.borrow_mut())
        })?;
        // Products leave bf16: a gate and up, and what is added to rows that are read and written as f32.
        let element_bytes = match before {
            Before::SwiGlu => 2,
            Before::AddRmsNorm => 10,
            Before::RmsNorm | Before::Nothing => 4,
        };
        let bytes = (element_bytes * len + m * k) as f64;
        println!(
            "{before:?} k = {k}, {m} tokens: {:.2} us, {:.0} GB/s",
            times[1] * 1e6,
            bytes / times[1] / 1e9
        );
    }
    Ok(())
}

fn random_halves(gpu: &Gpu, len: usize) -> Result<Buffer, CudaError> {
    let values = Random(6).floats(1 << 18);
    let bits: Vec<u16> = values.iter().map(|&v| bf16::from_f32(v).to_bits()).collect();
    gpu.upload_repeated(&bits, len)
}

fn random_rows(gpu: &Gpu, len: usize) -> Result<Buffer, CudaError> {
    gpu.upload_repeated(&Random(5).floats(1 << 18), len)
}

//! Quantization on a card, alone and behind RMSNorm or SwiGLU, against the specification, bit for bit.
//!
//! Without a card or a compiler it says SKIPPED, unless `DUALGRAIN_REQUIRE_GPU` is set. `--cases N` (default 300).

#[path = "equal/cases.rs"]
#[allow(dead_code, reason = "shared with the tests of the CPU")]
mod cases;

use std::process::ExitCode;

use dualgrain_kernels::cuda::{
    Before, Buffer, CudaError, Device, Input, Jit, Quantize, QuantizedTokens, TokenCodes,
};
use dualgrain_kernels::{Activation, ActivationScale, naive};
use half::{bf16, f16};

use cases::Random;

fn main() -> ExitCode {
    let mut arguments = std::env::args()
        .skip_while(|argument| argument != "--cases")
        .skip(1);
    let count = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(300);
    let ready = Device::open(0).and_then(|device| Ok((Jit::new(&device)?, device)));
    let compared = match ready {
        Ok((jit, device)) => compare_all(&jit, &device, count),
        Err(error) if std::env::var_os("DUALGRAIN_REQUIRE_GPU").is_none() => {
            println!("SKIPPED: no quantization compared on a GPU: {error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => Err(error),
    };
    match compared {
        Ok(0) => {
            println!("{count} quantizations equal the specification");
            ExitCode::SUCCESS
        }
        Ok(failed) => {
            println!("FAILED: {failed} of {count} quantizations");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A quantization with what the specification makes of it.
struct Case {
    m: usize,
    k: usize,
    before: Before,
    input: Input,
    scale: ActivationScale,
    eps: f32,
    x: Vec<f32>,
    weight: Vec<f32>,
}

impl Case {
    fn new(r: &mut Random) -> Self {
        let ks = [
            1, 2, 3, 15, 16, 17, 31, 33, 255, 256, 257, 1_021, 4_096, 4_099, 11_008,
        ];
        let (m, k) = (1 + r.below(5), ks[r.below(ks.len())]);
        let (before, input) = (Before::ALL[r.below(3)], Input::ALL[r.below(3)]);
        let columns = before.input_columns(k);
        let mut x = Vec::new();
        for _ in 0..m {
            // Rows of zeros, of tiny, of common and of huge numbers.
            let size = [0.0, 1e-30, 1.0, 1.0, 30.0, 3e4][r.below(6)];
            x.extend((0..columns).map(|_| rounded(input, r.float() * size)));
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
            x,
            weight: r.floats(k),
        }
    }

    fn expected(&self) -> TokenCodes {
        let (mut codes, mut scales) = (vec![0i8; self.m * self.k], Vec::new());
        let mut row = vec![0.0; self.k];
        let inputs = self.x.chunks_exact(self.before.input_columns(self.k));
        for (x, codes) in inputs.zip(codes.chunks_exact_mut(self.k)) {
            match self.before {
                Before::Nothing => row.copy_from_slice(x),
                Before::RmsNorm => naive::rms_norm(x, &self.weight, self.eps, &mut row),
                Before::SwiGlu => naive::gated(x, Activation::Silu, &mut row),
            }
            scales.push(naive::quantize_row(&row, self.scale, codes));
        }
        let sum = |row: &[i8]| row.iter().map(|&code| i32::from(code)).sum();
        let sums = codes.chunks_exact(self.k).map(sum).collect();
        TokenCodes { codes, sums, scales }
    }

    fn upload(&self, device: &Device) -> Result<Buffer, CudaError> {
        let bits = |f: fn(f32) -> u16| self.x.iter().map(|&x| f(x)).collect::<Vec<u16>>();
        match self.input {
            Input::F32 => device.upload(&self.x),
            Input::F16 => device.upload(&bits(|x| f16::from_f32(x).to_bits())),
            Input::Bf16 => device.upload(&bits(|x| bf16::from_f32(x).to_bits())),
        }
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

/// A number the input's type can hold.
fn rounded(input: Input, x: f32) -> f32 {
    match input {
        Input::F32 => x,
        Input::F16 => f16::from_f32(x).to_f32(),
        Input::Bf16 => bf16::from_f32(x).to_f32(),
    }
}

fn compare_all(jit: &Jit, device: &Device, count: usize) -> Result<usize, CudaError> {
    let (mut r, mut failed) = (Random(11), 0);
    for _ in 0..count {
        let case = Case::new(&mut r);
        let kernel = Quantize::new(jit, device, case.before, case.input)?;
        let (x, weight) = (case.upload(device)?, device.upload(&case.weight)?);
        let norm = (case.before == Before::RmsNorm).then_some((&weight, case.eps));
        let mut tokens = QuantizedTokens::empty(device, case.m, case.k)?;
        kernel.launch(&x, norm, case.scale, &mut tokens)?;
        let (got, expected) = (tokens.download()?, case.expected());
        let bits = |scales: &[f32]| scales.iter().map(|scale| scale.to_bits()).collect::<Vec<_>>();
        let parts = [
            got.codes != expected.codes,
            got.sums != expected.sums,
            bits(&got.scales) != bits(&expected.scales),
        ];
        if parts.contains(&true) {
            println!("FAILED: {}: codes, sums, scales differ: {parts:?}", case.words());
            failed += 1;
        }
    }
    Ok(failed)
}

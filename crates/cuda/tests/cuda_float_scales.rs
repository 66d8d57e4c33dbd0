//! The comparison product with float group scales (`gemm_w4f_sm90`) against its specification, bit for bit: every size it is
//! compiled in, hostile shapes, activations and scales. Its order of additions is fixed, so no tolerance is needed.
//!
//! Without a Hopper card or a compiler it says SKIPPED, or fails with `DUALGRAIN_MAY_LACK=nothing`. `--cases N` (default 300).

use std::process::ExitCode;

use dualgrain_cuda::{
    CudaError, FLOAT_SCALES_TABLE, Gemm, GemmConfig, GemmProblem, Gpu, Jit, Output, PackedLinear,
    QuantizedTokens, Split, Variant, float_scales_cut,
};
use dualgrain_device::naive;
use dualgrain_format::{GemmShape, GroupSize, QuantizedLinear};
use half::{bf16, f16};

use dualgrain_device::cases::{HOSTILITIES, Random, activations, w4_layer};
use dualgrain_testing::skipped;

fn main() -> ExitCode {
    let mut arguments = std::env::args()
        .skip_while(|argument| argument != "--cases")
        .skip(1);
    let count = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(300);
    let ready = Gpu::open(0).and_then(|gpu| Ok((Jit::new(&gpu)?, gpu)));
    let compared = match ready {
        Ok((_, gpu)) if gpu.info().capability != (9, 0) => {
            let name = &gpu.info().name;
            skipped(
                "hopper",
                format_args!("gemm_w4f_sm90 not compared: {name} is no Hopper"),
            );
            return ExitCode::SUCCESS;
        }
        Ok((jit, gpu)) => compare_all(&jit, &gpu, count),
        Err(error) => {
            skipped("gpu", format_args!("gemm_w4f_sm90 not compared: {error}"));
            return ExitCode::SUCCESS;
        }
    };
    match compared {
        Ok(0) => {
            println!("{count} products with float group scales equal the specification");
            ExitCode::SUCCESS
        }
        Ok(failed) => {
            println!("FAILED: {failed} of {count} products with float group scales");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Codes, scales and activations, with one of the kernel's sizes.
struct Case {
    shape: GemmShape,
    layer: QuantizedLinear,
    scales: Vec<f16>,
    codes: Vec<i8>,
    ta: Vec<f32>,
    variant: Variant,
    output: Output,
}

impl Case {
    fn new(r: &mut Random) -> Self {
        let ms = [1, 2, 5, 15, 16, 17, 64, 65, 128, 131, 160, 161, 257];
        let ns = [1, 7, 16, 63, 64, 65, 127, 129, 191, 193, 257, 385];
        let ks = [1, 16, 127, 128, 129, 255, 256, 257, 384, 385, 640, 1_021, 2_047];
        let shape = GemmShape {
            m: ms[r.below(ms.len())],
            n: ns[r.below(ns.len())],
            k: ks[r.below(ks.len())],
        };
        let how = HOSTILITIES[r.below(4)];
        let layer = w4_layer(r, (shape.n, shape.k), GroupSize::Along(128), how);
        // From the smallest numbers f16 has to large ones.
        let mut scale =
            || f16::from_f32([6e-8, 1e-4, 0.01, 1.0, 300.0][r.below(5)] * (1.0 + r.float().abs()));
        let scales = (0..shape.n * shape.k.div_ceil(128)).map(|_| scale()).collect();
        let (codes, ta) = activations(r, (shape.m, shape.k), how);
        Self {
            shape,
            layer,
            scales,
            codes,
            ta,
            variant: FLOAT_SCALES_TABLE[r.below(FLOAT_SCALES_TABLE.len())],
            output: [Output::F32, Output::F16, Output::Bf16][r.below(3)],
        }
    }

    fn expected(&self) -> Vec<u8> {
        let scales: Vec<f32> = self.scales.iter().map(|scale| scale.to_f32()).collect();
        let mut d = vec![0.0; self.shape.m * self.shape.n];
        let cut = float_scales_cut(&self.variant, self.shape.k);
        naive::gemm_w4f((&self.codes, &self.ta), &self.layer, &scales, cut, &mut d);
        match self.output {
            Output::F16 => d.iter().flat_map(|&d| f16::from_f32(d).to_le_bytes()).collect(),
            Output::Bf16 => d.iter().flat_map(|&d| bf16::from_f32(d).to_le_bytes()).collect(),
            Output::F32 | Output::Sums => d.iter().flat_map(|d| d.to_le_bytes()).collect(),
        }
    }

    fn run(&self, jit: &Jit, gpu: &Gpu) -> Result<Vec<u8>, CudaError> {
        let problem = GemmProblem {
            shape: self.shape,
            group: GroupSize::Along(128),
            output: self.output,
        };
        let config = GemmConfig {
            variant: self.variant,
            split: Split::Whole,
        };
        let weights = PackedLinear::with_float_scales(gpu, &self.layer, &self.scales, self.shape.n)?;
        let tokens = QuantizedTokens::upload(gpu, &self.codes, &self.ta, self.shape.k)?;
        let elements = self.shape.m * self.shape.n;
        let d = gpu.filled(elements * self.output.size_bytes(), 0xa5)?;
        Gemm::new(jit, gpu, problem, config)?.launch(&weights, &tokens, &d)?;
        let mut got = vec![0; d.len_bytes()];
        d.read(0, &mut got)?;
        Ok(got)
    }
}

fn compare_all(jit: &Jit, gpu: &Gpu, count: usize) -> Result<usize, CudaError> {
    let (mut r, mut failed) = (Random(23), 0);
    for number in 0..count {
        let case = Case::new(&mut r);
        let (got, expected) = (case.run(jit, gpu)?, case.expected());
        if got != expected {
            let wrong = got
                .iter()
                .zip(&expected)
                .filter(|(got, expected)| got != expected);
            let (variant, shape) = (case.variant, case.shape);
            println!(
                "FAILED: case {number}: {variant} on {shape}, {:?}: {} bytes differ",
                case.output,
                wrong.count()
            );
            failed += 1;
        }
    }
    Ok(failed)
}

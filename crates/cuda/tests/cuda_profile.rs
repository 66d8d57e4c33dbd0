//! What measuring on a card rests on: random operands are what the host says they are, the checks pass right products and
//! find wrong ones, `sgemm_tiled` equals the specification bit for bit, and cuBLAS agrees with it in every storage.
//!
//! Without a card or a compiler it says SKIPPED, or fails with `DUALGRAIN_MAY_LACK=nothing`.

use std::process::ExitCode;

use dualgrain_cuda::{
    Arena, Blend, Buffer, Cublas, CublasType, CudaError, Element, Freivalds, Gemm, GemmProblem, Gpu, Jit,
    Output, RandomOperands, SGEMM_TILES, SgemmTiled, Stored, block_bytes, enumerate_all, groups_per_block,
    pack,
};
use dualgrain_device::naive::{self, Transposes};
use dualgrain_format::{GemmShape, GroupSize, QuantizedLinear, QuantizedParts, int4};
use dualgrain_testing::skipped;

fn main() -> ExitCode {
    let ready = Gpu::open(0).and_then(|gpu| Ok((Jit::new(&gpu)?, gpu)));
    let (jit, gpu) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            skipped(
                "gpu",
                format_args!("nothing of a sweep checked on a GPU: {error}"),
            );
            return ExitCode::SUCCESS;
        }
    };
    type Check = fn(&Jit, &Gpu) -> Result<(), CudaError>;
    let checks: [(&str, Check); 4] = [
        (
            "random layers are valid layers, packed as the host packs them",
            layers,
        ),
        (
            "integer check passes right products and finds one wrong sum",
            integers,
        ),
        (
            "sgemm_tiled equals the specification for every tile and storage",
            tiled,
        ),
        ("float check passes cuBLAS and finds one wrong output", libraries),
    ];
    let mut code = ExitCode::SUCCESS;
    for (words, check) in checks {
        match std::panic::catch_unwind(|| check(&jit, &gpu)) {
            Ok(Ok(())) => println!("ok: {words}"),
            Ok(Err(error)) => {
                println!("FAILED: {words}: {error}");
                code = ExitCode::FAILURE;
            }
            Err(_) => {
                println!("FAILED: {words}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// The hash of cu/operands.cu.
fn hashed(seed: u64, at: u64) -> u32 {
    let mut z = seed
        .wrapping_mul(1 << 44)
        .wrapping_add((at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 16) as u32
}

/// A layer rebuilt from the image's codes and scales, read back block by block: word and byte of each as packing.rs says.
fn layer_of(image: &[u8], (n, k): (usize, usize), size: GroupSize) -> QuantizedLinear {
    let groups = size.num_groups(k);
    let (mut q, mut zero, mut s2) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..n {
        let block = |k_idx: usize| {
            let index = row / 64 * k.div_ceil(128) + k_idx / 128;
            &image[index * block_bytes(size)..(index + 1) * block_bytes(size)]
        };
        let (warp, lane_row, upper) = (row % 64 / 16, row % 8, row % 16 / 8);
        let codes: Vec<u8> = (0..k)
            .map(|k_idx| {
                let (step, lane_k) = (k_idx % 128 / 32, k_idx % 16 / 4);
                let word = ((warp * 2 + step / 2) * 32 + lane_row * 4 + lane_k) * 4 + step % 2 * 2 + upper;
                block(k_idx)[4 * word + k_idx % 4] >> (k_idx % 32 / 16 * 4) & 15
            })
            .collect();
        let scale = |group_idx: usize| {
            let first = size.range(group_idx, k).start;
            let sub = match groups_per_block(size) {
                1 => 0,
                per_block => group_idx % per_block,
            };
            let place = 4096 + 4 * ((warp * groups_per_block(size) + sub) * 8 + lane_row) + 2 * upper;
            (block(first)[place], block(first)[place + 1])
        };
        let scales: Vec<(u8, u8)> = (0..groups).map(scale).collect();
        let zeros: Vec<u8> = scales.iter().map(|scale| scale.1).collect();
        int4::pack_row(&codes, zeros[groups - 1], &mut q);
        int4::pack_row(&zeros, 0, &mut zero);
        s2.extend(scales.iter().map(|scale| scale.0));
    }
    let parts = QuantizedParts {
        q,
        zero,
        s2,
        s1: vec![1.0; n],
        bias: None,
        ta: None,
    };
    QuantizedLinear::new((n, k), size, parts).expect("a layer that keeps the int8 guard")
}

fn layers(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    let operands = RandomOperands::new(jit, gpu);
    let mut arena = Arena::new(gpu, 64 << 20)?;
    for size in GroupSize::ALL {
        for (n, k) in [(64, 128), (65, 129), (130, 300), (1, 1), (200, 1_000)] {
            arena.reset();
            let layers = operands.w4(&mut arena, (n, k), size, 2, 7)?;
            let mut image = vec![0u8; layers[0].image_bytes()];
            layers[1].image().read(0, &mut image)?;
            let layer = layer_of(&image, (n, k), size);
            // Everything the reader above does not look at is padding, which the host knows how to write.
            assert!(image == pack(&layer)?, "image of {n}x{k} {size}");
            let w8 = operands.w8(&mut arena, &layers[0])?;
            let (mut got, mut row) = (vec![0i8; n * k], vec![0i8; k]);
            w8.read(0, &mut got)?;
            for (place, got) in got.chunks_exact(k).enumerate() {
                layer.w8_row(place, &mut row);
                assert!(got == row, "row {place} of {n}x{k} {size}");
            }
        }
    }
    let (m, k) = (3, 37);
    let tokens = operands.tokens((m, k), 5)?.download()?;
    for (place, &code) in tokens.codes.iter().enumerate() {
        assert_eq!(i32::from(code), (hashed(5, place as u64) % 255) as i32 - 127);
    }
    Ok(())
}

fn integers(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    let (operands, freivalds) = (RandomOperands::new(jit, gpu), Freivalds::new(jit, gpu)?);
    let mut arena = Arena::new(gpu, 256 << 20)?;
    for (m, n, k) in [(1, 64, 128), (17, 333, 517), (300, 1_000, 2_048)] {
        arena.reset();
        let layers = operands.w4(&mut arena, (n, k), GroupSize::Along(128), 1, 3)?;
        let (tokens, w8) = (operands.tokens((m, k), 4)?, operands.w8(&mut arena, &layers[0])?);
        let a = Stored {
            buffer: tokens.codes(),
            element: Element::S8,
            size: (m, k),
            row_elements: tokens.row_bytes(),
        };
        let b = Stored::dense(&w8, Element::S8, (n, k));
        let expected = freivalds.expect(Transposes { a: false, b: true }, (a, b), 9)?;
        let problem = |output| GemmProblem {
            shape: GemmShape { m, n, k },
            group: GroupSize::Along(128),
            output,
        };
        let config = enumerate_all(&problem(Output::Sums), gpu.info())[0];
        let sums = arena.take(4 * m * n)?;
        Gemm::new(jit, gpu, problem(Output::Sums), config)?.launch(&layers[0], &tokens, &sums)?;
        let d = Stored::dense(&sums, Element::I32, (m, n));
        assert_eq!(freivalds.wrong_sums(d, &expected)?, 0, "{m}x{n}x{k}");
        for output in [Output::F32, Output::F16, Output::Bf16] {
            let out = arena.take(output.size_bytes() * m * n)?;
            Gemm::new(jit, gpu, problem(output), config)?.launch(&layers[0], &tokens, &out)?;
            let wrong = |out: &Buffer| {
                operands.wrong_outputs(freivalds.wrong(), (&sums, out, output), &tokens, &layers[0])
            };
            assert_eq!(wrong(&out)?, 0, "{m}x{n}x{k} {output:?}");
            // One bit of the last output.
            let last = output.size_bytes() * (m * n - 1);
            let mut byte = [0u8];
            out.read(last, &mut byte)?;
            out.write(last, &[byte[0] ^ 1])?;
            assert_eq!(wrong(&out)?, 1, "{m}x{n}x{k} {output:?}");
        }
        let mut last = [0i32];
        sums.read(4 * (m * n - 1), &mut last)?;
        sums.write(4 * (m * n - 1), &[last[0].wrapping_add(1)])?;
        assert_eq!(freivalds.wrong_sums(d, &expected)?, 1, "{m}x{n}x{k}");
    }
    Ok(())
}

/// Operands of a float product on both sides.
struct Floats {
    host: [Vec<f32>; 3],
    card: [Buffer; 3],
}

fn floats(jit: &Jit, gpu: &Gpu, (m, n, k): (usize, usize, usize)) -> Result<Floats, CudaError> {
    let operands = RandomOperands::new(jit, gpu);
    let made = |len: usize, seed| -> Result<(Vec<f32>, Buffer), CudaError> {
        let (buffer, mut values) = (gpu.filled(4 * len, 0)?, vec![0.0; len]);
        operands.floats(&buffer, Output::F32, seed)?;
        buffer.read(0, &mut values)?;
        Ok((values, buffer))
    };
    let [a, b, c] = [made(m * k, 1)?, made(k * n, 2)?, made(m * n, 3)?];
    Ok(Floats {
        host: [a.0, b.0, c.0],
        card: [a.1, b.1, c.1],
    })
}

fn tiled(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    let kernels: Vec<SgemmTiled> = SGEMM_TILES
        .map(|tile| SgemmTiled::new(jit, tile))
        .collect::<Result<_, _>>()?;
    for shape in [(1, 1, 1), (33, 70, 65), (64, 32, 96), (5, 131, 31)] {
        let floats = floats(jit, gpu, shape)?;
        let (m, n, _) = shape;
        let d = gpu.filled(4 * m * n, 0)?;
        for (transposes, blend) in Transposes::ALL
            .into_iter()
            .flat_map(|t| [(1.0, 0.0), (1.0, 1.0), (0.5, -0.25)].map(|blend| (t, blend)))
        {
            let [a, b, c] = &floats.host;
            let mut expected = c.clone();
            naive::sgemm(transposes, shape, blend, a, b, &mut expected);
            for (tile, kernel) in SGEMM_TILES.zip(&kernels) {
                d.copy_from(&floats.card[2])?;
                kernel.launch(transposes, shape, blend, [&floats.card[0], &floats.card[1], &d])?;
                let mut got = vec![0f32; m * n];
                d.read(0, &mut got)?;
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert!(
                    bits(&got) == bits(&expected),
                    "tile {tile} {shape:?} {transposes:?} {blend:?}"
                );
            }
        }
    }
    Ok(())
}

fn libraries(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    let (cublas, freivalds) = (Cublas::new(gpu)?, Freivalds::new(jit, gpu)?);
    let operands = RandomOperands::new(jit, gpu);
    let kinds = [
        (CublasType::F32, Output::F32),
        (CublasType::F16, Output::F16),
        (CublasType::Bf16, Output::Bf16),
    ];
    for (kind, output) in kinds {
        for (m, n, k) in [(64, 96, 128), (33, 70, 65), (257, 1_000, 3_000)] {
            let [a, b, c, d] =
                [m * k, k * n, m * n, m * n].map(|len| gpu.filled(kind.size_bytes() * len, 0xff));
            let product = LibraryProduct {
                cublas: &cublas,
                freivalds: &freivalds,
                kind,
                shape: (m, n, k),
                buffers: [a?, b?, c?, d?],
            };
            for (buffer, seed) in product.buffers[..3].iter().zip(1..) {
                operands.floats(buffer, output, seed)?;
            }
            for transposes in Transposes::ALL {
                product.compare_storage(transposes)?;
            }
            product.find_one_unwritten()?;
        }
    }
    Ok(())
}

/// A product of cuBLAS, and the check that is to judge it.
struct LibraryProduct<'a> {
    cublas: &'a Cublas,
    freivalds: &'a Freivalds<'a>,
    kind: CublasType,
    shape: (usize, usize, usize),
    /// A, B, what is in D beforehand, and D.
    buffers: [Buffer; 4],
}

impl LibraryProduct<'_> {
    /// Operands as they are stored.
    fn stored(&self, transposes: Transposes) -> (Stored<'_>, Stored<'_>) {
        let ([a, b, ..], (m, n, k)) = (&self.buffers, self.shape);
        let a_size = if transposes.a { (k, m) } else { (m, k) };
        let b_size = if transposes.b { (n, k) } else { (k, n) };
        let element = Element::Float(self.kind);
        (
            Stored::dense(a, element, a_size),
            Stored::dense(b, element, b_size),
        )
    }

    fn output(&self) -> Stored<'_> {
        let (m, n, _) = self.shape;
        Stored::dense(&self.buffers[3], Element::Float(self.kind), (m, n))
    }

    fn launch(&self, transposes: Transposes, blend: Blend) -> Result<(), CudaError> {
        let ([a, b, _, d], Blend { alpha, beta }) = (&self.buffers, blend);
        self.cublas
            .launch(self.kind, transposes, self.shape, (alpha, beta), [a, b, d])
    }

    /// The product passes; the other storage of the same numbers is another product.
    fn compare_storage(&self, transposes: Transposes) -> Result<(), CudaError> {
        let ([_, _, c, d], (m, n, k)) = (&self.buffers, self.shape);
        let expected = self.freivalds.expect(transposes, self.stored(transposes), 5)?;
        for (alpha, beta) in [(1.0, 0.0), (1.0, 1.0), (0.5, 0.5)] {
            d.copy_from(c)?;
            let before = self.freivalds.before(self.output(), &expected)?;
            let blend = Blend { alpha, beta };
            self.launch(transposes, blend)?;
            let wrong = || {
                let before = Some(&before);
                self.freivalds
                    .wrong_floats(self.output(), self.kind, &expected, blend, before)
            };
            let words = format!("{:?} {m}x{n}x{k} {transposes:?} {blend:?}", self.kind);
            assert_eq!(wrong()?, 0, "{words}");
            let other = Transposes {
                b: !transposes.b,
                ..transposes
            };
            d.copy_from(c)?;
            self.launch(other, blend)?;
            assert!(wrong()? as usize > m / 2, "{words}");
        }
        Ok(())
    }

    /// One output that was not written.
    fn find_one_unwritten(&self) -> Result<(), CudaError> {
        let ((m, n, _), size) = (self.shape, self.kind.size_bytes());
        let plain = Transposes::ALL[0];
        let expected = self.freivalds.expect(plain, self.stored(plain), 6)?;
        let blend = Blend {
            alpha: 1.0,
            beta: 0.0,
        };
        self.launch(plain, blend)?;
        let poison = vec![0xffu8; size];
        self.buffers[3].write(size * (m * n - 1), &poison)?;
        let wrong = self
            .freivalds
            .wrong_floats(self.output(), self.kind, &expected, blend, None)?;
        assert_eq!(wrong, 1);
        Ok(())
    }
}

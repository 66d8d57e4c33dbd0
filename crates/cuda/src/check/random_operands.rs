//! Random operands made on the card, beside cu/operands.cu: what is timed is too large to be sent there for every product.

use std::ffi::c_void;
use std::sync::Arc;

use dualgrain_format::GroupSize;

use super::launch::{THREADS, pointer, run};
use super::wrong_count::Wrong;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Arena, Buffer, Gpu};
use crate::error::CudaError;
use crate::gemm::{BLOCK_K, BLOCK_N, Output, PackedLinear, QuantizedTokens, group_macro, image_bytes};

/// CTAs of a kernel that walks over everything.
const WALKERS: u32 = 2_048;

/// Text and macros of a kernel of cu/operands.cu.
fn source_of(name: &'static str, macros: Vec<(&'static str, i64)>) -> Source {
    Source {
        name,
        text: cu::OPERANDS,
        headers: cu::HEADERS,
        macros,
    }
}

fn w4_source(name: &'static str, group: GroupSize) -> Source {
    source_of(name, vec![group_macro(group)])
}

fn typed_source(name: &'static str, output: Output) -> Source {
    source_of(name, vec![("OUT", output.code())])
}

/// Every kernel that makes or checks operands, as it is compiled.
pub fn operand_sources() -> Vec<Source> {
    let w4 = GroupSize::ALL
        .into_iter()
        .flat_map(|group| ["random_w4", "expand_w4"].map(|name| w4_source(name, group)));
    let typed = [Output::F32, Output::F16, Output::Bf16]
        .into_iter()
        .flat_map(|output| ["random_floats", "count_wrong_outputs"].map(|name| typed_source(name, output)));
    w4.chain(typed)
        .chain([source_of("random_tokens", Vec::new())])
        .collect()
}

/// Makes operands.
pub struct RandomOperands<'a> {
    jit: &'a Jit,
    gpu: &'a Gpu,
}

impl<'a> RandomOperands<'a> {
    /// For a card.
    pub fn new(jit: &'a Jit, gpu: &'a Gpu) -> Self {
        Self { jit, gpu }
    }

    fn run(&self, source: &Source, grid: usize, arguments: &mut [*mut c_void]) -> Result<(), CudaError> {
        let kernel = self.jit.kernel(source)?;
        run(&kernel, [grid, 1], arguments)
    }

    /// A random layer in `copies` places, scales between 1e-4 and 7.5e-3; every code and group scale is a hash of its place.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or no memory left.
    pub fn w4(
        &self,
        arena: &mut Arena,
        (n, k): (usize, usize),
        group: GroupSize,
        copies: usize,
        seed: u64,
    ) -> Result<Vec<PackedLinear>, CudaError> {
        let size_bytes = image_bytes((n, k), group)?;
        let s1 = arena.take(4 * n)?;
        s1.write(0, &channel_scales(n, seed))?;
        let s1 = Arc::new(s1);
        let first = arena.take(size_bytes)?;
        let k_blocks = k.div_ceil(BLOCK_K);
        let (mut image, mut sizes) = (first.address(), [n as i32, k as i32, k_blocks as i32]);
        let [rows, columns, blocks] = &mut sizes;
        let mut seed = seed;
        self.run(
            &w4_source("random_w4", group),
            n.div_ceil(BLOCK_N) * k_blocks,
            &mut [
                pointer(&mut image),
                pointer(rows),
                pointer(columns),
                pointer(blocks),
                pointer(&mut seed),
            ],
        )?;
        let mut layers = vec![PackedLinear::from_parts((n, k), group, first, Arc::clone(&s1))?];
        for _ in 1..copies {
            let copy = arena.take(size_bytes)?;
            copy.copy_from(layers[0].image())?;
            layers.push(PackedLinear::from_parts((n, k), group, copy, Arc::clone(&s1))?);
        }
        Ok(layers)
    }

    /// The int8 weights `[N,K]` that a layer stands for.
    ///
    /// # Errors
    /// No memory left.
    pub fn w8(&self, arena: &mut Arena, layer: &PackedLinear) -> Result<Buffer, CudaError> {
        let (n, k) = layer.shape();
        let w8 = arena.take(n * k)?;
        let (mut image, mut out) = (layer.image().address(), w8.address());
        let (mut columns, mut blocks) = (k as i32, k.div_ceil(BLOCK_K) as i32);
        self.run(
            &w4_source("expand_w4", layer.group()),
            n,
            &mut [
                pointer(&mut image),
                pointer(&mut columns),
                pointer(&mut blocks),
                pointer(&mut out),
            ],
        )?;
        Ok(w8)
    }

    /// Random activations: codes over the whole range.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or no memory.
    pub fn tokens(&self, (m, k): (usize, usize), seed: u64) -> Result<QuantizedTokens, CudaError> {
        let tokens = QuantizedTokens::empty(self.gpu, m, k)?;
        let (mut codes, mut sums, mut scales) = tokens.addresses();
        let (mut columns, mut row_bytes) = (k as i32, tokens.row_bytes() as i32);
        let mut seed = seed;
        self.run(
            &source_of("random_tokens", Vec::new()),
            m,
            &mut [
                pointer(&mut codes),
                pointer(&mut sums),
                pointer(&mut scales),
                pointer(&mut columns),
                pointer(&mut row_bytes),
                pointer(&mut seed),
            ],
        )?;
        Ok(tokens)
    }

    /// Fills a buffer with floats of mean 0 and variance 1, nearly normal.
    ///
    /// # Errors
    /// [`Output::Sums`], which is no float, or a launch that failed.
    pub fn floats(&self, buffer: &Buffer, kind: Output, seed: u64) -> Result<(), CudaError> {
        let mut out = buffer.address();
        let mut count = (buffer.len_bytes() / kind.size_bytes()) as u64;
        let mut seed = seed;
        let grid = count.div_ceil(u64::from(THREADS)).clamp(1, u64::from(WALKERS)) as usize;
        let arguments = &mut [pointer(&mut out), pointer(&mut count), pointer(&mut seed)];
        self.run(&typed_source("random_floats", kind), grid, arguments)
    }

    /// How many outputs differ from verified sums, scaled and rounded as the number format says.
    ///
    /// # Errors
    /// Buffers that are too short, or a launch that failed.
    pub fn wrong_outputs(
        &self,
        wrong: &Wrong,
        (sums, d, kind): (&Buffer, &Buffer, Output),
        tokens: &QuantizedTokens,
        layer: &PackedLinear,
    ) -> Result<u32, CudaError> {
        let (m, n) = (tokens.shape().0, layer.shape().0);
        for (what, expected, got) in [
            ("sums", 4 * m * n, sums.len_bytes()),
            ("D", kind.size_bytes() * m * n, d.len_bytes()),
        ] {
            if got < expected {
                return Err(CudaError::Length { what, expected, got });
            }
        }
        let (mut sums, mut d, mut columns) = (sums.address(), d.address(), n as i32);
        let (mut ta, mut s1) = (tokens.addresses().2, layer.s1().address());
        let mut count = wrong.cleared()?;
        self.run(
            &typed_source("count_wrong_outputs", kind),
            m,
            &mut [
                pointer(&mut sums),
                pointer(&mut ta),
                pointer(&mut s1),
                pointer(&mut d),
                pointer(&mut columns),
                pointer(&mut count),
            ],
        )?;
        wrong.count()
    }
}

/// Channel scales on the host.
fn channel_scales(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) & 0xffff
    };
    (0..n).map(|_| 1e-4 + next() as f32 * 1e-7).collect()
}

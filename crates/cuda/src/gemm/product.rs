//! W4A8 products on a card: weights and tokens in its memory, a configuration, a launch.

use std::ffi::c_void;
use std::sync::Arc;

use bytemuck::Zeroable;
use dualgrain_format::{GemmShape, QuantizedLinear};
use half::f16;

use crate::compiler::Jit;
use crate::driver::{Buffer, Device, Kernel, byte_matrix_map, launch};
use crate::error::CudaError;
use crate::gemm::kernels::{Cost, GemmConfig, GemmProblem, Geometry, Variant, choose, pack_float_scales};
use crate::gemm::operands::{BLOCK_N, GroupLength, image_bytes, pack};

/// Bytes a row of activations is padded to.
const ROW_BYTES: usize = 16;

/// A W4 layer in a card's memory.
pub struct PackedLinear {
    n: usize,
    k: usize,
    group: GroupLength,
    /// Whether the image holds float group scales, which only `gemm_w4f_sm90` reads.
    float_scales: bool,
    image: Buffer,
    s1: Arc<Buffer>,
    bias: Option<Arc<Buffer>>,
}

impl PackedLinear {
    /// Packs and uploads a layer.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or no memory.
    pub fn new(device: &Device, layer: &QuantizedLinear) -> Result<Self, CudaError> {
        let bias = layer.bias().map(|bias| device.upload(bias).map(Arc::new));
        Ok(Self {
            n: count("N", layer.n())?,
            k: count("K", layer.k())?,
            group: GroupLength::of(layer.group_size())?,
            float_scales: false,
            image: device.upload(&pack(layer)?)?,
            s1: Arc::new(device.upload(layer.s1())?),
            bias: bias.transpose()?,
        })
    }

    /// The codes and bias of a layer in groups of 128, with `scales` `[N, groups]` as float group scales and 8 as every
    /// zero point, for `gemm_w4f_sm90`; rows are repeated up to `n`, as [`PackedLinear::repeated`] does.
    ///
    /// # Errors
    /// Scales or rows that do not fit, sizes the kernels cannot count, or no memory.
    pub fn with_float_scales(
        device: &Device,
        layer: &QuantizedLinear,
        scales: &[f16],
        n: usize,
    ) -> Result<Self, CudaError> {
        let once = pack_float_scales(layer, scales)?;
        let packed = Self::of_image(device, layer, &once, n)?;
        Ok(Self {
            float_scales: true,
            ..packed
        })
    }

    /// The same layer at another place, so that a timing does not find it in a cache.
    ///
    /// # Errors
    /// No memory.
    pub fn copy(&self, device: &Device) -> Result<Self, CudaError> {
        let image = device.filled(self.image.len_bytes(), 0)?;
        image.copy_from(&self.image)?;
        Ok(Self {
            image,
            s1: Arc::clone(&self.s1),
            bias: self.bias.clone(),
            ..*self
        })
    }

    /// A layer of `n` rows: those of `layer`, over and over. Large layers for timing are made quickly so.
    ///
    /// # Errors
    /// A layer whose rows are no multiple of 64, sizes the kernels cannot count, or no memory.
    pub fn repeated(device: &Device, layer: &QuantizedLinear, n: usize) -> Result<Self, CudaError> {
        Self::of_image(device, layer, &pack(layer)?, n)
    }

    fn of_image(device: &Device, layer: &QuantizedLinear, once: &[u8], n: usize) -> Result<Self, CudaError> {
        let group = GroupLength::of(layer.group_size())?;
        if n != layer.n() && !layer.n().is_multiple_of(BLOCK_N) {
            return Err(CudaError::Length {
                what: "rows to repeat, in blocks of 64",
                expected: layer.n().next_multiple_of(BLOCK_N),
                got: layer.n(),
            });
        }
        let image = device.upload_repeated(once, image_bytes((count("N", n)?, layer.k()), group)?)?;
        let cycled = |values: &[f32]| device.upload_repeated(values, n);
        Ok(Self {
            n,
            k: count("K", layer.k())?,
            group,
            float_scales: false,
            image,
            s1: Arc::new(cycled(layer.s1())?),
            bias: layer.bias().map(|bias| cycled(bias).map(Arc::new)).transpose()?,
        })
    }

    /// A layer whose image (as [`pack`] lays it out) and channel scales are on the card already.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or buffers of other lengths.
    pub fn from_parts(
        (n, k): (usize, usize),
        group: GroupLength,
        image: Buffer,
        s1: Arc<Buffer>,
    ) -> Result<Self, CudaError> {
        let expected = image_bytes((count("N", n)?, count("K", k)?), group)?;
        let lengths = [
            ("image", expected, image.len_bytes()),
            ("s1", 4 * n, s1.len_bytes()),
        ];
        if let Some(&(what, expected, got)) = lengths.iter().find(|(_, expected, got)| expected != got) {
            return Err(CudaError::Length { what, expected, got });
        }
        Ok(Self {
            n,
            k,
            group,
            float_scales: false,
            image,
            s1,
            bias: None,
        })
    }

    /// The packed image.
    pub fn image(&self) -> &Buffer {
        &self.image
    }

    /// The channel scales.
    pub fn s1(&self) -> &Buffer {
        &self.s1
    }

    /// Output features and input features.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// Columns that share a group scale.
    pub fn group(&self) -> GroupLength {
        self.group
    }

    /// Bytes of the packed weights.
    pub fn image_bytes(&self) -> usize {
        self.image.len_bytes()
    }
}

/// INT8 activations on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenCodes {
    /// Codes `[M,K]`.
    pub codes: Vec<i8>,
    /// Sum of each token's codes `[M]`.
    pub sums: Vec<i32>,
    /// Scales `[M]`.
    pub scales: Vec<f32>,
}

/// INT8 activations in a card's memory, with their scales and the sums of their codes.
pub struct QuantizedTokens {
    m: usize,
    k: usize,
    row_bytes: usize,
    codes: Buffer,
    sums: Buffer,
    scales: Buffer,
}

impl QuantizedTokens {
    /// Uploads codes `[M,K]` and scales `[M]`.
    ///
    /// # Errors
    /// Lengths that do not fit, sizes the kernels cannot count, or no memory.
    pub fn upload(device: &Device, codes: &[i8], scales: &[f32], k: usize) -> Result<Self, CudaError> {
        let m = count("M", scales.len())?;
        if codes.len() != m * k {
            return Err(CudaError::Length {
                what: "codes of the activations",
                expected: m * k,
                got: codes.len(),
            });
        }
        let row_bytes = count("K", k)?.next_multiple_of(ROW_BYTES);
        let mut padded = vec![0i8; m * row_bytes];
        for (row, padded) in codes.chunks_exact(k).zip(padded.chunks_exact_mut(row_bytes)) {
            padded[..k].copy_from_slice(row);
        }
        let sum = |row: &[i8]| row.iter().map(|&code| i32::from(code)).sum::<i32>();
        let sums: Vec<i32> = codes.chunks_exact(k).map(sum).collect();
        Ok(Self {
            m,
            k,
            row_bytes,
            codes: device.upload(&padded)?,
            sums: device.upload(&sums)?,
            scales: device.upload(scales)?,
        })
    }

    /// Room for `m` tokens of `k` codes that a kernel is to write.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or no memory.
    pub fn empty(device: &Device, m: usize, k: usize) -> Result<Self, CudaError> {
        let row_bytes = count("K", k)?.next_multiple_of(ROW_BYTES);
        Ok(Self {
            m: count("M", m)?,
            k,
            row_bytes,
            codes: device.filled(m * row_bytes, 0)?,
            sums: device.filled(4 * m, 0)?,
            scales: device.filled(4 * m, 0)?,
        })
    }

    /// Copies them to the host.
    ///
    /// # Errors
    /// A call, or an earlier kernel, that failed.
    pub fn download(&self) -> Result<TokenCodes, CudaError> {
        let mut padded = vec![0i8; self.m * self.row_bytes];
        let (mut sums, mut scales) = (vec![0; self.m], vec![0.0; self.m]);
        self.codes.read(0, &mut padded)?;
        self.sums.read(0, &mut sums)?;
        self.scales.read(0, &mut scales)?;
        let rows = padded.chunks_exact(self.row_bytes);
        Ok(TokenCodes {
            codes: rows.flat_map(|row| row[..self.k].iter().copied()).collect(),
            sums,
            scales,
        })
    }

    /// Where codes, sums and scales lie.
    pub(crate) fn addresses(&self) -> (u64, u64, u64) {
        (self.codes.address(), self.sums.address(), self.scales.address())
    }

    /// Bytes between rows of codes.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The codes, rows padded to multiples of 16 bytes.
    pub fn codes(&self) -> &Buffer {
        &self.codes
    }

    /// Tokens and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.m, self.k)
    }
}

/// Sizes are 32-bit on the card.
fn count(what: &'static str, size: usize) -> Result<usize, CudaError> {
    match i32::try_from(size) {
        // Rounding up to a tile must not overflow either.
        Ok(1..=0x7fff_0000) => Ok(size),
        _ => Err(CudaError::TooLarge { what, got: size }),
    }
}

/// Arguments of every product, as `GemmArgs` in cu/w4a8.cuh.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
struct GemmArgs {
    weights: u64,
    codes: u64,
    sums: u64,
    scales: u64,
    s1: u64,
    bias: u64,
    d: u64,
    workspace: u64,
    m: i32,
    n: i32,
    k: i32,
    row_bytes: i32,
    d_row: i32,
    k_blocks: i32,
    cut_tiles: i32,
    raster_m: i32,
}

/// A product made ready: compiled, laid out, with room for the sums of cut tiles. Launching allocates nothing, so
/// launches can be recorded.
pub struct Gemm {
    problem: GemmProblem,
    config: GemmConfig,
    geometry: Geometry,
    kernel: Arc<Kernel>,
    /// Zero between launches: the kernels leave it so.
    workspace: Buffer,
}

impl Gemm {
    /// With the configuration the cost function likes best.
    ///
    /// # Errors
    /// No kernel for the product on this card, or it does not compile or fit.
    pub fn chosen(
        jit: &Jit,
        device: &Device,
        problem: GemmProblem,
        cost: &impl Cost,
    ) -> Result<Self, CudaError> {
        let (major, minor) = device.info().capability;
        let config = choose(&problem, device.info(), cost).ok_or_else(|| CudaError::NoKernel {
            what: format!("{} {:?}", problem.shape, problem.group),
            capability: format!("{major}.{minor}"),
        })?;
        Self::new(jit, device, problem, config)
    }

    /// With a configuration of the caller's.
    ///
    /// # Errors
    /// It does not compile, or does not fit the card.
    pub fn new(
        jit: &Jit,
        device: &Device,
        problem: GemmProblem,
        config: GemmConfig,
    ) -> Result<Self, CudaError> {
        let GemmShape { m, n, k } = problem.shape;
        for (what, size) in [("M", m), ("N", n), ("K", k)] {
            count(what, size)?;
        }
        let geometry = config.geometry(&problem, device.info());
        let kernel = jit.kernel(&config.variant.source(problem.group, problem.output))?;
        kernel.allow_shared(geometry.launch.shared_bytes)?;
        Ok(Self {
            problem,
            config,
            geometry,
            kernel,
            workspace: device.filled(geometry.workspace_bytes, 0)?,
        })
    }

    /// Whether a launch may begin while the one before it ends (the kernels wait where they must). On by default.
    pub fn set_overlap(&mut self, overlap: bool) {
        self.geometry.launch.programmatic &= overlap;
    }

    /// The product.
    pub fn problem(&self) -> &GemmProblem {
        &self.problem
    }

    /// The compiled kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The configuration.
    pub fn config(&self) -> GemmConfig {
        self.config
    }

    /// Blocks and work.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Puts the product on the card's stream: `d` `[M,N]`, elements as the problem says.
    ///
    /// # Errors
    /// Operands that do not fit the problem, or a launch the driver refuses.
    pub fn launch(
        &self,
        weights: &PackedLinear,
        tokens: &QuantizedTokens,
        d: &Buffer,
    ) -> Result<(), CudaError> {
        self.launch_at(weights, tokens, d, 0)
    }

    /// As [`Gemm::launch`], with D beginning at `offset_bytes` of a buffer (a multiple of an element).
    ///
    /// # Errors
    /// As [`Gemm::launch`].
    pub fn launch_at(
        &self,
        weights: &PackedLinear,
        tokens: &QuantizedTokens,
        d: &Buffer,
        offset_bytes: usize,
    ) -> Result<(), CudaError> {
        self.check(weights, tokens, d, offset_bytes)?;
        let mut args = self.args(weights, tokens, d, offset_bytes);
        let args: *mut c_void = (&raw mut args).cast();
        match self.config.variant {
            Variant::Gemm(gemm) | Variant::FloatScales(gemm) => {
                let box_rows = (gemm.tile_m / gemm.cluster) as u32;
                let mut map = byte_matrix_map(&tokens.codes, tokens.shape(), tokens.row_bytes, box_rows)?;
                // SAFETY: the kernel's parameters; the buffers fit the problem (checked), and the driver frees none
                // of them before the stream has passed the launch.
                unsafe {
                    launch(
                        &self.kernel,
                        &self.geometry.launch,
                        &mut [(&raw mut map).cast(), args],
                    )
                }
            }
            // SAFETY: as above.
            Variant::Gemv(_) | Variant::Ampere(_) => unsafe {
                launch(&self.kernel, &self.geometry.launch, &mut [args])
            },
        }
    }

    fn check(
        &self,
        weights: &PackedLinear,
        tokens: &QuantizedTokens,
        d: &Buffer,
        offset_bytes: usize,
    ) -> Result<(), CudaError> {
        let GemmShape { m, n, k } = self.problem.shape;
        let length = |what, expected, got| match expected == got {
            true => Ok(()),
            false => Err(CudaError::Length { what, expected, got }),
        };
        length("N of the weights", n, weights.n)?;
        length("K of the weights", k, weights.k)?;
        length(
            "group of the weights",
            self.problem.group.code(),
            weights.group.code(),
        )?;
        let float_scales = matches!(self.config.variant, Variant::FloatScales(_));
        length(
            "float group scales of the weights",
            usize::from(float_scales),
            usize::from(weights.float_scales),
        )?;
        length("M of the tokens", m, tokens.m)?;
        length("K of the tokens", k, tokens.k)?;
        let element = self.problem.output.size_bytes();
        length("offset of D inside an element", 0, offset_bytes % element)?;
        let end = offset_bytes.saturating_add(m * n * element);
        length("D", end.max(d.len_bytes()), d.len_bytes())
    }

    fn args(&self, weights: &PackedLinear, tokens: &QuantizedTokens, d: &Buffer, offset: usize) -> GemmArgs {
        let GemmShape { m, n, k } = self.problem.shape;
        GemmArgs {
            weights: weights.image.address(),
            codes: tokens.codes.address(),
            sums: tokens.sums.address(),
            scales: tokens.scales.address(),
            s1: weights.s1.address(),
            bias: weights.bias.as_ref().map_or(0, |bias| bias.address()),
            d: d.address() + offset as u64,
            workspace: self.workspace.address(),
            m: m as i32,
            n: n as i32,
            k: k as i32,
            row_bytes: tokens.row_bytes as i32,
            d_row: n as i32,
            k_blocks: self.problem.k_blocks() as i32,
            cut_tiles: self.geometry.cut_tiles as i32,
            raster_m: self.geometry.raster_m as i32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<GemmArgs>(), 96);
    }

    #[test]
    fn sizes_beyond_32_bits_and_none_at_all_are_refused() {
        assert_eq!(count("N", 7), Ok(7));
        assert!(count("N", 0).is_err());
        assert!(count("N", 1 << 31).is_err());
    }
}

//! `gemm_float_few` and `gemm_float_tiled`: float weights times float activations in the specification's order, beside
//! their texts in cu/linear.

use std::sync::Arc;

use super::float_image::{FloatKind, STRIP_ROWS};
use super::linear_float::LinearFloat;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::{at_least, count};

/// Threads of a CTA for few rows.
const FEW_THREADS: usize = 128;
/// Warps of it.
const FEW_WARPS: usize = 4;
/// Bytes of weights in a slot of its ring.
const SLOT_WEIGHT_BYTES: usize = 16_384;
/// Bytes behind a row of activations in a slot.
const ROW_PADDING: usize = 16;
/// CTAs of a multiprocessor that take as long as one.
const RESIDENT: usize = 2;
/// Slots of the ring of a CTA for few rows: more of them where that leaves room for all CTAs, else more CTAs.
const STAGES: [usize; 2] = [3, 4];
/// Shared memory that the system takes of each CTA.
const CTA_SHARED_BYTES: usize = 1_024;
/// Threads of a CTA with a tile.
const TILED_THREADS: usize = 128;
/// Sides of a tile.
const TILE: usize = 128;
/// Groups of rows that a launch counts.
const MOST_GROUPS: usize = 65_535;

/// A kernel of this product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatKernel {
    /// A lane has two outputs; a CTA takes 8 rows of activations and 32 features.
    Few8,
    /// A lane has four outputs; 16 rows and 32 features.
    Few16,
    /// A lane has 16 outputs; 16 rows and 128 features.
    Wide16,
    /// Tiles of 128 by 128 outputs, a thread 16 by 8 of them.
    Tiled,
}

/// How a CTA for few rows is cut.
struct Cut {
    /// Features of a lane.
    features: usize,
    /// Rows of activations of a lane.
    tokens: usize,
    /// Strips of features of a CTA.
    strips: usize,
}

impl FloatKernel {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Few8, Self::Few16, Self::Wide16, Self::Tiled];

    /// The one for `m` rows of activations and `n` features on a card with so many multiprocessors.
    pub fn choose(m: usize, n: usize, num_sms: usize) -> Self {
        let can = |kernel: &Self| kernel.cut().is_none() || kernel.grid(m, n)[1] as usize <= MOST_GROUPS;
        let candidates = Self::ALL.into_iter().filter(can);
        candidates
            .min_by_key(|kernel| kernel.cost(m, n, num_sms))
            .unwrap_or(Self::Tiled)
    }

    /// Tens of nanoseconds for 4,096 columns on an H200, about: two CTAs of a multiprocessor take as long as one.
    fn cost(self, m: usize, n: usize, num_sms: usize) -> usize {
        let [x, y, _] = self.grid(m, n).map(|ctas| ctas as usize);
        let a_multiprocessor = x.saturating_mul(y).div_ceil(num_sms);
        let rows = m.min(self.rows());
        let pair = match self {
            Self::Few8 => 1_800 + 230 * rows,
            // Alone on its multiprocessor it has the larger ring.
            Self::Few16 if a_multiprocessor == 1 => 2_700 + 20 * rows,
            Self::Few16 => 2_400 + 180 * rows,
            Self::Wide16 => 13_900,
            Self::Tiled => 78_900,
        };
        pair * a_multiprocessor.div_ceil(RESIDENT)
    }

    fn cut(self) -> Option<Cut> {
        let cut = |features, tokens, strips| Cut {
            features,
            tokens,
            strips,
        };
        match self {
            Self::Few8 => Some(cut(2, 1, 1)),
            Self::Few16 => Some(cut(2, 2, 1)),
            Self::Wide16 => Some(cut(4, 4, 4)),
            Self::Tiled => None,
        }
    }

    /// Rows of activations of a CTA.
    fn rows(self) -> usize {
        self.cut()
            .map_or(TILE, |cut| FEW_WARPS / cut.strips * cut.features * cut.tokens)
    }

    /// Features of a CTA.
    fn features(self) -> usize {
        self.cut().map_or(TILE, |cut| cut.strips * STRIP_ROWS)
    }

    fn threads(self) -> usize {
        self.cut().map_or(TILED_THREADS, |_| FEW_THREADS)
    }

    fn shared_bytes(self, kind: FloatKind, stages: usize) -> usize {
        let Some(cut) = self.cut() else { return 0 };
        let stage_k = SLOT_WEIGHT_BYTES / (cut.strips * STRIP_ROWS * kind.size_bytes());
        stages * (SLOT_WEIGHT_BYTES + self.rows() * (4 * stage_k + ROW_PADDING))
    }

    /// The kernel's symbol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiled => "gemm_float_tiled",
            Self::Few8 | Self::Few16 | Self::Wide16 => "gemm_float_few",
        }
    }

    /// Index of [`STAGES`] for so many CTAs on a multiprocessor that has so much shared memory.
    fn depth(self, kind: FloatKind, ctas: usize, shared_bytes: usize) -> usize {
        let fits = |stages| shared_bytes / (self.shared_bytes(kind, stages) + CTA_SHARED_BYTES) >= ctas;
        usize::from(fits(STAGES[1]))
    }

    fn source(self, kind: FloatKind, stages: usize) -> Source {
        let bf16 = ("BF16", i64::from(kind == FloatKind::Bf16));
        let (text, macros) = match self.cut() {
            None => (cu::GEMM_FLOAT_TILED, vec![bf16]),
            Some(cut) => {
                let sizes = [
                    ("FEATURES", cut.features),
                    ("TOKENS", cut.tokens),
                    ("STRIPS", cut.strips),
                    ("STAGES", stages),
                ];
                let sizes = sizes.map(|(name, size)| (name, size as i64));
                let macros = std::iter::once(bf16).chain(sizes).collect();
                (cu::GEMM_FLOAT_FEW, macros)
            }
        };
        Source {
            name: self.name(),
            text,
            headers: cu::MODEL_HEADERS,
            macros,
        }
    }

    fn grid(self, m: usize, n: usize) -> [u32; 3] {
        let (groups, columns) = (m.div_ceil(self.rows()), n.div_ceil(self.features()));
        match self {
            Self::Tiled => [(groups * columns) as u32, 1, 1],
            _ => [columns as u32, groups as u32, 1],
        }
    }
}

/// The texts and macros of this product's kernels, with the threads of a CTA.
pub fn gemm_float_sources() -> Vec<(Source, usize)> {
    variants()
        .map(|(kind, kernel, stages)| (kernel.source(kind, stages), kernel.threads()))
        .collect()
}

/// By kind, then by kernel, then by slots of the ring.
fn variants() -> impl Iterator<Item = (FloatKind, FloatKernel, usize)> {
    let pairs = FloatKind::ALL
        .into_iter()
        .flat_map(|kind| FloatKernel::ALL.map(|kernel| (kind, kernel)));
    pairs.flat_map(|(kind, kernel)| STAGES.map(|stages| (kind, kernel, stages)))
}

/// Mirrors `FloatArgs` of the kernels.
#[repr(C)]
struct FloatArgs {
    weights: u64,
    x: u64,
    bias: u64,
    out: u64,
    m: i32,
    n: i32,
    k: i32,
    units: i32,
}

/// `out = x * weights^T + bias`, each output one chain of fused multiply-adds over k from 0, made ready.
pub struct GemmFloat {
    gpu: Gpu,
    /// As [`variants`] has them.
    kernels: Vec<Arc<Kernel>>,
}

impl GemmFloat {
    /// Compiles the kernels for a card.
    ///
    /// # Errors
    /// One does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        let load = |(kind, kernel, stages): (FloatKind, FloatKernel, usize)| {
            let loaded = jit.kernel(&kernel.source(kind, stages))?;
            let shared_bytes = kernel.shared_bytes(kind, stages);
            if shared_bytes <= gpu.info().shared_bytes {
                loaded.allow_shared(shared_bytes)?;
            }
            Ok(loaded)
        };
        let kernels = variants().map(load).collect::<Result<_, CudaError>>()?;
        Ok(Self {
            gpu: gpu.clone(),
            kernels,
        })
    }

    /// Puts the product of the first `m` rows of `x` f32 `[.., K]` and `linear` `[N, K]` on the card's stream; `out` f32 `[m, N]`.
    ///
    /// # Errors
    /// Buffers too small, sizes the kernels cannot count, or a launch the driver refuses.
    pub fn launch(&self, linear: &LinearFloat, x: &Buffer, m: usize, out: &Buffer) -> Result<(), CudaError> {
        let kernel = FloatKernel::choose(m, linear.shape().0, self.gpu.info().num_sms);
        self.launch_with(kernel, linear, x, m, out)
    }

    /// [`Self::launch`] with a given kernel: all give the same bits.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn launch_with(
        &self,
        kernel: FloatKernel,
        linear: &LinearFloat,
        x: &Buffer,
        m: usize,
        out: &Buffer,
    ) -> Result<(), CudaError> {
        if m == 0 {
            return Ok(());
        }
        let ((n, k), kind) = (linear.shape(), linear.kind());
        count("rows of activations", m)?;
        at_least("activations of a float product", 4 * m * k, x)?;
        at_least("output of a float product", 4 * m * n, out)?;
        let grid = kernel.grid(m, n);
        count("CTAs of a float product", grid[0] as usize)?;
        let (weights, bias) = linear.addresses();
        let mut args = FloatArgs {
            weights,
            x: x.address(),
            bias,
            out: out.address(),
            m: m as i32,
            n: n as i32,
            k: k as i32,
            units: kind.units(k) as i32,
        };
        let info = self.gpu.info();
        let ctas = grid[0] as usize * grid[1] as usize;
        let depth = kernel.depth(kind, ctas.div_ceil(info.num_sms), info.shared_bytes);
        let geometry = Launch {
            grid,
            threads: kernel.threads() as u32,
            shared_bytes: kernel.shared_bytes(kind, STAGES[depth]),
            cluster: 1,
            programmatic: info.overlaps_launches(),
        };
        let variant = kind as usize * FloatKernel::ALL.len() + kernel as usize;
        let loaded = &self.kernels[variant * STAGES.len() + depth];
        // SAFETY: the kernel's one parameter; all buffers are as long as its sizes say (checked, or by construction of
        // the layer), and the driver frees none of them before the stream has passed the launch.
        unsafe { launch_with(loaded, &geometry, &mut args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<FloatArgs>(), 48);
    }

    #[test]
    fn rings_fit_the_smallest_shared_memory() {
        for kernel in FloatKernel::ALL {
            for kind in FloatKind::ALL {
                assert!(
                    kernel.shared_bytes(kind, STAGES[0]) <= 99 << 10,
                    "{kernel:?} {kind:?}"
                );
            }
        }
        assert_eq!(
            FloatKernel::Few16.shared_bytes(FloatKind::Bf16, 3),
            3 * (16_384 + 16 * 1_040)
        );
    }

    #[test]
    fn rings_are_larger_where_all_ctas_have_room() {
        let depth = |kernel: FloatKernel, ctas, kib: usize| kernel.depth(FloatKind::Bf16, ctas, kib << 10);
        assert_eq!(
            [1, 2, 3].map(|ctas| depth(FloatKernel::Few8, ctas, 227)),
            [1, 1, 0]
        );
        assert_eq!([1, 2].map(|ctas| depth(FloatKernel::Few16, ctas, 227)), [1, 0]);
        assert_eq!(depth(FloatKernel::Few16, 1, 99), 0);
    }

    #[test]
    fn every_kernel_is_chosen_for_some_shape() {
        let chosen = [(1, 64), (32, 4_096), (512, 4_096), (1_024, 4_096)];
        let chosen = chosen.map(|(m, n)| FloatKernel::choose(m, n, 132));
        assert_eq!(chosen, FloatKernel::ALL);
    }
}

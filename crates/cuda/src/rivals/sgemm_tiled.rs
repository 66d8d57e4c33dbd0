//! `sgemm_tiled`: the FP32 product of the GPPerf paper, one output a thread, beside cu/sgemm_tiled.cu.

use std::sync::Arc;

use dualgrain_device::naive::Transposes;

use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Kernel, Launch, launch_with};
use crate::error::CudaError;

/// Sides of the square tile: 32 x 32 threads are the most a CTA may have.
pub const SGEMM_TILES: std::ops::RangeInclusive<usize> = 1..=32;

/// The text and macros of `sgemm_tiled` with a tile.
pub fn sgemm_source(tile: usize) -> Source {
    Source {
        name: "sgemm_tiled",
        text: cu::SGEMM_TILED,
        headers: &[],
        macros: vec![("TILE", tile as i64)],
    }
}

/// Mirrors `SgemmArgs` of the kernel.
#[repr(C)]
struct SgemmArgs {
    a: u64,
    b: u64,
    d: u64,
    a_strides: [i64; 2],
    b_strides: [i64; 2],
    sizes: [i32; 3],
    alpha: f32,
    beta: f32,
}

/// The kernel with one tile, compiled.
pub struct SgemmTiled {
    tile: usize,
    kernel: Arc<Kernel>,
}

impl SgemmTiled {
    /// With a tile of [`SGEMM_TILES`].
    ///
    /// # Errors
    /// Another tile, or a kernel that does not compile.
    pub fn new(jit: &Jit, tile: usize) -> Result<Self, CudaError> {
        if !SGEMM_TILES.contains(&tile) {
            return Err(CudaError::TooLarge {
                what: "tile (1 to 32)",
                got: tile,
            });
        }
        let kernel = jit.kernel(&sgemm_source(tile))?;
        Ok(Self { tile, kernel })
    }

    /// The compiled kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Shared memory of a CTA: a tile of each operand.
    pub fn shared_bytes(&self) -> usize {
        8 * self.tile * self.tile
    }

    /// CTAs and threads of a product.
    ///
    /// # Errors
    /// More CTAs than a launch may have.
    pub fn geometry(&self, (m, n): (usize, usize)) -> Result<Launch, CudaError> {
        let ctas = m.div_ceil(self.tile).saturating_mul(n.div_ceil(self.tile));
        let grid = i32::try_from(ctas).map_err(|_| CudaError::TooLarge {
            what: "CTAs of sgemm_tiled",
            got: ctas,
        })?;
        Ok(Launch {
            grid: [grid as u32, 1, 1],
            threads: (self.tile * self.tile) as u32,
            shared_bytes: 0,
            cluster: 1,
            programmatic: false,
        })
    }

    /// Puts `d = alpha * op(a) * op(b) + beta * d` on the card's stream.
    ///
    /// # Errors
    /// Buffers that are too short, sizes beyond 31 bits, or a launch the driver refuses.
    pub fn launch(
        &self,
        transposes: Transposes,
        (m, n, k): (usize, usize, usize),
        (alpha, beta): (f32, f32),
        [a, b, d]: [&Buffer; 3],
    ) -> Result<(), CudaError> {
        let geometry = self.geometry((m, n))?;
        for (what, expected, buffer) in [("A", m * k, a), ("B", k * n, b), ("D", m * n, d)] {
            let (expected, got) = (4 * expected, buffer.len_bytes());
            if got < expected {
                return Err(CudaError::Length { what, expected, got });
            }
        }
        let size = |what, got: usize| i32::try_from(got).map_err(|_| CudaError::TooLarge { what, got });
        let pair = |(one, two): (usize, usize)| [one as i64, two as i64];
        let mut args = SgemmArgs {
            a: a.address(),
            b: b.address(),
            d: d.address(),
            a_strides: pair(transposes.strides_a(m, k)),
            b_strides: pair(transposes.strides_b(n, k)),
            sizes: [size("M", m)?, size("N", n)?, size("K", k)?],
            alpha,
            beta,
        };
        // SAFETY: the kernel's one parameter; the buffers hold the matrices (checked), strides stay inside them.
        unsafe { launch_with(&self.kernel, &geometry, &mut args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<SgemmArgs>(), 80);
    }
}

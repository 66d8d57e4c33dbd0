//! `combine`: what the experts of each token gave, added to the stream, beside cu/experts/combine.cu.

use std::sync::Arc;

use super::token_routing::TokenRouting;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;

/// Threads of a CTA.
const THREADS: u32 = 256;
/// Columns of a CTA.
const COLUMNS: usize = 1_024;

/// The text and macros of `combine`, with the threads of a CTA.
pub fn combine_source() -> (Source, usize) {
    let source = Source {
        name: "combine",
        text: cu::COMBINE,
        headers: cu::EXPERT_HEADERS,
        macros: Vec::new(),
    };
    (source, THREADS as usize)
}

/// Arguments of the kernel, as `CombineArgs` there.
#[repr(C)]
struct CombineArgs {
    x: u64,
    y: u64,
    shared: u64,
    shared_weight: u64,
    weights: u64,
    rows: u64,
    columns: i32,
    num_chosen: i32,
}

/// The kernel, made ready.
pub struct Combine {
    kernel: Arc<Kernel>,
    programmatic: bool,
}

impl Combine {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        Ok(Self {
            kernel: jit.kernel(&combine_source().0)?,
            programmatic: gpu.info().overlaps_launches(),
        })
    }

    /// Adds what the experts gave, `y` f32 `[rows of the routing, columns]`, and a shared one, f32 `[tokens, columns]`, to `x`.
    ///
    /// # Errors
    /// Buffers that are too short, or a launch the driver refuses.
    pub fn launch(
        &self,
        x: &Buffer,
        y: &Buffer,
        shared: Option<&Buffer>,
        columns: usize,
        routing: &TokenRouting,
    ) -> Result<(), CudaError> {
        let m = routing.num_tokens();
        at_least("a mixture's stream", 4 * m * columns, x)?;
        at_least("outputs of experts", 4 * routing.num_rows() * columns, y)?;
        if let Some(shared) = shared {
            at_least("outputs of a shared expert", 4 * m * columns, shared)?;
        }
        let (shared_weight, weights, rows) = routing.of_tokens();
        let mut args = CombineArgs {
            x: x.address(),
            y: y.address(),
            shared: shared.map_or(0, Buffer::address),
            shared_weight,
            weights,
            rows,
            columns: columns as i32,
            num_chosen: routing.shape().num_chosen as i32,
        };
        let grid = Launch::rows(m, columns.div_ceil(COLUMNS), THREADS, self.programmatic);
        // SAFETY: the kernel's one parameter; the buffers are long enough (checked), and the routing holds rows of its own alone.
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<CombineArgs>(), 56);
    }
}

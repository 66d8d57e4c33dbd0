//! Rotary position embedding.

use std::sync::Arc;

use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::{RowPart, at_least};

/// Threads of a CTA; one CTA takes a token.
const THREADS: u32 = 256;

/// The text of `rope`.
pub fn rope_source() -> Source {
    Source {
        name: "rotate",
        text: cu::ROPE,
        headers: cu::MODEL_HEADERS,
        macros: Vec::new(),
    }
}

/// Arguments of the kernel, as `RopeArgs` in cu/rows/rotate.cu.
#[repr(C)]
struct RopeArgs {
    x: u64,
    angles: u64,
    x_row: i32,
    heads: i32,
    head_dim: i32,
    rotary_dim: i32,
}

/// The kernel, made ready.
pub struct Rope {
    kernel: Arc<Kernel>,
    programmatic: bool,
}

impl Rope {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        Ok(Self {
            kernel: jit.kernel(&rope_source())?,
            programmatic: gpu.info().overlaps_launches(),
        })
    }

    /// Rotates every head of `head_dim` elements inside `columns` of `m` rows of `x` by `angles` `[m, rotary_dim]`.
    ///
    /// # Errors
    /// Buffers that are too short, or a launch the driver refuses.
    pub fn launch(
        &self,
        x: &Buffer,
        m: usize,
        (columns, head_dim): (RowPart, usize),
        (angles, rotary_dim): (&Buffer, usize),
    ) -> Result<(), CudaError> {
        at_least("rows to rotate", 4 * m * columns.row, x)?;
        at_least("angles", 4 * m * rotary_dim, angles)?;
        let mut args = RopeArgs {
            x: x.address() + 4 * columns.first as u64,
            angles: angles.address(),
            x_row: columns.row as i32,
            heads: (columns.len / head_dim) as i32,
            head_dim: head_dim as i32,
            rotary_dim: rotary_dim as i32,
        };
        let grid = Launch::rows(m, 1, THREADS, self.programmatic);
        // SAFETY: the kernel's one parameter; both buffers are as long as its sizes say (checked).
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}

//! The launch that chooses tokens.

use std::sync::Arc;

use super::sampler::{SampleRows, Sampler};
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::{at_least, room};

/// Threads of a block, as in cu/sampling/cluster.cuh.
const THREADS: u32 = 512;
/// Blocks that take a row together on Hopper and later, as there.
const CLUSTER: usize = 8;
/// Lanes of a sum; a block's tokens begin at a multiple.
const LANES: usize = 16;
/// Shared memory that the kernel and the system take beside the logits.
const OWN_SHARED_BYTES: usize = 18 * 1_024;
/// Logits at once in shared memory where a block's share of a row has no room in it.
const TILE: usize = 8_192;

/// The text of `sample`.
pub fn sample_source() -> Source {
    Source {
        name: "sample",
        text: cu::SAMPLE,
        headers: cu::SAMPLING_HEADERS,
        macros: Vec::new(),
    }
}

/// Arguments of the kernel, as `SampleArgs` in cu/sampling/sample.cu.
#[repr(C)]
struct SampleArgs {
    logits: u64,
    rows: u64,
    slots: u64,
    counts: u64,
    biases: u64,
    masks: u64,
    results: u64,
    tops: u64,
    last_tokens: u64,
    vocab: u32,
    chunk: u32,
    room: u32,
    unused: u32,
}

/// The kernel, made ready.
pub struct Sampling {
    gpu: Gpu,
    kernel: Arc<Kernel>,
}

/// How a row is divided.
struct Shares {
    cluster: usize,
    chunk: usize,
    room: usize,
}

impl Sampling {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        let kernel = jit.kernel(&sample_source())?;
        kernel.allow_shared(gpu.info().shared_bytes - OWN_SHARED_BYTES)?;
        Ok(Self {
            gpu: gpu.clone(),
            kernel,
        })
    }

    /// Puts the choice of a token from each row of `logits`, f32 `[rows, vocab_size]`, on the card's stream, by the rule of
    /// [`dualgrain_device::naive::sample_masked`], and counts it for its sequence. The samples are
    /// copied behind it; [`Sampler::read`] gives them.
    ///
    /// # Errors
    /// Logits of another length, more rows than the sampler has slots, or a launch the driver refuses.
    pub fn launch(&self, sampler: &mut Sampler, logits: &Buffer, rows: &SampleRows) -> Result<(), CudaError> {
        let (vocab, count) = (sampler.shape().vocab_size, rows.len());
        at_least("logits", 4 * count * vocab, logits)?;
        room("slots of the rows to sample", count, sampler.shape().sequences)?;
        let shares = self.shares(vocab);
        let mut args = SampleArgs {
            logits: logits.address(),
            rows: rows.buffer.address(),
            slots: sampler.slots.address(),
            counts: sampler.counts.address(),
            biases: sampler.biases.address(),
            masks: sampler.masks.address(),
            results: sampler.results.address(),
            tops: sampler.tops.address(),
            last_tokens: sampler.last_tokens.address(),
            vocab: vocab as u32,
            chunk: shares.chunk as u32,
            room: shares.room as u32,
            unused: 0,
        };
        // SAFETY: the kernel's one parameter; the buffers are as long as the sampler's shape says (checked, or by
        // construction), and the driver frees none of them before the stream has passed the launch.
        unsafe { launch_with(&self.kernel, &self.grid(count, &shares), &mut args) }?;
        sampler.read_back(rows)
    }

    fn grid(&self, rows: usize, shares: &Shares) -> Launch {
        Launch {
            grid: [(rows * shares.cluster) as u32, 1, 1],
            threads: THREADS,
            shared_bytes: 4 * shares.room,
            cluster: shares.cluster as u32,
            programmatic: self.gpu.info().overlaps_launches(),
        }
    }

    fn shares(&self, vocab: usize) -> Shares {
        let info = self.gpu.info();
        let cluster = if info.capability >= (9, 0) { CLUSTER } else { 1 };
        let chunk = vocab.div_ceil(cluster).next_multiple_of(LANES);
        let is_held = 4 * chunk <= info.shared_bytes - OWN_SHARED_BYTES;
        Shares {
            cluster,
            chunk,
            room: if is_held { chunk } else { TILE },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<SampleArgs>(), 88);
    }
}

//! What the machine could do at best: integer multiply-adds without a load, and bytes read from memory. Rates of real
//! products mean something beside these only.

use std::hint::black_box;
use std::time::Instant;

use dualgrain_device::{Device, DeviceError};

use crate::device::cpu_device::CpuDevice;
use crate::isa::{Isa, per_isa};
use crate::memory::aligned::Aligned;

/// Read at once by all threads, where twice the last-level cache is not more.
const READ_BYTES: usize = 512 << 20;
/// More would take memory that others need.
const MOST_READ_BYTES: usize = 1 << 30;
/// Bytes of a task of reading.
const CHUNK_BYTES: usize = 1 << 20;
/// Reads some words from so many places side by side.
type Reader = fn(Isa, &[u64]) -> u64;
/// Machines differ in what suits them: one stream, or as many as the product of one token reads panels. The best counts.
const READERS: [Reader; 3] = [read_1, read_4, read_8];
/// Rounds of each way of reading.
const READ_ROUNDS: usize = 3;
/// Steps of a chain: some milliseconds.
const STEPS: usize = 500_000;
/// The best of so many rounds counts.
const ROUNDS: usize = 5;

/// Rates of all threads of a device together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachinePeak {
    /// Integer operations (a multiply-add is two) of the widest dot product of the instruction set; `None` on the
    /// portable path.
    pub int8_ops_per_s: Option<f64>,
    /// Bytes read from memory.
    pub read_bytes_per_s: f64,
}

impl CpuDevice {
    /// Measures the machine for about a second, with all threads of this device.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn measure_peak(&self) -> Result<MachinePeak, DeviceError> {
        let (pool, threads) = (self.pool(), self.pool().num_threads());
        let int8_ops_per_s = chains(self.isa()).map(|(run, operations)| {
            let time_s = best_of(ROUNDS, || pool.run(threads, |_| run(STEPS)));
            (threads * STEPS * operations) as f64 / time_s
        });
        Ok(MachinePeak {
            int8_ops_per_s,
            read_bytes_per_s: self.read_bytes_per_s()?,
        })
    }

    /// The best of several ways to read: by each number of streams, in small tasks that threads take in turn and in one part for each thread.
    fn read_bytes_per_s(&self) -> Result<f64, DeviceError> {
        let (pool, read_bytes) = (self.pool(), read_bytes());
        let buffer = Aligned::weights(&self.name(), read_bytes / size_of::<u64>());
        let mut buffer: Aligned<u64> = buffer.map_err(|_| DeviceError::OutOfMemory {
            what: "buffer to read",
            device: self.name(),
            size_bytes: read_bytes,
        })?;
        // Pages that were never written may all be one.
        buffer.fill(1);
        let chunk = CHUNK_BYTES / size_of::<u64>();
        let part = (buffer.len() / pool.num_threads()).max(chunk);
        let mut best = 0.0_f64;
        for (read, words) in READERS.into_iter().flat_map(|read| [(read, chunk), (read, part)]) {
            let num_tasks = buffer.len() / words;
            let time_s = best_of(READ_ROUNDS, || {
                pool.run(num_tasks, |task| {
                    black_box(read(self.isa(), &buffer[task * words..(task + 1) * words]));
                });
            });
            best = best.max((num_tasks * words * size_of::<u64>()) as f64 / time_s);
        }
        Ok(best)
    }
}

/// Whole tasks, and more than the cache keeps from one round to the next.
fn read_bytes() -> usize {
    let twice = last_level_cache_bytes().map_or(0, |cache| cache.saturating_mul(2));
    twice
        .clamp(READ_BYTES, MOST_READ_BYTES)
        .next_multiple_of(CHUNK_BYTES)
}

/// Bytes of the largest cache of the first core, as Linux tells; `None` elsewhere.
pub fn last_level_cache_bytes() -> Option<usize> {
    let sizes = (0..8).filter_map(|index| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = std::fs::read_to_string(path).ok()?;
        let (digits, unit) = text.trim().split_at(text.trim().len().checked_sub(1)?);
        let unit = match unit {
            "K" => 1 << 10,
            "M" => 1 << 20,
            _ => return None,
        };
        digits.parse::<usize>().ok()?.checked_mul(unit)
    });
    sizes.max()
}

/// Seconds of the fastest of some rounds, after one to warm up.
fn best_of(rounds: usize, round: impl Fn()) -> f64 {
    round();
    let timed = (0..rounds).map(|_| {
        let start = Instant::now();
        round();
        start.elapsed().as_secs_f64()
    });
    timed.fold(f64::INFINITY, f64::min).max(1e-9)
}

per_isa! {
    fn read_1(words: &[u64]) -> u64 = read_streams::<1>
}
per_isa! {
    fn read_4(words: &[u64]) -> u64 = read_streams::<4>
}
per_isa! {
    fn read_8(words: &[u64]) -> u64 = read_streams::<8>
}

/// All words but a few at the end of each stream, folded to one.
#[inline(always)]
fn read_streams<const STREAMS: usize>(words: &[u64]) -> u64 {
    let part = words.len() / STREAMS;
    let mut sums = [[0_u64; 8]; STREAMS];
    for line in (0..part / 8 * 8).step_by(8) {
        for (stream, sums) in sums.iter_mut().enumerate() {
            for (sum, word) in sums.iter_mut().zip(&words[stream * part + line..][..8]) {
                *sum ^= word;
            }
        }
    }
    sums.iter().flatten().fold(0, |all, sum| all ^ sum)
}

/// Independent dot products in registers, and the operations of a step.
#[cfg(target_arch = "x86_64")]
fn chains(isa: Isa) -> Option<(fn(usize), usize)> {
    // SAFETY (of the calls): the device exists, so its instruction set does.
    match isa {
        Isa::Portable => None,
        // SAFETY: as above.
        Isa::Avx2 => Some((|steps| unsafe { x86::maddubs(steps) }, 2 * 32 * x86::CHAINS)),
        // SAFETY: as above. The 256-bit instructions of AVX-VNNI have the rate of `maddubs`, without the additions.
        Isa::AvxVnni => Some((|steps| unsafe { x86::dpbusd_256(steps) }, 2 * 32 * x86::CHAINS)),
        // SAFETY: as above.
        Isa::Avx512Vnni => Some((|steps| unsafe { x86::dpbusd_512(steps) }, 2 * 64 * x86::CHAINS)),
        Isa::Amx => Some((crate::gemm_w4a8::amx::dot_chains, 2 * 16_384 * 4)),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn chains(_: Isa) -> Option<(fn(usize), usize)> {
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Accumulators, enough for the latency of every instruction set.
    pub(crate) const CHAINS: usize = 12;

    /// Each product is added in i16, as the tile of `gemm_w4a8/avx2.rs` does.
    #[target_feature(enable = "avx2")]
    pub(crate) fn maddubs(steps: usize) {
        let (a, mut acc) = (black_box(_mm256_set1_epi8(3)), [_mm256_setzero_si256(); CHAINS]);
        for _ in 0..steps {
            for acc in &mut acc {
                *acc = _mm256_add_epi16(*acc, _mm256_maddubs_epi16(*acc, a));
            }
        }
        black_box(acc);
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(crate) fn dpbusd_256(steps: usize) {
        let (a, mut acc) = (black_box(_mm256_set1_epi8(3)), [_mm256_setzero_si256(); CHAINS]);
        for _ in 0..steps {
            for acc in &mut acc {
                *acc = _mm256_dpbusd_avx_epi32(*acc, a, a);
            }
        }
        black_box(acc);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(crate) fn dpbusd_512(steps: usize) {
        let (a, mut acc) = (black_box(_mm512_set1_epi8(3)), [_mm512_setzero_si512(); CHAINS]);
        for _ in 0..steps {
            for acc in &mut acc {
                *acc = _mm512_dpbusd_epi32(*acc, a, a);
            }
        }
        black_box(acc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_chunk_is_read() {
        for place in [0, 7, 8, 1000, 4095] {
            let mut words = vec![0_u64; 4096];
            words[place] = 5;
            for isa in crate::available() {
                for read in READERS {
                    assert_eq!(read(isa, &words), 5, "{} at {place}", isa.name());
                }
            }
        }
        // A part for each of three threads has no whole number of lines.
        assert!(READERS.iter().all(|read| read(Isa::Portable, &[1; 1_003]) <= 1));
    }
}

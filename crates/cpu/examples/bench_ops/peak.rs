//! What the machine could do at best.

use dualgrain_cpu::{CpuDevice, Isa};

use crate::table::Table;

/// What the registers alone can do: multiply-adds without a load, on one thread.
pub fn peaks(device: &CpuDevice, table: &mut Table) {
    #[cfg(target_arch = "x86_64")]
    if device.num_threads() == 1 {
        const STEPS: usize = 100_000;
        let (lanes, run): (usize, fn(usize)) = match device.isa() {
            // SAFETY: the device exists, so the instruction set does.
            Isa::Avx512Vnni | Isa::Amx => (16, |steps| unsafe { chains::fma_avx512(steps) }),
            // SAFETY: as above.
            Isa::Avx2 | Isa::AvxVnni => (8, |steps| unsafe { chains::fma_avx2(steps) }),
            Isa::Portable => return,
        };
        let operations = (2 * chains::CHAINS * lanes * STEPS) as f64;
        table.row(device, "peak_fma", "registers", operations, "GFLOPS", || {
            run(STEPS)
        });
        if matches!(device.isa(), Isa::Avx512Vnni | Isa::Amx) {
            // SAFETY: as above.
            let run = || unsafe { chains::dot_avx512(STEPS) };
            table.row(device, "peak_dot", "registers", 4.0 * operations, "GOPS", run);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod chains {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    pub const CHAINS: usize = 12;

    #[target_feature(enable = "avx2,fma")]
    pub fn fma_avx2(steps: usize) {
        let (a, mut acc) = (black_box(_mm256_set1_ps(0.5)), [_mm256_setzero_ps(); CHAINS]);
        for _ in 0..steps {
            acc.iter_mut().for_each(|acc| *acc = _mm256_fmadd_ps(a, a, *acc));
        }
        black_box(acc);
    }

    #[target_feature(enable = "avx512f")]
    pub fn fma_avx512(steps: usize) {
        let (a, mut acc) = (black_box(_mm512_set1_ps(0.5)), [_mm512_setzero_ps(); CHAINS]);
        for _ in 0..steps {
            acc.iter_mut().for_each(|acc| *acc = _mm512_fmadd_ps(a, a, *acc));
        }
        black_box(acc);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn dot_avx512(steps: usize) {
        let (a, mut acc) = (black_box(_mm512_set1_epi8(3)), [_mm512_setzero_si512(); CHAINS]);
        for _ in 0..steps {
            acc.iter_mut()
                .for_each(|acc| *acc = _mm512_dpbusd_epi32(*acc, a, a));
        }
        black_box(acc);
    }
}

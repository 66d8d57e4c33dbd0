//! Instruction sets to test.

use dualgrain_cpu::{CpuBackend, Isa, Linear};
use dualgrain_device::{Backend, KernelError, SLICE_ROWS};
use dualgrain_format::LinearWeights;

pub use dualgrain_device::cases::*;

/// A backend for every instruction set and for one and three threads. Missing instruction sets are printed; those
/// named in `DUALGRAIN_REQUIRE_ISA` (comma-separated) must be there.
pub fn backends() -> Vec<CpuBackend> {
    let required = std::env::var("DUALGRAIN_REQUIRE_ISA").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        assert!(
            Isa::by_name(name).is_ok(),
            "DUALGRAIN_REQUIRE_ISA names {name}, which this machine does not have"
        );
    }
    let mut backends = Vec::new();
    for isa in Isa::ALL {
        if isa.is_available() {
            backends.extend([1, 3].map(|num_threads| CpuBackend::with_isa(num_threads, isa).unwrap()));
        } else {
            println!("NOT TESTED: this machine has no {}", isa.name());
        }
    }
    backends
}

/// Words that name a backend in a failed assertion.
pub fn name(backend: &CpuBackend) -> String {
    format!("{} on {} threads", backend.isa().name(), backend.num_threads())
}

/// A layer of more than four slices' rows, packed in slices of different lengths.
pub fn pack_in_slices(backend: &CpuBackend, layer: &LinearWeights) -> Linear {
    let cuts = [
        0..SLICE_ROWS,
        SLICE_ROWS..3 * SLICE_ROWS,
        3 * SLICE_ROWS..layer.n(),
    ];
    let slices = cuts.into_iter().map(|rows| {
        let slice = layer.select_rows(&rows.collect::<Vec<_>>());
        Ok::<_, KernelError>(slice.unwrap())
    });
    backend.pack_slices((layer.n(), layer.k()), slices).unwrap()
}

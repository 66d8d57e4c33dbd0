//! Instruction sets to test.

use dualgrain_cpu::{CpuDevice, Isa, Linear};
use dualgrain_device::{Device, DeviceError, SLICE_ROWS};
use dualgrain_format::LinearWeights;

pub use dualgrain_device::cases::*;

/// A device for every instruction set and for one and three threads. Missing instruction sets are printed; those
/// named in `DUALGRAIN_REQUIRE_ISA` (comma-separated) must be there.
pub fn devices() -> Vec<CpuDevice> {
    let required = std::env::var("DUALGRAIN_REQUIRE_ISA").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        assert!(
            Isa::by_name(name).is_ok(),
            "DUALGRAIN_REQUIRE_ISA names {name}, which this machine does not have"
        );
    }
    let mut devices = Vec::new();
    for isa in Isa::ALL {
        if isa.is_available() {
            devices.extend([1, 3].map(|num_threads| CpuDevice::with_isa(num_threads, isa).unwrap()));
        } else {
            println!("NOT TESTED: this machine has no {}", isa.name());
        }
    }
    devices
}

/// Words that name a device in a failed assertion.
pub fn name(device: &CpuDevice) -> String {
    format!("{} on {} threads", device.isa().name(), device.num_threads())
}

/// A layer of more than four slices' rows, packed in slices of different lengths.
pub fn pack_in_slices(device: &CpuDevice, layer: &LinearWeights) -> Linear {
    let cuts = [
        0..SLICE_ROWS,
        SLICE_ROWS..3 * SLICE_ROWS,
        3 * SLICE_ROWS..layer.n(),
    ];
    let slices = cuts.into_iter().map(|rows| {
        let slice = layer.select_rows(&rows.collect::<Vec<_>>());
        Ok::<_, DeviceError>(slice.unwrap())
    });
    device.pack_slices((layer.n(), layer.k()), slices).unwrap()
}

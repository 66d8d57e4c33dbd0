//! Instruction sets to test.

use dualgrain_cpu::{CpuDevice, Isa, Linear};
use dualgrain_device::{Device, DeviceError, SLICE_ROWS};
use dualgrain_format::LinearWeights;
use dualgrain_testing::skipped;

pub use dualgrain_device::cases::*;

/// A device for every instruction set and for one and three threads; an instruction set that this machine lacks is skipped.
pub fn devices() -> Vec<CpuDevice> {
    let mut devices = Vec::new();
    for isa in Isa::ALL {
        if isa.is_available() {
            devices.extend([1, 3].map(|num_threads| CpuDevice::with_isa(num_threads, isa).unwrap()));
        } else {
            skipped(isa.name(), format_args!("this machine has no {}", isa.name()));
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

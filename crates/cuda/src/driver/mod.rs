//! Cards as the CUDA driver shows them: what they are, memory on them, compiled code, launches and recorded graphs.
//! NVIDIA's libraries are opened here, when they are first asked for.

pub(crate) mod api;
mod cubin;
mod gpu;
mod graph;
mod launch;
mod library;

pub(crate) use api::Handle;
pub use cubin::{KernelUse, kernels};
pub use gpu::{Buffer, Device, DeviceInfo, devices, driver_version};
pub(crate) use gpu::{pci_bus_id, uuid};
pub(crate) use graph::Event;
pub use graph::Graph;
pub use launch::Launch;
pub(crate) use launch::{byte_matrix_map, launch};
pub(crate) use library::{Library, Places, functions};

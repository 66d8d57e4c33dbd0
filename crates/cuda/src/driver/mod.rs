//! Cards as the CUDA driver shows them: what they are, memory on them, compiled code, launches and recorded graphs.
//! NVIDIA's libraries are opened here, when they are first asked for.

mod api;
mod arena;
mod buffer;
mod cubin;
mod event;
mod gpu;
mod gpu_info;
mod graph;
mod kernel;
mod launch;
mod library;
mod read_back;
mod staging;
mod tensor_map;

pub use api::driver_version;
pub(crate) use api::{Handle, driver, version_words};
pub use arena::Arena;
pub use buffer::Buffer;
pub use cubin::{KernelUse, kernels};
pub(crate) use event::Event;
pub use gpu::Gpu;
pub use gpu_info::{GpuInfo, gpus};
pub(crate) use gpu_info::{pci_bus_id, uuid};
pub use graph::Graph;
pub use kernel::Kernel;
pub use launch::Launch;
pub(crate) use launch::{launch, launch_with, without_launches};
pub(crate) use library::{Library, Places, functions};
pub(crate) use read_back::ReadBack;
pub(crate) use staging::Staging;
pub(crate) use tensor_map::byte_matrix_map;

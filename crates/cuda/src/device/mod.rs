//! A card as a device of the contract: every operation a launch on one stream, every buffer in the card's memory.

mod buffers;
mod context;
mod cuda_device;
mod failure;
mod kernel_choices;
mod linears;
mod mixture;
mod operation_clock;
mod operation_times;
mod operations;
mod pointwise;
mod statistics;
mod w4_products;

pub use buffers::{CudaIndices, CudaMatrix, CudaQuantized, CudaTable};
pub use context::{CudaCache, CudaStep, workspace_bytes};
pub use cuda_device::CudaDevice;
pub use kernel_choices::{KernelChoice, kernel_choices};
pub use linears::CudaLinear;
pub use operation_times::OperationTime;

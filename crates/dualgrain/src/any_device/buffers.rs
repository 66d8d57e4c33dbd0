//! Buffers of whichever device.

use dualgrain_cpu::CpuDevice;
#[cfg(feature = "cuda")]
use dualgrain_cuda::CudaDevice;
use dualgrain_device::Device;

/// An enum for each kind of buffer: the CPU's or a card's.
macro_rules! either {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[allow(clippy::large_enum_variant, reason = "a model has few of them, and none is copied")]
        pub enum $name {
            /// In the host's memory.
            Cpu(<CpuDevice as Device>::$name),
            /// In a card's memory.
            #[cfg(feature = "cuda")]
            Cuda(<CudaDevice as Device>::$name),
        }
    )*};
}

either! {
    /// f32 `[rows, columns]`.
    Matrix;
    /// INT8 codes and scales.
    Quantized;
    /// Packed weights.
    Linear;
    /// An embedding table.
    Table;
    /// Paged keys and values.
    Cache;
    /// Token ids, positions or row numbers.
    Indices;
    /// Positions, sequences and page tables of a step.
    Step;
    /// A Gram matrix in the making.
    Gram;
    /// Squared errors of a layer's outputs.
    OutputErrors;
    /// The largest magnitude of every column.
    Maxima;
    /// Sampling parameters, token counts, the last samples.
    Sampler;
    /// Sequence and position of each row that is sampled.
    SampleRows;
}

/// A Gram matrix of the host where the device can read it.
pub enum GramView<'a> {
    /// In the host's memory.
    Cpu(<CpuDevice as Device>::GramView<'a>),
    /// In a card's memory.
    #[cfg(feature = "cuda")]
    Cuda(<CudaDevice as Device>::GramView<'a>),
}

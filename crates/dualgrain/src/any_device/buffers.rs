//! Buffers of whichever device.

use dualgrain_cpu::CpuDevice;
#[cfg(feature = "cuda")]
use dualgrain_cuda::CudaDevice;
use dualgrain_device::{Device, Statistics};

/// An enum for each kind of buffer: the CPU's or a card's.
macro_rules! either {
    ($trait:ident: $($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[allow(clippy::large_enum_variant, reason = "a model has few of them, and none is copied")]
        pub enum $name {
            /// In the host's memory.
            Cpu(<CpuDevice as $trait>::$name),
            /// In a card's memory.
            #[cfg(feature = "cuda")]
            Cuda(<CudaDevice as $trait>::$name),
        }
    )*};
}

either! {
    Device:
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
    /// Linears of a mixture, one for each expert.
    Experts;
    /// Which tokens go to which expert.
    Routing;
    /// Sampling parameters, token counts, the last samples.
    Sampler;
    /// Sequence and position of each row that is sampled.
    SampleRows;
}

either! {
    Statistics:
    /// A Gram matrix in the making.
    Gram;
    /// Squared errors of a layer's outputs.
    OutputErrors;
    /// The largest magnitude of every column.
    Maxima;
}

/// A Gram matrix of the host where the device can read it.
pub enum GramView<'a> {
    /// In the host's memory.
    Cpu(<CpuDevice as Statistics>::GramView<'a>),
    /// In a card's memory.
    #[cfg(feature = "cuda")]
    Cuda(<CudaDevice as Statistics>::GramView<'a>),
}

impl Linear {
    /// A linear in the host's memory.
    pub(super) fn of_cpu(self) -> <CpuDevice as Device>::Linear {
        match self {
            Self::Cpu(linear) => linear,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => panic!("a linear of another device"),
        }
    }

    /// A linear in a card's memory.
    #[cfg(feature = "cuda")]
    pub(super) fn of_card(self) -> <CudaDevice as Device>::Linear {
        match self {
            Self::Cuda(linear) => linear,
            Self::Cpu(_) => panic!("a linear of another device"),
        }
    }
}

//! The libraries that a card's products are compared with.

use dualgrain_cuda::{Cublas, CublasLtInt8, CudaError, Gpu};

/// The libraries that are here.
pub(crate) struct Libraries {
    pub cublas: Option<Cublas>,
    pub int8: Option<CublasLtInt8>,
}

/// Opens what is there; what is not is told.
pub(crate) fn libraries(device: &Gpu, say: &dyn Fn(&str)) -> Libraries {
    let told = |error: CudaError| say(&format!("left out: {error}"));
    Libraries {
        cublas: Cublas::new(device).map_err(told).ok(),
        int8: CublasLtInt8::new(device).map_err(told).ok(),
    }
}

//! cuBLAS with every storage of its operands, alpha, beta and three types, to be measured beside our own kernels.

use super::cublaslt::{
    AS_IS, BLAS, Blas, COMPUTE_F32, DEFAULT_ALGORITHM, TRANSPOSED, TYPE_BF16, WORKSPACE_BYTES, check,
};
use crate::driver::{Buffer, Device, Handle, Library};
use crate::error::CudaError;
use dualgrain_device::naive::Transposes;

const TYPE_F32: i32 = 0;
const TYPE_F16: i32 = 2;

/// Type of all three matrices; sums are f32 always, and f32 operands are multiplied as such (no TF32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CublasType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Brain floats.
    Bf16,
}

impl CublasType {
    /// Bytes of an element.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    fn code(self) -> i32 {
        match self {
            Self::F32 => TYPE_F32,
            Self::F16 => TYPE_F16,
            Self::Bf16 => TYPE_BF16,
        }
    }
}

/// cuBLAS for a card.
pub struct Cublas {
    functions: Blas,
    handle: Handle,
    /// Kept for the library.
    workspace: Buffer,
}

impl Cublas {
    /// Opens the library.
    ///
    /// # Errors
    /// It is not here, or does not start.
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        let functions = Blas::from_library(Library::open(&BLAS)?)?;
        device.current()?;
        let workspace = device.filled(WORKSPACE_BYTES, 0)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle, in the context made current above.
        check("cublasCreate", unsafe { (functions.create)(&raw mut handle) })?;
        let blas = Self {
            functions,
            handle,
            workspace,
        };
        // SAFETY: live handles; the workspace lives as long as the handle.
        unsafe {
            let functions = &blas.functions;
            check("cublasSetStream", (functions.set_stream)(handle, device.stream()))?;
            let code = (functions.set_workspace)(handle, blas.workspace.address(), WORKSPACE_BYTES);
            check("cublasSetWorkspace", code)?;
        }
        Ok(blas)
    }

    /// Puts `d = alpha * op(a) * op(b) + beta * d` on the card's stream.
    ///
    /// # Errors
    /// Buffers that are too short, or a refusal.
    pub fn launch(
        &self,
        kind: CublasType,
        transposes: Transposes,
        (m, n, k): (usize, usize, usize),
        (alpha, beta): (f32, f32),
        [a, b, d]: [&Buffer; 3],
    ) -> Result<(), CudaError> {
        for (what, expected, buffer) in [("A", m * k, a), ("B", k * n, b), ("D", m * n, d)] {
            let (expected, got) = (kind.size_bytes() * expected, buffer.len_bytes());
            if got < expected {
                return Err(CudaError::Length { what, expected, got });
            }
        }
        let size = |what, got: usize| i32::try_from(got).map_err(|_| CudaError::TooLarge { what, got });
        let (m, n, k) = (size("M", m)?, size("N", n)?, size("K", k)?);
        // cuBLAS counts columns first: D^T [N,M] = op(B)^T * op(A)^T, and a matrix stored row by row is its transpose.
        let (b_op, b_ld) = if transposes.b { (TRANSPOSED, k) } else { (AS_IS, n) };
        let (a_op, a_ld) = if transposes.a { (TRANSPOSED, m) } else { (AS_IS, k) };
        // SAFETY: the buffers hold the matrices (checked); the scalars are read before the call returns.
        let code = unsafe {
            (self.functions.gemm)(
                self.handle,
                b_op,
                a_op,
                n,
                m,
                k,
                (&raw const alpha).cast(),
                b.address(),
                kind.code(),
                b_ld,
                a.address(),
                kind.code(),
                a_ld,
                (&raw const beta).cast(),
                d.address(),
                kind.code(),
                n,
                COMPUTE_F32,
                DEFAULT_ALGORITHM,
            )
        };
        check("cublasGemmEx", code)
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        unsafe { (self.functions.destroy)(self.handle) };
    }
}

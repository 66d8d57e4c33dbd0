//! Float products by cuBLAS, with every storage of the operands, alpha, beta and three types.

use std::ffi::c_void;

use dualgrain_device::naive::Transposes;

use crate::driver::{Buffer, Gpu, Handle, Library, Places, functions};
use crate::error::CudaError;

functions! {
    /// cuBLAS.
    Blas {
        create = "cublasCreate_v2" (*mut Handle);
        destroy = "cublasDestroy_v2" (Handle);
        set_stream = "cublasSetStream_v2" (Handle, Handle);
        set_workspace = "cublasSetWorkspace_v2" (Handle, u64, usize);
        gemm = "cublasGemmEx" (
            Handle, i32, i32, i32, i32, i32, *const c_void, u64, i32, i32, u64, i32, i32, *const c_void, u64, i32,
            i32, i32, i32
        );
    }
}

const BLAS: Places = Places {
    what: "cuBLAS",
    variable: "DUALGRAIN_CUBLAS",
    names: &["libcublas.so.13", "libcublas.so.12", "libcublas.so"],
    companions: &["libcublasLt.so"],
    remedy: "leave cublas-bf16 out of the comparison",
};

const TYPE_F32: i32 = 0;
const TYPE_F16: i32 = 2;
const TYPE_BF16: i32 = 14;
pub(crate) static TRANSPOSED: i32 = 1;
const AS_IS: i32 = 0;
const COMPUTE_F32: i32 = 68;
const DEFAULT_ALGORITHM: i32 = -1;

/// What NVIDIA advises for Hopper, and twice that.
pub(crate) static WORKSPACE_BYTES: usize = 64 << 20;

/// Turns a status of either library into an error.
pub(crate) fn check(call: &'static str, code: i32) -> Result<(), CudaError> {
    let words = match code {
        0 => return Ok(()),
        7 => "invalid value",
        8 => "not for this architecture",
        13 => "execution failed",
        15 => "not supported",
        _ => "it refused",
    };
    Err(CudaError::Call {
        call,
        code,
        words: words.to_owned(),
    })
}

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
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let functions = Blas::from_library(Library::open(&BLAS)?)?;
        gpu.current()?;
        let workspace = gpu.filled(WORKSPACE_BYTES, 0)?;
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
            check("cublasSetStream", (functions.set_stream)(handle, gpu.stream()))?;
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

/// bf16 products by cuBLAS, with f32 accumulation.
pub struct CublasBf16(Cublas);

impl CublasBf16 {
    /// Opens the library for a card.
    ///
    /// # Errors
    /// It is not here, or does not start.
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        Cublas::new(gpu).map(Self)
    }

    /// Puts `d[M,N] = a[M,K] * b[N,K]^T` on the card's stream, all bf16.
    ///
    /// # Errors
    /// Buffers that are too short, or a refusal.
    pub fn launch(
        &self,
        shape: (usize, usize, usize),
        a: &Buffer,
        b: &Buffer,
        d: &Buffer,
    ) -> Result<(), CudaError> {
        let transposes = Transposes { a: false, b: true };
        self.0
            .launch(CublasType::Bf16, transposes, shape, (1.0, 0.0), [a, b, d])
    }
}

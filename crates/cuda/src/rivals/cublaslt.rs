//! int8 products with int32 results by cuBLASLt.

use std::ffi::c_void;

use super::cublas::{TRANSPOSED, WORKSPACE_BYTES, check};
use crate::driver::{Buffer, Gpu, Handle, Library, Places, functions};
use crate::error::CudaError;

functions! {
    /// cuBLASLt.
    BlasLt {
        create = "cublasLtCreate" (*mut Handle);
        destroy = "cublasLtDestroy" (Handle);
        product_create = "cublasLtMatmulDescCreate" (*mut Handle, i32, i32);
        product_destroy = "cublasLtMatmulDescDestroy" (Handle);
        product_set = "cublasLtMatmulDescSetAttribute" (Handle, i32, *const c_void, usize);
        layout_create = "cublasLtMatrixLayoutCreate" (*mut Handle, i32, u64, u64, i64);
        layout_destroy = "cublasLtMatrixLayoutDestroy" (Handle);
        wish_create = "cublasLtMatmulPreferenceCreate" (*mut Handle);
        wish_destroy = "cublasLtMatmulPreferenceDestroy" (Handle);
        wish_set = "cublasLtMatmulPreferenceSetAttribute" (Handle, i32, *const c_void, usize);
        choose = "cublasLtMatmulAlgoGetHeuristic" (
            Handle, Handle, Handle, Handle, Handle, Handle, Handle, i32, *mut Algorithm, *mut i32
        );
        gemm = "cublasLtMatmul" (
            Handle, Handle, *const c_void, u64, Handle, u64, Handle, *const c_void, u64, Handle, u64, Handle,
            *const Algorithm, u64, usize, Handle
        );
    }
}

/// `cublasLtMatmulHeuristicResult_t`: begins with the algorithm itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Algorithm {
    data: [u64; 8],
    workspace_bytes: usize,
    status: i32,
    waves: f32,
    reserved: [i32; 4],
}

const BLAS_LT: Places = Places {
    what: "cuBLASLt",
    variable: "DUALGRAIN_CUBLASLT",
    names: &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
    companions: &[],
    remedy: "leave cublas-int8 out of the comparison",
};

const TYPE_I8: i32 = 3;
const TYPE_I32: i32 = 10;
const COMPUTE_I32: i32 = 72;
/// `CUBLASLT_MATMUL_DESC_TRANSA`, `CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES`.
const PRODUCT_TRANSPOSE_A: i32 = 3;
const WISH_WORKSPACE: i32 = 1;

/// int8 products with int32 results by cuBLASLt.
pub struct CublasLtInt8 {
    functions: BlasLt,
    handle: Handle,
    workspace: Buffer,
    gpu: Gpu,
}

impl CublasLtInt8 {
    /// Opens the library for a card.
    ///
    /// # Errors
    /// It is not here, or does not start.
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let functions = BlasLt::from_library(Library::open(&BLAS_LT)?)?;
        gpu.current()?;
        let workspace = gpu.filled(WORKSPACE_BYTES, 0)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle, in the context made current above.
        check("cublasLtCreate", unsafe { (functions.create)(&raw mut handle) })?;
        Ok(Self {
            functions,
            handle,
            workspace,
            gpu: gpu.clone(),
        })
    }

    /// A product of one shape, with the algorithm the library likes best.
    ///
    /// # Errors
    /// It has no algorithm for the shape.
    pub fn product(&self, (m, n, k): (usize, usize, usize)) -> Result<Int8Product<'_>, CudaError> {
        let f = &self.functions;
        let mut product = Int8Product {
            blas: self,
            shape: (m, n, k),
            handles: [std::ptr::null_mut(); 4],
            algorithm: Algorithm {
                data: [0; 8],
                workspace_bytes: 0,
                status: 0,
                waves: 0.0,
                reserved: [0; 4],
            },
        };
        let [description, a, b, d] = &mut product.handles;
        // SAFETY: each call writes one handle, which `product` destroys; attributes are copied by the library.
        unsafe {
            let code = (f.product_create)(description, COMPUTE_I32, TYPE_I32);
            check("cublasLtMatmulDescCreate", code)?;
            let code = (f.product_set)(
                *description,
                PRODUCT_TRANSPOSE_A,
                (&raw const TRANSPOSED).cast(),
                4,
            );
            check("cublasLtMatmulDescSetAttribute", code)?;
            // Columns first, as in `Cublas::launch`: its A is our B.
            for (layout, kind, rows, columns) in [
                (&mut *a, TYPE_I8, k, n),
                (&mut *b, TYPE_I8, k, m),
                (&mut *d, TYPE_I32, n, m),
            ] {
                let code = (f.layout_create)(layout, kind, rows as u64, columns as u64, rows as i64);
                check("cublasLtMatrixLayoutCreate", code)?;
            }
        }
        product.choose()?;
        Ok(product)
    }
}

impl Drop for CublasLtInt8 {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        unsafe { (self.functions.destroy)(self.handle) };
    }
}

/// An int8 product made ready.
pub struct Int8Product<'a> {
    blas: &'a CublasLtInt8,
    shape: (usize, usize, usize),
    /// Description, and layouts of the library's A, B and D.
    handles: [Handle; 4],
    algorithm: Algorithm,
}

impl Int8Product<'_> {
    fn choose(&mut self) -> Result<(), CudaError> {
        let f = &self.blas.functions;
        let [description, a, b, d] = self.handles;
        let (mut wish, mut found) = (std::ptr::null_mut(), 0);
        // SAFETY: live handles; one algorithm is asked for and one is written; the wish is destroyed here.
        let code = unsafe {
            check("cublasLtMatmulPreferenceCreate", (f.wish_create)(&raw mut wish))?;
            (f.wish_set)(wish, WISH_WORKSPACE, (&raw const WORKSPACE_BYTES).cast(), 8);
            let code = (f.choose)(
                self.blas.handle,
                description,
                a,
                b,
                d,
                d,
                wish,
                1,
                &raw mut self.algorithm,
                &raw mut found,
            );
            (f.wish_destroy)(wish);
            code
        };
        check("cublasLtMatmulAlgoGetHeuristic", code)?;
        check("cublasLtMatmulAlgoGetHeuristic", if found > 0 { 0 } else { 15 })
    }

    /// Puts `d[M,N] = a[M,K] * b[N,K]^T` on the card's stream: int8 operands, int32 results.
    ///
    /// # Errors
    /// Buffers that are too short, or a refusal.
    pub fn launch(&self, a: &Buffer, b: &Buffer, d: &Buffer) -> Result<(), CudaError> {
        let (m, n, k) = self.shape;
        check_lengths([(a, m * k), (b, n * k), (d, 4 * m * n)])?;
        let (one, zero) = (1i32, 0i32);
        let [description, a_layout, b_layout, d_layout] = self.handles;
        // SAFETY: the buffers hold the matrices (checked); handles and workspace are alive; scalars are read at once.
        let code = unsafe {
            (self.blas.functions.gemm)(
                self.blas.handle,
                description,
                (&raw const one).cast(),
                b.address(),
                a_layout,
                a.address(),
                b_layout,
                (&raw const zero).cast(),
                d.address(),
                d_layout,
                d.address(),
                d_layout,
                &raw const self.algorithm,
                self.blas.workspace.address(),
                WORKSPACE_BYTES,
                self.blas.gpu.stream(),
            )
        };
        check("cublasLtMatmul", code)
    }
}

impl Drop for Int8Product<'_> {
    fn drop(&mut self) {
        let f = &self.blas.functions;
        let [description, layouts @ ..] = self.handles;
        // SAFETY: created once, destroyed once; null was never created.
        unsafe {
            if !description.is_null() {
                (f.product_destroy)(description);
            }
            for layout in layouts.into_iter().filter(|layout| !layout.is_null()) {
                (f.layout_destroy)(layout);
            }
        }
    }
}

fn check_lengths(buffers: [(&Buffer, usize); 3]) -> Result<(), CudaError> {
    for ((buffer, expected), what) in buffers.into_iter().zip(["A", "B", "D"]) {
        if buffer.len_bytes() < expected {
            return Err(CudaError::Length {
                what,
                expected,
                got: buffer.len_bytes(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_library() {
        assert_eq!(size_of::<Algorithm>(), 96);
    }
}

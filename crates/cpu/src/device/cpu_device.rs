//! The CPU as a device: an instruction set and threads.

use std::sync::{Arc, Mutex, PoisonError};

use dualgrain_device::{Device, DeviceError, Done};
use dualgrain_threads::{Pool, SharedSlice, Stream};

use super::linear::{Linear, Packed};
use crate::gemm_w4a8::epilogue::Sink;
use crate::gemm_w4a8::packed::PackedInt;
use crate::gemm_w4a8::product;
use crate::isa::{Isa, not_available};
use crate::tensor::matrix::Matrix;
use crate::tensor::quantized::Quantized;

/// The CPU as a device. Cloning shares the threads.
#[derive(Clone)]
pub struct CpuDevice {
    isa: Isa,
    pool: Arc<Pool>,
    /// What the product after the next one reads.
    next: Arc<Mutex<Option<Stream>>>,
}

impl CpuDevice {
    /// The fastest instruction set of this machine (or the one `DUALGRAIN_BACKEND` names) on `num_threads` threads;
    /// 0 means all cores.
    ///
    /// # Errors
    /// [`DeviceError::InstructionSet`] when `DUALGRAIN_BACKEND` names one that is unknown or not here.
    pub fn new(num_threads: usize) -> Result<Self, DeviceError> {
        Self::with_isa(num_threads, Isa::chosen()?)
    }

    /// As [`Self::new`], with a given instruction set.
    ///
    /// # Errors
    /// [`DeviceError::InstructionSet`] when this machine does not have it.
    pub fn with_isa(num_threads: usize, isa: Isa) -> Result<Self, DeviceError> {
        if !isa.is_available() {
            return Err(not_available(isa.name()));
        }
        let all_cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let num_threads = if num_threads == 0 {
            all_cores()
        } else {
            num_threads
        };
        Ok(Self {
            isa,
            pool: Arc::new(Pool::new(num_threads)),
            next: Arc::default(),
        })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads, for host work beside the operations.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Threads that share an operation.
    pub fn num_threads(&self) -> usize {
        self.pool.num_threads()
    }

    /// The i32 sums `[M,N]` of an integer product before the epilogue, for tests that compare instruction sets.
    ///
    /// # Panics
    /// When `weights` are float weights or the shapes do not fit.
    pub fn gemm_acc(&self, a: &Quantized, weights: &Linear) -> Vec<i32> {
        let Packed::Int(packed) = &weights.0 else {
            panic!("float weights have no integer sums")
        };
        let mut sums = vec![0; a.rows * packed.n()];
        product::gemm(
            self.isa,
            &self.pool,
            a.view(),
            packed,
            None,
            &Sink::Sums(SharedSlice::new(&mut sums)),
        );
        sums
    }

    /// Replaces the contents by codes `[rows, columns]` and scales `[rows]` from the host.
    ///
    /// # Panics
    /// When the lengths or the rows do not fit or a code is -128, which no quantization makes.
    pub fn upload_int8(&self, x: &mut Quantized, codes: &[i8], scales: &[f32]) {
        assert_eq!(
            codes.len(),
            scales.len() * x.columns,
            "codes for {} rows",
            scales.len()
        );
        assert!(!codes.contains(&i8::MIN), "code -128");
        let shape = (scales.len(), x.columns);
        if let Err(error) = x.capacity.check("upload_int8", || self.name(), shape) {
            panic!("{error}");
        }
        x.upload(codes, scales);
    }

    /// `out[M,N]`, the product of codes and integer weights, through the sink that is made of it.
    pub(super) fn integer_product<'o>(
        &self,
        out: &'o mut Matrix,
        a: &Quantized,
        weights: &PackedInt,
        sink: impl FnOnce(SharedSlice<'o, f32>) -> Sink<'o>,
    ) -> Done {
        self.reshape(out, "gemm", (a.rows, weights.n()))?;
        let sink = sink(SharedSlice::new(out.values_mut()));
        product::gemm(self.isa, &self.pool, a.view(), weights, self.take_next(), &sink);
        Ok(())
    }

    /// Keeps what the product after the next one reads.
    pub(super) fn set_next(&self, next: Option<Stream>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// What the product after this one reads, if that was said.
    pub(super) fn take_next(&self) -> Option<Stream> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

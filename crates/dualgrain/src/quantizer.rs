//! Quantizing a model folder.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dualgrain_cpu::CpuDevice;
use dualgrain_engine::ModelConfig;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_quant::{Monitor, QuantJob, QuantOptions, QuantSummary};

use crate::SAMPLE_CALIBRATION;
use crate::any_device::AnyDevice;
use crate::error::Error;

/// Turns a Hugging Face folder into a W4A8 folder.
#[derive(Clone)]
pub struct Quantizer {
    job: QuantJob,
    documents: Vec<String>,
    threads: usize,
    device: Option<Arc<AnyDevice>>,
}

impl Quantizer {
    /// Quantizes the folder `model` into `out`, which appears whole at the end, with the default options, calibrated on
    /// the sample prose.
    pub fn new(model: impl AsRef<Path>, out: impl AsRef<Path>) -> Self {
        Self::of_job(QuantJob::new(model.as_ref(), out.as_ref()))
    }

    /// Quantizes as `job` says.
    pub fn of_job(job: QuantJob) -> Self {
        Self {
            job,
            documents: vec![SAMPLE_CALIBRATION.to_owned()],
            threads: 0,
            device: None,
        }
    }

    /// Calibrates on this text: a few thousand words of what the model will see.
    #[must_use]
    pub fn calibration(mut self, text: impl Into<String>) -> Self {
        self.documents = vec![text.into()];
        self
    }

    /// Calibrates on these texts, one after the other: each begins as a text of its own does, and the windows are evenly
    /// spaced over all of them. [`calibration_documents`](crate::calibration_documents) reads them from files.
    #[must_use]
    pub fn documents(mut self, documents: Vec<String>) -> Self {
        self.documents = documents;
        self
    }

    /// Calibrates on `num_windows` windows of `window_tokens` tokens of the text.
    #[must_use]
    pub fn windows(mut self, num_windows: usize, window_tokens: usize) -> Self {
        self.job.options.num_windows = num_windows;
        self.job.options.window_tokens = window_tokens;
        self
    }

    /// Takes these options.
    #[must_use]
    pub fn options(mut self, options: QuantOptions) -> Self {
        self.job.options = options;
        self
    }

    /// Replaces a model folder at `out`.
    #[must_use]
    pub fn replace(mut self) -> Self {
        self.job.replace = true;
        self
    }

    /// Shares the work between so many threads; 0 takes all cores. The bytes of the result do not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Calibrates and judges scales on this device, whose host's threads do the rest; by default the CPU's do everything. The bytes
    /// of the result do not depend on it.
    #[must_use]
    pub fn on(mut self, device: Arc<AnyDevice>) -> Self {
        self.device = Some(device);
        self
    }

    /// Quantizes, and returns when the folder is there.
    ///
    /// # Errors
    /// A folder that is missing, damaged or unsupported; an `out` that can not be written; an empty text.
    pub fn run(&self) -> Result<QuantSummary, Error> {
        self.run_watched(Monitor::new(&|_| {}, &AtomicBool::new(false)))
    }

    /// As [`Self::run`]; `monitor` sees the progress and can cancel.
    ///
    /// # Errors
    /// As [`Self::run`]; cancelled.
    pub fn run_watched(&self, monitor: Monitor<'_>) -> Result<QuantSummary, Error> {
        let config = ModelConfig::load(&self.job.model_dir)?;
        let tokenizer = Tokenizer::load(&self.job.model_dir, config.vocab_size)?;
        let mut tokens = Vec::new();
        for document in self
            .documents
            .iter()
            .filter(|document| !document.trim().is_empty())
        {
            tokens.extend(tokenizer.encode(document, true)?);
        }
        if tokens.is_empty() {
            return Err(Error::NoText);
        }
        let device = match &self.device {
            Some(device) => Arc::clone(device),
            None => Arc::new(AnyDevice::Cpu(CpuDevice::new(self.threads)?)),
        };
        Ok(dualgrain_quant::quantize(
            &self.job,
            &*device,
            device.pool(),
            &tokens,
            monitor,
        )?)
    }
}

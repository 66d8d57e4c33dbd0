//! When weights are corrected for what was lost before them, and the original model that this takes beside the quantized one.

use std::path::Path;

use dualgrain_device::Statistics;
use dualgrain_engine::Embedding;
use dualgrain_format::ActivationScheme;

use crate::calibrate::companion::Companion;
use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::windows::Windows;
use crate::error::QuantError;
use crate::methods::ablation::Step;
use crate::methods::search::{LEAST_CORRECTED_WINDOWS, Search};
use crate::options::QuantOptions;
use crate::run::context::RunContext;

/// Windows that smoothing scales are chosen by where weights are corrected: every window is observed once more then, behind
/// the smoothing.
pub const SMOOTHING_WINDOWS: usize = 32;

/// Whether a run corrects weights.
pub fn corrects(options: &QuantOptions, windows: &Windows) -> bool {
    options.search == Search::Compensate
        && options.ablation.has(Step::Correction)
        && windows.len() >= LEAST_CORRECTED_WINDOWS
}

/// What a user should know about the calibration text.
pub fn notice(options: &QuantOptions, windows: &Windows) -> Option<String> {
    let is_short = options.search == Search::Compensate && windows.len() < LEAST_CORRECTED_WINDOWS;
    let uncorrected = is_short.then(|| {
        format!(
            "{} calibration windows: weights are corrected for what was quantized before them with {LEAST_CORRECTED_WINDOWS} \
             windows or more (--windows {LEAST_CORRECTED_WINDOWS} and a text that is long enough), so that part was off",
            windows.len()
        )
    });
    match (windows.notice.clone(), uncorrected) {
        (Some(short), Some(uncorrected)) => Some(format!("{short}; {uncorrected}")),
        (short, uncorrected) => short.or(uncorrected),
    }
}

/// The hidden states of a run: those of the quantized model, and those of the original one where weights are corrected.
pub struct Streams<'a, D: Statistics> {
    /// Of the model as it is quantized.
    pub quantized: HiddenStates<'a, D>,
    /// Of the original model.
    pub original: Option<HiddenStates<'a, D>>,
}

impl<'a, D: Statistics> Streams<'a, D> {
    /// Both before the first block, from the embedding; rows go to files in `spill_dir` when they are more than
    /// `spill_above_bytes`.
    ///
    /// # Errors
    /// The device refuses a buffer; I/O.
    pub fn new(
        run: &RunContext<'a, D>,
        (tokens, windows): (&[u32], &Windows),
        embedding: &Embedding<D>,
        (spill_above_bytes, spill_dir): (u64, &Path),
    ) -> Result<Self, QuantError> {
        let corrects = corrects(run.options, windows);
        let size_bytes = (1 + u64::from(corrects)) * HiddenStates::<D>::size_bytes(run.config, windows);
        let stream = |name| {
            let spill = (size_bytes > spill_above_bytes).then_some((spill_dir, name));
            let mut states = HiddenStates::new(run.device, run.config, windows, spill)?;
            states.embed(embedding, tokens, windows)?;
            Ok::<_, QuantError>(states)
        };
        let mut quantized = stream("")?;
        // A scale for all tokens comes from the maxima of all windows.
        if corrects && run.options.activations != ActivationScheme::Static {
            quantized.observe_only(SMOOTHING_WINDOWS);
        }
        Ok(Self {
            quantized,
            original: corrects.then(|| stream("-original")).transpose()?,
        })
    }

    /// The quantized model's own, all of whose inputs are observed from now on.
    pub fn into_quantized(self) -> HiddenStates<'a, D> {
        let mut states = self.quantized;
        states.observe_all();
        states
    }

    /// Runs block `layer` of the original model, if that is kept: a journal does not have its hidden states.
    ///
    /// # Errors
    /// I/O, cancellation.
    pub fn run_original(&mut self, run: &RunContext<'a, D>, layer: usize) -> Result<(), QuantError> {
        self.beside_original(run, layer, |_, companion| match companion {
            Some(companion) => companion.run_block(run.meter),
            None => Ok(()),
        })
    }

    /// Calls `f` with the quantized states and with the original model before block `layer`, if that is kept.
    ///
    /// # Errors
    /// The block cannot be loaded; what `f` says.
    pub fn beside_original<T>(
        &mut self,
        run: &RunContext<'a, D>,
        layer: usize,
        f: impl FnOnce(&mut HiddenStates<'a, D>, Option<&mut Companion<'a, D>>) -> Result<T, QuantError>,
    ) -> Result<T, QuantError> {
        let mut companion = match self.original.take() {
            Some(states) => Some(Companion::new(states, run.original.block(run.device, layer)?)),
            None => None,
        };
        let result = f(&mut self.quantized, companion.as_mut())?;
        self.original = companion.map(Companion::into_states);
        Ok(result)
    }
}

//! The tokens of a step, on the host and on the device.

use dualgrain_device::sampling::SampleRow;
use dualgrain_device::{Device, Done, StepLayout, StepLimits};

use crate::EngineError;

/// The tokens of a step, as the host lays them out and on the device.
pub(super) struct StepBuffers<D: Device> {
    pub(super) tokens: Vec<u32>,
    pub(super) positions: Vec<u32>,
    sequences: Vec<u32>,
    pub(super) on_device: D::Step,
    pub(super) tokens_on_device: D::Indices,
    pub(super) positions_on_device: D::Indices,
    /// Rows whose logits are asked for.
    rows: Vec<u32>,
    pub(super) rows_on_device: D::Indices,
    /// Rows whose next tokens are asked for.
    pub(super) sampled: Vec<u32>,
    sample_rows: Vec<SampleRow>,
    pub(super) sample_rows_on_device: D::SampleRows,
}

impl<D: Device> StepBuffers<D> {
    /// Empty buffers for steps within `limits`, of which `logit_rows` rows are asked for at once.
    pub(super) fn new(device: &D, limits: StepLimits, logit_rows: usize) -> Result<Self, EngineError> {
        let tokens = limits.tokens;
        Ok(Self {
            tokens: Vec::with_capacity(tokens),
            positions: Vec::with_capacity(tokens),
            sequences: Vec::with_capacity(tokens),
            on_device: device.step(limits)?,
            tokens_on_device: device.indices(tokens)?,
            positions_on_device: device.indices(tokens)?,
            rows: Vec::with_capacity(logit_rows),
            rows_on_device: device.indices(logit_rows)?,
            sampled: Vec::with_capacity(logit_rows),
            sample_rows: Vec::with_capacity(logit_rows),
            sample_rows_on_device: device.sample_rows(logit_rows)?,
        })
    }

    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
    }

    /// Adds tokens of `sequence` that begin at position `first`.
    pub(super) fn push(&mut self, sequence: usize, first: usize, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        self.positions
            .extend((first..first + tokens.len()).map(|position| position as u32));
        self.sequences.extend(tokens.iter().map(|_| sequence as u32));
    }

    pub(super) fn upload(&mut self, device: &D, page_tables: &[Vec<u32>]) -> Done {
        device.upload_indices(&mut self.tokens_on_device, &self.tokens)?;
        self.upload_positions(device, page_tables)
    }

    /// Everything but the tokens.
    pub(super) fn upload_positions(&mut self, device: &D, page_tables: &[Vec<u32>]) -> Done {
        device.upload_indices(&mut self.positions_on_device, &self.positions)?;
        let layout = StepLayout {
            positions: &self.positions,
            sequences: &self.sequences,
            page_tables,
        };
        device.upload_step(&mut self.on_device, &layout)
    }

    /// Sequences of chosen rows of the step, and the positions after them, unless the device has them.
    pub(super) fn upload_sample_rows(&mut self, device: &D, rows: &[(u32, usize)]) -> Done {
        let positions = &self.positions;
        let sample_row = |&(row, slot): &(u32, usize)| SampleRow {
            slot,
            position: positions[row as usize] as usize + 1,
        };
        if self.sample_rows.iter().copied().eq(rows.iter().map(sample_row)) {
            return Ok(());
        }
        self.sample_rows.clear();
        self.sample_rows.extend(rows.iter().map(sample_row));
        let done = device.upload_sample_rows(&mut self.sample_rows_on_device, &self.sample_rows);
        if done.is_err() {
            self.sample_rows.clear();
        }
        done
    }

    /// Rows whose logits are asked for. Decoding asks for the same ones step after step: they are copied once.
    pub(super) fn upload_rows(&mut self, device: &D, rows: &[u32]) -> Done {
        if self.rows == rows {
            return Ok(());
        }
        self.rows.clear();
        device.upload_indices(&mut self.rows_on_device, rows)?;
        self.rows.extend_from_slice(rows);
        Ok(())
    }
}

//! The hidden states of all calibration windows between two passes, and the buffers that run one window.
//!
//! They are those of the quantized model. Where weights are corrected, the original model has some of its own (`companion`); for
//! smoothing it is not needed. What makes a smoothed input scales with its own rows, so nothing has to be run in
//! float to find a smoothing scale: see `run/block/steps.rs`.

use std::path::Path;

use dualgrain_device::{
    CacheFormat, CacheShape, DeviceError, Done, PAGE_TOKENS, Statistics, StepLayout, StepLimits,
};
use dualgrain_engine::{Block, Embedding, ModelConfig, Scratch};

use crate::calibrate::window_rows::WindowRows;
use crate::calibrate::windows::Windows;
use crate::error::QuantError;

/// The windows and the buffers to run one of them.
pub struct HiddenStates<'a, D: Statistics> {
    pub(super) device: &'a D,
    config: &'a ModelConfig,
    num_windows: usize,
    window_len: usize,
    /// Every window is one sequence that is run in one step.
    step: D::Step,
    positions: D::Indices,
    tokens: D::Indices,
    /// The residual stream of the window at hand [window_len, hidden].
    pub(super) x: D::Matrix,
    /// What a block leaves of the window at hand.
    pub(super) scratch: Scratch<D>,
    cache: D::Cache,
    /// The residual stream of all windows.
    residual: WindowRows,
    /// The attention outputs of all windows, so that attention runs once a block.
    attended: WindowRows,
    host: Vec<f32>,
    observed_every: usize,
}

impl<'a, D: Statistics> HiddenStates<'a, D> {
    /// Buffers for `windows`; the rows of all windows go to files in `spill` when it is given, whose names
    /// end with its second part.
    ///
    /// # Errors
    /// The files cannot be made, or the device refuses a buffer.
    pub fn new(
        device: &'a D,
        config: &'a ModelConfig,
        windows: &Windows,
        spill: Option<(&Path, &str)>,
    ) -> Result<Self, QuantError> {
        let (num_windows, window_len) = (windows.len(), windows.window_len());
        let rows = |columns: usize, name: &str| match spill {
            None => Ok(WindowRows::in_memory(num_windows, window_len * columns)),
            Some((dir, stream)) => {
                WindowRows::on_disk(&dir.join(format!("{name}{stream}.spill")), window_len * columns)
            }
        };
        let positions: Vec<u32> = (0..window_len as u32).collect();
        let mut positions_on_device = device.indices(window_len)?;
        device.upload_indices(&mut positions_on_device, &positions)?;
        let mut scratch = Scratch::new(device, config, window_len, window_len)?;
        scratch.prepare(device, &positions_on_device)?;
        Ok(Self {
            device,
            config,
            num_windows,
            window_len,
            step: whole_window(device, &positions)?,
            positions: positions_on_device,
            tokens: device.indices(window_len)?,
            x: device.matrix(window_len, config.hidden_size)?,
            cache: device.cache(cache_shape(config, window_len), &CacheFormat::F32)?,
            residual: rows(config.hidden_size, "residual")?,
            attended: rows(config.q_size(), "attended")?,
            scratch,
            host: Vec::new(),
            observed_every: 1,
        })
    }

    /// Bytes of the rows of all windows: residual stream and attention output of every token.
    pub fn size_bytes(config: &ModelConfig, windows: &Windows) -> u64 {
        let floats = config.hidden_size + config.q_size();
        (windows.len() * windows.window_len() * floats * size_of::<f32>()) as u64
    }

    /// Bytes of the residual stream of all windows.
    pub fn residual_bytes(config: &ModelConfig, windows: &Windows) -> u64 {
        (windows.len() * windows.window_len() * config.hidden_size * size_of::<f32>()) as u64
    }

    /// The format keys and values take from now on.
    ///
    /// # Errors
    /// The device refuses the cache.
    pub fn set_cache(&mut self, format: &CacheFormat) -> Result<(), QuantError> {
        self.cache = self
            .device
            .cache(cache_shape(self.config, self.window_len), format)?;
        Ok(())
    }

    /// Fills all windows from tokens.
    ///
    /// # Errors
    /// The spill file cannot be written.
    pub fn embed(
        &mut self,
        embedding: &Embedding<D>,
        tokens: &[u32],
        windows: &Windows,
    ) -> Result<(), QuantError> {
        for (window, range) in windows.ranges.iter().enumerate() {
            let tokens = &tokens[range.clone()];
            self.device.upload_indices(&mut self.tokens, tokens)?;
            let (x, y) = (&mut self.x, &mut self.scratch.y);
            embedding.apply(self.device, x, y, &self.tokens, &self.positions)?;
            self.store(window)?;
        }
        Ok(())
    }

    /// Number of windows.
    pub fn num_windows(&self) -> usize {
        self.num_windows
    }

    /// Lets passes observe only about `count` windows, evenly spaced: enough to choose smoothing scales.
    pub fn observe_only(&mut self, count: usize) {
        self.observed_every = (self.num_windows / count).max(1);
    }

    /// Lets passes observe every window.
    pub fn observe_all(&mut self) {
        self.observed_every = 1;
    }

    /// Of so many windows one is observed.
    pub(super) fn observed_every(&self) -> usize {
        self.observed_every
    }

    /// Tokens in a window.
    pub fn window_len(&self) -> usize {
        self.window_len
    }

    /// Floats in the residual rows of a window.
    pub fn floats_per_window(&self) -> usize {
        self.window_len * self.config.hidden_size
    }

    /// The residual rows of a window.
    ///
    /// # Errors
    /// The spill file cannot be read.
    pub fn residual(&mut self, window: usize) -> Result<&[f32], QuantError> {
        self.residual.read(window, &mut self.host)?;
        Ok(&self.host)
    }

    /// Puts the residual rows of a window back (from a journal).
    ///
    /// # Errors
    /// The spill file cannot be written.
    pub fn restore(&mut self, window: usize, rows: &[f32]) -> Result<(), QuantError> {
        self.residual.write(window, rows)
    }

    /// The residual stream of a window, into the buffers.
    pub(super) fn load(&mut self, window: usize) -> Result<(), QuantError> {
        self.residual.read(window, &mut self.host)?;
        Ok(self.device.upload(&mut self.x, &self.host)?)
    }

    /// The residual stream in the buffers is now that of a window.
    pub(super) fn store(&mut self, window: usize) -> Result<(), QuantError> {
        download(self.device, &self.x, &mut self.host)?;
        self.residual.write(window, &self.host)
    }

    /// Attention of the queries, keys and values in the buffers, kept for the passes that follow.
    pub(super) fn attend(&mut self, block: &Block<D>, window: usize) -> Result<(), QuantError> {
        block.attention(self.device, &mut self.scratch, &mut self.cache, 0, &self.step)?;
        download(self.device, &self.scratch.c, &mut self.host)?;
        self.attended.write(window, &self.host)
    }

    /// Attention of the residual stream in the buffers, kept for nothing.
    pub(super) fn attend_in_place(&mut self, block: &Block<D>) -> Result<(), QuantError> {
        block.qkv(self.device, &self.x, &mut self.scratch)?;
        Ok(block.attention(self.device, &mut self.scratch, &mut self.cache, 0, &self.step)?)
    }

    /// Adds to `sums` `[K]` the squares of a linear's input, which lies in the buffers where `of` says.
    pub(super) fn add_squares(
        &mut self,
        of: for<'s> fn(&'s Self) -> &'s D::Matrix,
        sums: &mut Vec<f64>,
    ) -> Result<(), QuantError> {
        let mut host = std::mem::take(&mut self.host);
        let input = of(self);
        let k = self.device.columns(input);
        download(self.device, input, &mut host)?;
        sums.resize(k, 0.0);
        for row in host.chunks_exact(k) {
            let channels = sums.iter_mut().zip(row);
            channels.for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
        }
        self.host = host;
        Ok(())
    }

    /// The attention output of a window, into the buffers.
    pub(super) fn load_attended(&mut self, window: usize) -> Result<(), QuantError> {
        self.attended.read(window, &mut self.host)?;
        Ok(self.device.upload(&mut self.scratch.c, &self.host)?)
    }
}

fn cache_shape(config: &ModelConfig, window_len: usize) -> CacheShape {
    CacheShape {
        num_layers: 1,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        num_pages: window_len.div_ceil(PAGE_TOKENS),
    }
}

/// The step that runs all tokens of a window.
fn whole_window<D: Statistics>(device: &D, positions: &[u32]) -> Result<D::Step, DeviceError> {
    let pages = positions.len().div_ceil(PAGE_TOKENS);
    let limits = StepLimits {
        tokens: positions.len(),
        sequences: 1,
        pages_per_sequence: pages,
    };
    let mut step = device.step(limits)?;
    let layout = StepLayout {
        positions,
        sequences: &vec![0; positions.len()],
        page_tables: &[(0..pages as u32).collect()],
    };
    device.upload_step(&mut step, &layout)?;
    Ok(step)
}

/// `x` on the host.
pub(super) fn download<D: Statistics>(device: &D, x: &D::Matrix, host: &mut Vec<f32>) -> Done {
    let rows = device.rows(x);
    host.resize(rows * device.columns(x), 0.0);
    device.download(x, 0..rows, host)
}

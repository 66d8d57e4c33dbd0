//! The calibration windows on their way through a block: each method is one pass over all of them that leaves the
//! statistics of the next linear's input.
//!
//! Only the quantized stream is run. The producers of smoothed inputs scale with their rows, so nothing has to be
//! run in float to find a smoothing scale: see `run/block.rs`.

use std::path::Path;

use dualgrain_device::{CacheFormat, CacheShape, Device, Gram, PAGE_TOKENS, Step};
use dualgrain_engine::{Block, Embedding, ModelConfig, Norm, Role, Scratch};

use crate::calibrate::window_rows::WindowRows;
use crate::calibrate::windows::Windows;
use crate::error::QuantError;
use crate::monitor::Meter;
use crate::run::multiply_adds::{PassWork, gram_work};

/// Tokens whose input rows are kept as they are, to judge the quantization of activations.
const NUM_SAMPLES: usize = 32;

/// A diagonal of the Gram matrix below this share of its mean counts as a dead channel.
const DEAD_SHARE: f32 = 1e-6;

/// What calibration knows about the input of a linear.
#[derive(Debug, Clone)]
pub struct InputStats {
    /// Sum of x x^T over all tokens, lower triangle.
    pub gram: Gram,
    /// Largest magnitude of every channel.
    pub maxima: Vec<f32>,
    /// Rows of a few tokens, [samples, K].
    pub samples: Vec<f32>,
    /// Channels that were (nearly) zero on every token.
    pub num_dead: usize,
}

impl InputStats {
    fn new(k: usize) -> Self {
        Self {
            gram: Gram::new(k),
            maxima: vec![0.0; k],
            samples: Vec::new(),
            num_dead: 0,
        }
    }

    fn observe<D: Device>(&mut self, device: &D, x: &D::Matrix, window: usize, num_windows: usize) {
        let k = self.maxima.len();
        device.gram_accumulate(&mut self.gram, x);
        device.abs_max(x, 0..k, &mut self.maxima);
        let rows = device.rows(x);
        let count = NUM_SAMPLES.div_ceil(num_windows).min(rows);
        for sample in 0..count {
            // A stride that is no multiple of anything spreads the samples over the positions.
            let row = (window * 37 + sample * rows / count) % rows;
            let start = self.samples.len();
            self.samples.resize(start + k, 0.0);
            device.download(x, row..row + 1, &mut self.samples[start..]);
        }
    }

    /// Gives channels that never spoke a small weight of their own: without one their columns could be rounded to
    /// anything, and they may speak in use. A layer that saw nothing at all is judged by its weights alone.
    fn lift_dead_channels(&mut self) {
        let k = self.maxima.len();
        let values = self.gram.values_mut();
        let mean = (0..k).map(|i| f64::from(values[i * k + i])).sum::<f64>() / k as f64;
        let floor = if mean > 0.0 { mean as f32 * DEAD_SHARE } else { 1.0 };
        for i in 0..k {
            if values[i * k + i] < floor {
                values[i * k + i] = floor;
                self.num_dead += 1;
            }
        }
    }

    fn is_finite(&self) -> bool {
        let k = self.maxima.len();
        let diagonal = (0..k).all(|i| self.gram.values()[i * k + i].is_finite());
        diagonal && self.maxima.iter().all(|max| max.is_finite())
    }
}

/// The windows and the buffers to run one of them.
pub struct Stream<'a, D: Device> {
    device: &'a D,
    config: &'a ModelConfig,
    num_windows: usize,
    window_len: usize,
    positions: Vec<u32>,
    sequences: Vec<u32>,
    page_tables: Vec<Vec<u32>>,
    x: D::Matrix,
    scratch: Scratch<D>,
    cache: D::Cache,
    /// The residual stream of all windows.
    residual: WindowRows,
    /// The attention outputs of all windows, so that attention runs once a block.
    attended: WindowRows,
    host: Vec<f32>,
}

impl<'a, D: Device> Stream<'a, D> {
    /// Buffers for `windows`; the rows of all windows go to files in `spill` when it is given.
    ///
    /// # Errors
    /// The files cannot be made, or the device refuses a buffer.
    pub fn new(
        device: &'a D,
        config: &'a ModelConfig,
        windows: &Windows,
        spill: Option<&Path>,
    ) -> Result<Self, QuantError> {
        let (num_windows, window_len) = (windows.len(), windows.window_len());
        let rows = |columns: usize, name: &str| match spill {
            None => Ok(WindowRows::in_memory(num_windows, window_len * columns)),
            Some(dir) => WindowRows::on_disk(&dir.join(name), window_len * columns),
        };
        let positions: Vec<u32> = (0..window_len as u32).collect();
        let mut scratch = Scratch::new(device, config, window_len);
        scratch.prepare(device, &positions);
        Ok(Self {
            device,
            config,
            num_windows,
            window_len,
            sequences: vec![0; window_len],
            page_tables: vec![(0..window_len.div_ceil(PAGE_TOKENS) as u32).collect()],
            x: device.matrix(window_len, config.hidden_size),
            cache: device.cache(cache_shape(config, window_len), &CacheFormat::F32)?,
            residual: rows(config.hidden_size, "residual.spill")?,
            attended: rows(config.q_size(), "attended.spill")?,
            positions,
            scratch,
            host: Vec::new(),
        })
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

    /// Fills the stream from tokens.
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
            embedding.apply(
                self.device,
                &mut self.x,
                &mut self.scratch.y,
                tokens,
                &self.positions,
            );
            self.store_residual(window)?;
        }
        Ok(())
    }

    /// The input of Qkv.
    ///
    /// # Errors
    /// I/O, cancellation, values that are not finite; the same in every pass.
    pub fn attention_input(&mut self, block: &Block<D>, meter: &Meter<'_>) -> Result<InputStats, QuantError> {
        let work = self.work(block).gram[Role::Qkv as usize];
        let mut stats = InputStats::new(self.config.hidden_size);
        for window in 0..self.num_windows {
            self.load_residual(window)?;
            block.attn_norm(self.device, &self.x, &mut self.scratch);
            stats.observe(self.device, &self.scratch.h, window, self.num_windows);
            meter.advance(work)?;
        }
        finished(stats, block.spec().layer, Role::Qkv.name())
    }

    /// Largest magnitude of the keys (after rope) and of the values.
    ///
    /// # Errors
    /// As [`Self::attention_input`].
    pub fn key_value_maxima(&mut self, block: &Block<D>, meter: &Meter<'_>) -> Result<[f32; 2], QuantError> {
        let (q, kv) = (self.config.q_size(), self.config.kv_size());
        let mut maxima = [vec![0.0; kv], vec![0.0; kv]];
        for window in 0..self.num_windows {
            self.load_residual(window)?;
            block.qkv(self.device, &self.x, &mut self.scratch);
            for (part, maxima) in maxima.iter_mut().enumerate() {
                let first = q + part * kv;
                self.device.abs_max(&self.scratch.qkv, first..first + kv, maxima);
            }
            meter.check()?;
        }
        Ok(maxima.map(|maxima| maxima.into_iter().fold(0.0, f32::max)))
    }

    /// The input of Out, which is also kept for [`Self::add_attention`].
    ///
    /// # Errors
    /// As [`Self::attention_input`].
    pub fn attention_output(
        &mut self,
        block: &Block<D>,
        meter: &Meter<'_>,
    ) -> Result<InputStats, QuantError> {
        let work = self.work(block);
        let work = work.linear[Role::Qkv as usize] + work.attention + work.gram[Role::Out as usize];
        let mut stats = InputStats::new(self.config.q_size());
        for window in 0..self.num_windows {
            self.attend(block, window)?;
            stats.observe(self.device, &self.scratch.c, window, self.num_windows);
            meter.advance(work)?;
        }
        finished(stats, block.spec().layer, Role::Out.name())
    }

    /// Runs attention again after the values were rescaled.
    ///
    /// # Errors
    /// As [`Self::attention_input`].
    pub fn repeat_attention(&mut self, block: &Block<D>, meter: &Meter<'_>) -> Result<(), QuantError> {
        (0..self.num_windows).try_for_each(|window| {
            self.attend(block, window)?;
            meter.check()
        })
    }

    fn attend(&mut self, block: &Block<D>, window: usize) -> Result<(), QuantError> {
        self.load_residual(window)?;
        let step = Step {
            positions: &self.positions,
            sequences: &self.sequences,
            page_tables: &self.page_tables,
        };
        block.qkv(self.device, &self.x, &mut self.scratch);
        block.attention(self.device, &mut self.scratch, &mut self.cache, 0, &step);
        download(self.device, &self.scratch.c, &mut self.host);
        self.attended.write(window, &self.host)
    }

    /// Adds the attention to the stream; the input of Up.
    ///
    /// # Errors
    /// As [`Self::attention_input`].
    pub fn add_attention(&mut self, block: &Block<D>, meter: &Meter<'_>) -> Result<InputStats, QuantError> {
        let work = self.work(block);
        let work = work.linear[Role::Out as usize] + work.gram[Role::Up as usize];
        let mut stats = InputStats::new(self.config.hidden_size);
        for window in 0..self.num_windows {
            self.load_residual(window)?;
            self.attended.read(window, &mut self.host)?;
            self.device.upload(&mut self.scratch.c, &self.host);
            block.add_out(self.device, &mut self.x, &mut self.scratch);
            self.store_residual(window)?;
            block.ffn_norm(self.device, &self.x, &mut self.scratch);
            stats.observe(self.device, &self.scratch.h, window, self.num_windows);
            meter.advance(work)?;
        }
        finished(stats, block.spec().layer, Role::Up.name())
    }

    /// The input of Down.
    ///
    /// # Errors
    /// As [`Self::attention_input`].
    pub fn ffn_inner(&mut self, block: &Block<D>, meter: &Meter<'_>) -> Result<InputStats, QuantError> {
        let work = self.work(block);
        let work = work.linear[Role::Up as usize] + work.gram[Role::Down as usize];
        let mut stats = InputStats::new(self.config.ffn_size);
        for window in 0..self.num_windows {
            self.load_residual(window)?;
            block.ffn_inner(self.device, &self.x, &mut self.scratch);
            stats.observe(self.device, &self.scratch.f, window, self.num_windows);
            meter.advance(work)?;
        }
        finished(stats, block.spec().layer, Role::Down.name())
    }

    /// Adds the feed-forward to the stream: the input of the next block.
    ///
    /// # Errors
    /// As [`Self::attention_input`].
    pub fn add_ffn(&mut self, block: &Block<D>, meter: &Meter<'_>) -> Result<(), QuantError> {
        let work = self.work(block);
        let work = work.linear[Role::Up as usize] + work.linear[Role::Down as usize];
        for window in 0..self.num_windows {
            self.load_residual(window)?;
            block.ffn_inner(self.device, &self.x, &mut self.scratch);
            block.add_down(self.device, &mut self.x, &mut self.scratch);
            self.store_residual(window)?;
            meter.advance(work)?;
        }
        Ok(())
    }

    /// The input of the head, after the last block and the norm behind it.
    ///
    /// # Errors
    /// As [`Self::attention_input`].
    pub fn head_input(&mut self, norm: &Norm<D>, meter: &Meter<'_>) -> Result<InputStats, QuantError> {
        let work = gram_work(self.window_len, self.config.hidden_size);
        let mut stats = InputStats::new(self.config.hidden_size);
        for window in 0..self.num_windows {
            self.load_residual(window)?;
            norm.apply(self.device, &mut self.scratch.h, &self.x);
            stats.observe(self.device, &self.scratch.h, window, self.num_windows);
            meter.advance(work)?;
        }
        finished(stats, self.config.num_layers, "head")
    }

    /// The rows of a window between two blocks.
    ///
    /// # Errors
    /// The spill file cannot be read.
    pub fn residual(&mut self, window: usize) -> Result<&[f32], QuantError> {
        self.residual.read(window, &mut self.host)?;
        Ok(&self.host)
    }

    /// Puts the rows of a window back (from a journal).
    ///
    /// # Errors
    /// The spill file cannot be written.
    pub fn restore_residual(&mut self, window: usize, rows: &[f32]) -> Result<(), QuantError> {
        self.residual.write(window, rows)
    }

    /// Number of windows.
    pub fn num_windows(&self) -> usize {
        self.num_windows
    }

    /// Floats in the residual rows of a window.
    pub fn floats_per_window(&self) -> usize {
        self.window_len * self.config.hidden_size
    }

    fn work(&self, block: &Block<D>) -> PassWork {
        PassWork::new(block.spec(), self.window_len)
    }

    fn load_residual(&mut self, window: usize) -> Result<(), QuantError> {
        self.residual.read(window, &mut self.host)?;
        self.device.upload(&mut self.x, &self.host);
        Ok(())
    }

    fn store_residual(&mut self, window: usize) -> Result<(), QuantError> {
        download(self.device, &self.x, &mut self.host);
        self.residual.write(window, &self.host)
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

fn download<D: Device>(device: &D, x: &D::Matrix, host: &mut Vec<f32>) {
    let rows = device.rows(x);
    host.resize(rows * device.columns(x), 0.0);
    device.download(x, 0..rows, host);
}

fn finished(mut stats: InputStats, layer: usize, role: &'static str) -> Result<InputStats, QuantError> {
    if !stats.is_finite() {
        return Err(QuantError::NotFinite { layer, role });
    }
    stats.lift_dead_channels();
    Ok(stats)
}

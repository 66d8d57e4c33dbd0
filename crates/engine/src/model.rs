//! A whole model: embedding, blocks, head.

use std::path::Path;
use std::sync::Arc;

use dualgrain_kernels::{Backend, CacheFormat};

use crate::{Block, EngineError, ModelConfig, Norm, Projection, Weights};

/// What a caller can choose at load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Format of the KV cache; by default what the folder's config says, f32 for an unquantized model.
    pub cache: Option<CacheFormat>,
}

/// Token embedding with what belongs to it: learned positions, a norm.
pub struct Embedding<B: Backend> {
    tokens: B::Table,
    positions: Option<(B::Table, usize)>,
    norm: Option<Norm<B>>,
}

/// Final norm and the projection to logits.
pub struct Head<B: Backend> {
    norm: Norm<B>,
    projection: Projection<B>,
}

/// A loaded model; [`crate::Session`] runs it.
pub struct Model<B: Backend> {
    backend: Arc<B>,
    config: ModelConfig,
    embedding: Embedding<B>,
    blocks: Vec<Block<B>>,
    head: Head<B>,
    cache_format: CacheFormat,
}

impl<B: Backend> Embedding<B> {
    /// Loads the embedding's tensors.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn load(backend: &B, weights: &Weights, config: &ModelConfig) -> Result<Self, EngineError> {
        let _ = (backend, weights, config);
        todo!()
    }

    /// `x` [M, hidden] for tokens at positions; `y` is a buffer of the same shape.
    pub fn apply(
        &self,
        backend: &B,
        x: &mut B::Matrix,
        y: &mut B::Matrix,
        tokens: &[u32],
        positions: &[u32],
    ) {
        let _ = (
            backend,
            x,
            y,
            tokens,
            positions,
            &self.tokens,
            &self.positions,
            &self.norm,
        );
        todo!()
    }
}

impl<B: Backend> Head<B> {
    /// Loads final norm and head (tied heads keep a copy of the embedding).
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn load(backend: &B, weights: &Weights, config: &ModelConfig) -> Result<Self, EngineError> {
        let _ = (backend, weights, config);
        todo!()
    }

    /// `logits` [M, vocab] of `x` [M, hidden]; `h` and `a8` are buffers of that shape.
    pub fn apply(
        &self,
        backend: &B,
        logits: &mut B::Matrix,
        x: &B::Matrix,
        h: &mut B::Matrix,
        a8: &mut B::Quantized,
    ) {
        let _ = (backend, logits, x, h, a8, &self.norm, &self.projection);
        todo!()
    }
}

impl<B: Backend> Model<B> {
    /// Loads a folder, original or quantized. bf16 weights stay bf16, f16 and f32 become f32.
    ///
    /// # Errors
    /// See [`EngineError`]; every tensor must be used.
    pub fn load(backend: Arc<B>, dir: &Path, options: &LoadOptions) -> Result<Self, EngineError> {
        let config = ModelConfig::load(dir)?;
        let weights = Weights::open(dir)?;
        Self::build(backend, config, &weights, options)
    }

    /// Builds a model from an already read configuration and its weights.
    ///
    /// # Errors
    /// See [`EngineError`]; every tensor must be used.
    pub fn build(
        backend: Arc<B>,
        config: ModelConfig,
        weights: &Weights,
        options: &LoadOptions,
    ) -> Result<Self, EngineError> {
        let _ = (backend, config, weights, options);
        todo!()
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The embedding.
    pub fn embedding(&self) -> &Embedding<B> {
        &self.embedding
    }

    /// The blocks.
    pub fn blocks(&self) -> &[Block<B>] {
        &self.blocks
    }

    /// The head.
    pub fn head(&self) -> &Head<B> {
        &self.head
    }

    /// Format of the KV cache.
    pub fn cache_format(&self) -> &CacheFormat {
        &self.cache_format
    }

    /// Bytes of all packed linears (blocks and head).
    pub fn linear_bytes(&self) -> usize {
        todo!()
    }
}

//! The original model as a run takes it: as its folder has it, or rotated.

use dualgrain_device::Statistics;
use dualgrain_engine::{
    Block, BlockSpec, Embedding, EngineError, Family, JoinedLinear, LinearId, LinearSpec, ModelConfig, Norm,
    NormKind, NormSpec, Projection, Role, Weights, load_linear, load_linear_float, load_router,
};
use dualgrain_format::checkpoint::{Dtype, TensorBytes, TensorSpec, f32_bytes};
use dualgrain_format::{FloatLinear, FloatValues, LinearWeights, transform_blocks};
use dualgrain_threads::Pool;

use super::matrix::{change_columns, change_row, change_rows, to_bf16};
use super::orthogonal::Orthogonal;
use crate::error::QuantError;

/// Seeds of the two matrices: any would do, and a fixed one makes the same folder every time.
const STREAM_SEED: u64 = 1;
const HEADS_SEED: u64 = 2;

/// What the residual stream and the value heads are multiplied by.
struct Rotation {
    stream: Orthogonal,
    heads: Orthogonal,
}

/// The original model.
pub struct Original<'a> {
    pool: &'a Pool,
    config: &'a ModelConfig,
    weights: &'a Weights,
    rotation: Option<Rotation>,
}

/// A float linear: `[N,K]` and its bias `[N]`.
pub type FloatParts = (Vec<f32>, Option<Vec<f32>>);

/// Why a model cannot be rotated; `None` where it can.
pub fn reason_against(config: &ModelConfig) -> Option<&'static str> {
    let block = BlockSpec::new(config, 0);
    match config.norm {
        NormKind::Layer => Some("its LayerNorm subtracts the mean of the channels, which a rotation changes"),
        NormKind::Rms if matches!(config.family, Family::Phi3 | Family::Glm) => {
            Some("its joined tensors are not rotated yet")
        }
        NormKind::Rms if config.family == Family::Granite => Some("its multipliers are not rotated yet"),
        NormKind::Rms if block.attn_out_norm.is_some() => Some(
            "its norms behind attention and feed-forward weigh the channels of the stream, which a rotation mixes",
        ),
        NormKind::Rms if config.norm_offset != 0.0 => {
            Some("the offset of its norms' weights is not rotated yet")
        }
        NormKind::Rms => None,
    }
}

impl<'a> Original<'a> {
    /// The model of `config` and `weights`, `rotated` or as it is, with the transform of Down's input that `config` names. A model that there is a [`reason_against`] is not rotated.
    pub fn new(pool: &'a Pool, (config, weights): (&'a ModelConfig, &'a Weights), rotated: bool) -> Self {
        let rotation = rotated.then(|| Rotation {
            stream: Orthogonal::new(config.hidden_size, STREAM_SEED),
            heads: Orthogonal::new(config.head_dim, HEADS_SEED),
        });
        Self {
            pool,
            config,
            weights,
            rotation,
        }
    }

    /// The tensors of the folder.
    pub fn weights(&self) -> &'a Weights {
        self.weights
    }

    /// Whether tensors outside the blocks differ from those of the folder.
    pub fn is_rotated(&self) -> bool {
        self.rotation.is_some()
    }

    /// Whether the linears of `role` differ from those of the folder.
    pub fn changes(&self, role: Role) -> bool {
        self.is_rotated() || (role == Role::Down && self.config.hadamard_down.is_some())
    }

    /// A linear of a block in f32.
    ///
    /// # Errors
    /// A missing, misshapen or non-finite tensor; a quantized one.
    pub fn linear(&self, spec: &LinearSpec) -> Result<FloatParts, QuantError> {
        let JoinedLinear { weights, .. } = load_linear_float(self.weights, spec)?;
        self.weights.release_pages();
        let LinearWeights::Float(linear) = weights else {
            return Err(QuantError::AlreadyQuantized {
                path: self.weights.dir().to_path_buf(),
            });
        };
        let (values, mut bias) = linear.into_parts();
        let mut values = match values {
            FloatValues::F32(values) => values,
            halves @ FloatValues::Bf16(_) => halves.to_f32(),
        };
        self.change(spec, &mut values, bias.as_deref_mut())?;
        Ok((values, bias))
    }

    /// A linear of a block in the type that the folder has it in.
    ///
    /// # Errors
    /// As [`Self::linear`].
    pub fn stored_linear(&self, spec: &LinearSpec) -> Result<LinearWeights, QuantError> {
        let stored = load_linear(self.weights, spec, None)?.weights;
        self.weights.release_pages();
        if !self.changes(spec.id.role) {
            return Ok(stored);
        }
        let is_bf16 =
            matches!(&stored, LinearWeights::Float(linear) if linear.weight().dtype() == Dtype::BF16);
        drop(stored);
        let (values, bias) = self.linear(spec)?;
        let values = if is_bf16 {
            FloatValues::Bf16(to_bf16(&values))
        } else {
            FloatValues::F32(values)
        };
        Ok(FloatLinear::new(spec.n, spec.k, values, bias).map(LinearWeights::Float)?)
    }

    /// Block `layer` as float, in f32 where it is changed.
    ///
    /// # Errors
    /// As [`Self::linear`]; the device has no room.
    pub fn block<D: Statistics>(&self, device: &D, layer: usize) -> Result<Block<D>, QuantError> {
        let spec = BlockSpec::new(self.config, layer);
        let projection = |linear: &LinearSpec| {
            let weights = match self.changes(linear.id.role) {
                false => load_linear(self.weights, linear, None)?.weights,
                true => {
                    let (values, bias) = self.linear(linear)?;
                    LinearWeights::Float(FloatLinear::new(
                        linear.n,
                        linear.k,
                        FloatValues::F32(values),
                        bias,
                    )?)
                }
            };
            Ok::<_, QuantError>((linear.id, Projection::new(device, weights)?))
        };
        let projections = spec.linears.values().map(projection);
        let projections = projections.collect::<Result<Vec<_>, _>>()?;
        let block = self.block_of(device, spec, projections);
        self.weights.release_pages();
        block
    }

    /// A block of these projections, with the original's norms.
    ///
    /// # Errors
    /// A missing, misshapen or non-finite norm.
    pub fn block_of<D: Statistics>(
        &self,
        device: &D,
        spec: BlockSpec,
        projections: Vec<(LinearId, Projection<D>)>,
    ) -> Result<Block<D>, QuantError> {
        let projections = projections.into_iter().collect();
        let mut block = Block::from_projections(device, self.weights, spec, projections)?;
        if self.is_rotated() {
            let (attention, feed_forward) = (block.spec().attn_norm.clone(), block.spec().ffn_norm.clone());
            if let Some(norm) = attention {
                block.set_attn_norm(self.norm(device, &norm)?);
            }
            if let Some(norm) = feed_forward {
                block.set_ffn_norm(self.norm(device, &norm)?);
            }
        }
        if let Some(router) = self.rotated_router(block.spec())? {
            block.set_router(device.pack(router)?);
        }
        Ok(block)
    }

    /// The router of a mixture, with the gate of its shared expert behind it, where it differs from the folder's: it reads the stream as the
    /// experts do.
    ///
    /// # Errors
    /// A missing, misshapen or non-finite tensor.
    pub fn rotated_router(&self, spec: &BlockSpec) -> Result<Option<LinearWeights>, QuantError> {
        let (Some(mixture), Some(rotation)) = (&spec.mixture, &self.rotation) else {
            return Ok(None);
        };
        let LinearWeights::Float(linear) = load_router(self.weights, mixture, spec.hidden_size)? else {
            return Ok(None);
        };
        let (n, k) = (linear.n(), linear.k());
        let (values, bias) = linear.into_parts();
        let mut values = values.to_f32();
        self.read_stream(rotation, &mut values, spec.ffn_norm.as_ref())?;
        let rotated = FloatLinear::new(n, k, FloatValues::F32(values), bias)?;
        Ok(Some(LinearWeights::Float(rotated)))
    }

    /// A norm of the residual stream.
    ///
    /// # Errors
    /// A missing, misshapen or non-finite norm.
    pub fn norm<D: Statistics>(&self, device: &D, spec: &NormSpec) -> Result<Norm<D>, QuantError> {
        match self.is_rotated() {
            false => Ok(Norm::load(device, self.weights, spec)?),
            true => Ok(Norm::new(device, spec, &self.norm_values(spec, "weight")?, None)?),
        }
    }

    /// `weight` or `bias` of a norm of the residual stream; weights are 1 where they are in the linears behind it.
    ///
    /// # Errors
    /// As [`Self::norm`].
    pub fn norm_values(&self, spec: &NormSpec, part: &str) -> Result<Vec<f32>, QuantError> {
        match self.is_rotated() {
            false => self.stored_norm(spec, part),
            true => Ok(vec![1.0; spec.len]),
        }
    }

    /// The embedding.
    ///
    /// # Errors
    /// A missing, misshapen or non-finite tensor; the device has no room.
    pub fn embedding<D: Statistics>(&self, device: &D) -> Result<Embedding<D>, QuantError> {
        let embedding = match self.is_rotated() {
            false => Embedding::load(device, self.weights, self.config)?,
            true => Embedding::of_tokens(device, self.embedding_values()?, self.config.hidden_size)?,
        };
        self.weights.release_pages();
        Ok(embedding)
    }

    /// Turns rows of the head `[rows, hidden]`, as they are stored, into those of this model.
    ///
    /// # Errors
    /// The norm before the head is missing, misshapen or not finite.
    pub fn change_head_rows(&self, rows: &mut [f32]) -> Result<(), QuantError> {
        match &self.rotation {
            None => Ok(()),
            Some(rotation) => self.read_stream(rotation, rows, Some(&self.config.final_norm())),
        }
    }

    /// The tensors outside blocks and head that differ from the folder's: embedding and last norm.
    ///
    /// # Errors
    /// As [`Self::embedding`].
    pub fn outer_tensors(&self) -> Result<Vec<TensorBytes>, QuantError> {
        if !self.is_rotated() {
            return Ok(Vec::new());
        }
        let (vocabulary, hidden) = (self.config.vocab_size, self.config.hidden_size);
        let values = self.embedding_values()?;
        let embedding = TensorSpec {
            name: format!("{}.weight", self.config.family.embedding_name()),
            dtype: values.dtype(),
            shape: vec![vocabulary, hidden],
        };
        let norm = self.config.final_norm();
        let ones = self.norm_values(&norm, "weight")?;
        let norm = TensorSpec {
            name: format!("{}.weight", norm.name),
            dtype: Dtype::F32,
            shape: vec![hidden],
        };
        Ok(vec![(embedding, values.to_le_bytes()), (norm, f32_bytes(&ones))])
    }

    /// The rotated embedding in the type that the folder has it in; f16 becomes f32, as it does when a model is loaded.
    fn embedding_values(&self) -> Result<FloatValues, QuantError> {
        let name = format!("{}.weight", self.config.family.embedding_name());
        let hidden = self.config.hidden_size;
        let values = self.weights.float(&name, &[self.config.vocab_size, hidden]);
        let values = values.map_err(EngineError::from)?;
        let Some(Rotation { stream, .. }) = &self.rotation else {
            return Ok(values);
        };
        let rotate = |row: &mut [f64]| stream.apply(row);
        match values {
            FloatValues::F32(mut values) => {
                change_rows(self.pool, &mut values, hidden, rotate);
                Ok(FloatValues::F32(values))
            }
            FloatValues::Bf16(mut values) => {
                self.pool.for_each_chunk(&mut values, hidden, |_, row| {
                    let mut wide: Vec<f32> = row.iter().map(|value| value.to_f32()).collect();
                    change_row(&mut wide, rotate);
                    row.copy_from_slice(&to_bf16(&wide));
                });
                Ok(FloatValues::Bf16(values))
            }
        }
    }

    /// Folds into a linear what rotation and transform make of its input and its output.
    fn change(
        &self,
        spec: &LinearSpec,
        weights: &mut [f32],
        bias: Option<&mut [f32]>,
    ) -> Result<(), QuantError> {
        if let (Role::Down, Some(block)) = (spec.id.role, self.config.hadamard_down) {
            change_rows(self.pool, weights, spec.k, |row| transform_blocks(row, block));
        }
        let Some(rotation) = &self.rotation else {
            return Ok(());
        };
        let block = BlockSpec::new(self.config, spec.id.layer);
        let head_dim = self.config.head_dim;
        let rotate_heads = |row: &mut [f64]| {
            row.chunks_exact_mut(head_dim)
                .for_each(|head| rotation.heads.apply(head));
        };
        match spec.id.role {
            Role::Qkv => {
                self.read_stream(rotation, weights, block.attn_norm.as_ref())?;
                let values = block.q_size() + block.kv_size();
                change_columns(self.pool, &mut weights[values * spec.k..], spec.k, rotate_heads);
                if let Some(bias) = bias {
                    change_row(&mut bias[values..], rotate_heads);
                }
            }
            Role::Out => {
                change_rows(self.pool, weights, spec.k, rotate_heads);
                self.write_stream(rotation, weights, spec.k, bias);
            }
            Role::Up => self.read_stream(rotation, weights, block.ffn_norm.as_ref())?,
            Role::Down => self.write_stream(rotation, weights, spec.k, bias),
        }
        Ok(())
    }

    /// `W diag(norm) R`: the weights of a linear `[N, hidden]` that reads the stream, behind `norm` if there is one.
    fn read_stream(
        &self,
        rotation: &Rotation,
        weights: &mut [f32],
        norm: Option<&NormSpec>,
    ) -> Result<(), QuantError> {
        let factors = match norm {
            Some(norm) => self.stored_norm(norm, "weight")?,
            None => vec![1.0; self.config.hidden_size],
        };
        change_rows(self.pool, weights, factors.len(), |row| {
            row.iter_mut()
                .zip(&factors)
                .for_each(|(value, &factor)| *value *= f64::from(factor));
            rotation.stream.apply(row);
        });
        Ok(())
    }

    /// `R^T W` and `b R`: a linear `[hidden, k]` that adds to the stream.
    fn write_stream(&self, rotation: &Rotation, weights: &mut [f32], k: usize, bias: Option<&mut [f32]>) {
        let rotate = |row: &mut [f64]| rotation.stream.apply(row);
        change_columns(self.pool, weights, k, rotate);
        if let Some(bias) = bias {
            change_row(bias, rotate);
        }
    }

    fn stored_norm(&self, spec: &NormSpec, part: &str) -> Result<Vec<f32>, QuantError> {
        let values = self.weights.f32(&format!("{}.{part}", spec.name), &[spec.len]);
        Ok(values.map_err(EngineError::from)?)
    }
}

//! The buffers of a step.

use dualgrain_device::{Device, DeviceError, Done, RoutingShape};
use dualgrain_format::FloatValues;

use crate::{Angles, FfnKind, ModelConfig, Position, Rope, RopeConfig};

/// Buffers of a step, shared by all blocks; nothing is allocated while steps fit `capacity`.
pub struct Scratch<D: Device> {
    /// Output of a norm [M, hidden] where floats are wanted.
    pub h: D::Matrix,
    /// Queries, keys, values [M, q + k + v].
    pub qkv: D::Matrix,
    /// Attention output [M, num_heads * head_dim].
    pub c: D::Matrix,
    /// Gate and up [M, 2 * ffn] of what every token goes through; not used by plain feed-forwards.
    pub up: D::Matrix,
    /// Input of the last linear [M, ffn].
    pub f: D::Matrix,
    /// Output of Out and Down [M, hidden], where they do not add to the stream themselves.
    pub y: D::Matrix,
    /// Output of a norm as INT8.
    pub h8: D::Quantized,
    pub(super) c8: D::Quantized,
    pub(super) f8: D::Quantized,
    pub(super) angles: StepAngles<D>,
    /// Of a model with experts.
    pub mixture: Option<MixtureScratch<D>>,
}

/// Buffers of the experts; a row is a token at one of its experts.
pub struct MixtureScratch<D: Device> {
    /// Logits of the router [M, experts], and the gate of the shared expert behind them.
    pub(super) logits: D::Matrix,
    /// Which tokens go to which expert.
    pub routing: D::Routing,
    /// Gate and up [rows, 2 * expert].
    pub(super) up: D::Matrix,
    /// Input of the experts' last linear [rows, expert].
    pub f: D::Matrix,
    /// Output of the experts [rows, hidden].
    pub(super) y: D::Matrix,
    pub(super) f8: D::Quantized,
}

impl<D: Device> MixtureScratch<D> {
    fn new(device: &D, config: &ModelConfig, capacity: usize) -> Result<Option<Self>, DeviceError> {
        let Some(mixture) = &config.mixture else {
            return Ok(None);
        };
        let (num_experts, num_chosen) = (mixture.num_experts, mixture.rule.num_chosen);
        let rows = capacity.saturating_mul(num_chosen);
        let shape = RoutingShape {
            tokens: capacity,
            num_experts,
            num_chosen,
            columns: config.hidden_size.max(mixture.expert_size),
        };
        Ok(Some(Self {
            logits: device.matrix(capacity, num_experts + usize::from(mixture.has_gate()))?,
            routing: device.routing(shape)?,
            up: device.matrix(rows, 2 * mixture.expert_size)?,
            f: device.matrix(rows, mixture.expert_size)?,
            y: device.matrix(rows, config.hidden_size)?,
            f8: device.quantized(rows, mixture.expert_size)?,
        }))
    }
}

/// Bytes of the experts' buffers for a token, on any device.
fn mixture_bytes(config: &ModelConfig) -> usize {
    let Some(mixture) = &config.mixture else { return 0 };
    let (hidden, inner) = (config.hidden_size, mixture.expert_size);
    // Beside floats and codes, rows are sorted for their experts: codes in whole tiles, or floats.
    let of_row = 4 * (3 * inner + hidden) + inner + 4 * hidden.max(inner) + 16;
    4 * (mixture.num_experts + 1) + mixture.rule.num_chosen * of_row
}

/// Rotary angles of a step, for each of a model's rotary embeddings.
pub(super) struct StepAngles<D: Device> {
    global: Option<EmbeddingAngles<D>>,
    local: Option<EmbeddingAngles<D>>,
}

/// Angles of one rotary embedding for the tokens of a step, taken from those of every position.
struct EmbeddingAngles<D: Device> {
    /// [positions, rotary_dim]: cos | sin.
    table: D::Table,
    /// [M, rotary_dim], the rows of the step's positions.
    rows: D::Matrix,
}

impl<D: Device> StepAngles<D> {
    /// `[M, rotary_dim]` of one of the embeddings.
    pub(super) fn rows(&self, rope: Option<Rope>) -> Option<&D::Matrix> {
        let angles = match rope? {
            Rope::Global => &self.global,
            Rope::Local => &self.local,
        };
        angles.as_ref().map(|angles| &angles.rows)
    }
}

impl<D: Device> Scratch<D> {
    /// Buffers for steps of up to `capacity` tokens that stand at positions below `positions`.
    ///
    /// # Errors
    /// The device has no room for them.
    pub fn new(
        device: &D,
        config: &ModelConfig,
        capacity: usize,
        positions: usize,
    ) -> Result<Self, DeviceError> {
        let matrix = |columns| device.matrix(capacity, columns);
        let quantized = |columns| device.quantized(capacity, columns);
        let angles = |rope: Option<&RopeConfig>| {
            let Some(rope) = rope else { return Ok(None) };
            let table = Angles::new(rope, config.rotary_dim, positions).rows(0..positions as u32);
            Ok::<_, DeviceError>(Some(EmbeddingAngles {
                table: device.table(FloatValues::F32(table), config.rotary_dim)?,
                rows: matrix(config.rotary_dim)?,
            }))
        };
        let [global, local] = ropes(config);
        let [hidden, q, qkv, up, ffn] = widths(config);
        Ok(Self {
            h: matrix(hidden)?,
            qkv: matrix(qkv)?,
            c: matrix(q)?,
            up: device.matrix(if up > 0 { capacity } else { 0 }, up.max(1))?,
            f: matrix(ffn.max(1))?,
            y: matrix(hidden)?,
            h8: quantized(hidden)?,
            c8: quantized(q)?,
            f8: quantized(ffn.max(1))?,
            angles: StepAngles {
                global: angles(global)?,
                local: angles(local)?,
            },
            mixture: MixtureScratch::new(device, config, capacity)?,
        })
    }

    /// Takes the rotary angles of a step's positions; once per step, before the first block.
    ///
    /// # Errors
    /// The device failed.
    pub fn prepare(&mut self, device: &D, positions: &D::Indices) -> Done {
        let StepAngles { global, local } = &mut self.angles;
        let mut angles = [global, local].into_iter().flatten();
        angles.try_for_each(|EmbeddingAngles { table, rows }| device.embed(rows, table, positions))
    }
}

/// Bytes of the rotary angles of `positions` positions, on any device.
pub fn angles_bytes(config: &ModelConfig, positions: usize) -> usize {
    let num_ropes = ropes(config).into_iter().flatten().count();
    positions.saturating_mul(num_ropes * 4 * config.rotary_dim)
}

/// A model's rotary embeddings: [`Rope::Global`], [`Rope::Local`].
fn ropes(config: &ModelConfig) -> [Option<&RopeConfig>; 2] {
    match &config.position {
        Position::Rope(rope) => [Some(rope), config.local_rope.as_ref()],
        _ => [None, None],
    }
}

/// Bytes of a step's buffers for `capacity` tokens, on any device.
pub fn scratch_bytes(config: &ModelConfig, capacity: usize) -> usize {
    let [hidden, q, qkv, up, ffn] = widths(config);
    let angles = ropes(config).into_iter().flatten().count() * config.rotary_dim;
    let floats = 2 * hidden + qkv + q + up + ffn + angles;
    capacity * (4 * floats + hidden + q + ffn + mixture_bytes(config))
}

/// Columns of h, c, qkv, up (0 where the feed-forward is plain) and f.
fn widths(config: &ModelConfig) -> [usize; 5] {
    let ffn = (0..config.num_layers)
        .map(|layer| config.ffn_size_of(layer))
        .max();
    let ffn = ffn.unwrap_or_default();
    let up = match config.ffn {
        FfnKind::Gated(_) => 2 * ffn,
        FfnKind::Plain(_) => 0,
    };
    let qkv = config.q_size() + 2 * config.kv_size();
    [config.hidden_size, config.q_size(), qkv, up, ffn]
}

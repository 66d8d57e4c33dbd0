//! The buffers of a step.

use dualgrain_device::{Device, DeviceError, Done};
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
    /// Gate and up [M, 2 * ffn]; not used by plain feed-forwards.
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
            f: matrix(ffn)?,
            y: matrix(hidden)?,
            h8: quantized(hidden)?,
            c8: quantized(q)?,
            f8: quantized(ffn)?,
            angles: StepAngles {
                global: angles(global)?,
                local: angles(local)?,
            },
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
    capacity * (4 * floats + hidden + q + ffn)
}

/// Columns of h, c, qkv, up (0 where the feed-forward is plain) and f.
fn widths(config: &ModelConfig) -> [usize; 5] {
    let up = match config.ffn {
        FfnKind::Gated(_) => 2 * config.ffn_size,
        FfnKind::Plain(_) => 0,
    };
    let qkv = config.q_size() + 2 * config.kv_size();
    [config.hidden_size, config.q_size(), qkv, up, config.ffn_size]
}

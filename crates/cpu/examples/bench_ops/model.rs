//! A whole step of a model: what decoding and prefill cost when nothing but the kernels runs.

use dualgrain_cpu::{Cache, CpuDevice, Isa, Linear, Matrix, Quantized};
use dualgrain_device::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Device, Done, HostStep, Operand,
    PAGE_TOKENS,
};
use dualgrain_format::LinearWeights;

use crate::operands::{matrix, one_sequence, w4, w8};
use crate::shapes::LAYERS;
use crate::table::Table;

/// All operations of a step of a 1.1B Llama (22 layers, hidden 2,048, W4 linears, W8 head, INT8 cache), weights distinct.
struct Model<'a> {
    device: &'a CpuDevice,
    layers: Vec<[Linear; 4]>,
    head: Linear,
    cache: Cache,
    norm: Matrix,
}

const HIDDEN: usize = 2_048;
const QKV: usize = 2_560;
const CONTEXT: usize = 1_024;

impl<'a> Model<'a> {
    fn new(device: &'a CpuDevice) -> Self {
        let weights = LAYERS.map(|(n, k)| w4(n, k));
        let pack = |weights: &LinearWeights| device.pack(weights.clone()).expect("packs");
        let layers: Vec<_> = (0..22).map(|_| weights.each_ref().map(pack)).collect();
        let shape = CacheShape {
            num_layers: 22,
            num_kv_heads: 4,
            head_dim: 64,
            num_pages: CONTEXT / PAGE_TOKENS,
        };
        let cache = device.cache(shape, &CacheFormat::Int8).expect("fits");
        let head = device.pack(w8(32_000, HIDDEN)).expect("packs");
        Self {
            device,
            layers,
            head,
            cache,
            norm: matrix(device, 1, HIDDEN),
        }
    }

    fn bytes(&self) -> usize {
        let linears = self.layers.iter().flatten().chain([&self.head]);
        linears.map(|linear| self.device.linear_bytes(linear)).sum()
    }

    /// Runs the tokens of a step; buffers are made once by the caller, as an engine does.
    fn step(&mut self, x: &mut Matrix, buffers: &mut Buffers, step: &HostStep) -> Done {
        let (b, tokens) = (self.device, self.device.rows(x));
        let params = AttentionParams {
            num_heads: 32,
            scale: 0.125,
            sliding_window: None,
            soft_cap: None,
            alibi_slopes: None,
            sinks: None,
        };
        let Buffers {
            y,
            wide,
            act,
            codes,
            angles,
            last_row,
        } = buffers;
        b.upload(angles, &vec![0.5; tokens * 64])?;
        for (layer, [qkv, o, gate_up, down]) in self.layers.iter().enumerate() {
            b.rms_norm_quantize(codes, y, x, &self.norm, 1e-5, ActivationScale::PerToken)?;
            b.will_read(o);
            b.gemm(wide, Operand::Int8(codes), qkv)?;
            b.rope(wide, 0..2_304, 64, angles)?;
            b.cache_write(&mut self.cache, layer, wide, 2_048..2_304, 2_304..QKV, step)?;
            b.attention(y, wide, 0..2_048, &self.cache, layer, &params, step)?;
            b.quantize(codes, y, ActivationScale::PerToken)?;
            b.will_read(gate_up);
            b.gemm_add(x, y, Operand::Int8(codes), o)?;
            b.rms_norm_quantize(codes, y, x, &self.norm, 1e-5, ActivationScale::PerToken)?;
            b.will_read(down);
            b.gemm(wide, Operand::Int8(codes), gate_up)?;
            b.gated(act, wide, Activation::Silu)?;
            b.quantize(codes, act, ActivationScale::PerToken)?;
            b.will_read(self.layers.get(layer + 1).map_or(&self.head, |next| &next[0]));
            b.gemm_add(x, y, Operand::Int8(codes), down)?;
        }
        b.gather(y, x, last_row)?;
        b.quantize(codes, y, ActivationScale::PerToken)?;
        b.will_read(&self.layers[0][0]);
        b.gemm(wide, Operand::Int8(codes), &self.head)
    }
}

/// Matrices and indices of a step.
struct Buffers {
    y: Matrix,
    wide: Matrix,
    act: Matrix,
    codes: Quantized,
    angles: Matrix,
    /// The row whose logits are wanted.
    last_row: Vec<u32>,
}

/// Times a decode step and the prefill of a prompt.
pub fn model(device: &CpuDevice, table: &mut Table) {
    if !table.wants("model_1b_decode") && !table.wants("model_1b_prefill") || device.isa() == Isa::Portable {
        return;
    }
    let mut model = Model::new(device);
    let mut buffers = Buffers {
        y: device.matrix(512, HIDDEN).unwrap(),
        wide: device.matrix(512, 11_264).unwrap(),
        act: device.matrix(512, 5_632).unwrap(),
        codes: device.quantized(512, 5_632).unwrap(),
        angles: device.matrix(512, 64).unwrap(),
        last_row: device.indices(1).unwrap(),
    };
    let bytes = model.bytes() as f64;
    for (tokens, first, op) in [(1, 64, "model_1b_decode"), (512, 0, "model_1b_prefill")] {
        let mut x = matrix(device, tokens, HIDDEN);
        let step = one_sequence(device, first..first + tokens, CONTEXT / PAGE_TOKENS);
        device
            .upload_indices(&mut buffers.last_row, &[tokens as u32 - 1])
            .unwrap();
        let shape = format!("{tokens}at{first}");
        // Rates in 1e9: tokens a second would be unreadable, so bytes read, or operations.
        let (amount, unit) = match tokens {
            1 => (bytes, "GB/s"),
            _ => (tokens as f64 * 2.0 * 0.97e9, "GOPS"),
        };
        table.row(device, op, &shape, amount, unit, || {
            model.step(&mut x, &mut buffers, &step).unwrap()
        });
    }
}

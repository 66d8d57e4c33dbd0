//! The search of phase 2 with a shortlist against judging all eighty ratios, on the layers of real models.

use std::path::{Path, PathBuf};

use dualgrain_cpu::CpuDevice;
use dualgrain_device::{
    ActivationScale, CacheFormat, CacheShape, Device, PAGE_TOKENS, StepLayout, StepLimits,
};
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{Block, Embedding, ModelConfig, Scratch, Weights, load_linear_float};
use dualgrain_format::{FloatValues, GroupSize, LinearWeights};
use dualgrain_quant::methods::method::{FloatRows, LinearTask, Resources};
use dualgrain_quant::{InputStatistics, Meter, Monitor, Observation, Search};
use dualgrain_testing::skipped;

/// Tokens the Gram matrices are made of: more than any K, so that they are not singular for lack of text.
const TOKENS: usize = 2048;

/// The shortlist may lose this part of a model's objective, summed over rows and layers.
const LOSS: f64 = 1e-3;

/// Judging every ratio of every row would take a minute on the larger model.
const EVERY_NTH_ROW: usize = 8;

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny")
}

/// What the inputs of the four linears of a block are like.
fn observe(
    device: &CpuDevice,
    config: &ModelConfig,
    block: &Block<CpuDevice>,
    x: &mut <CpuDevice as Device>::Matrix,
    scratch: &mut Scratch<CpuDevice>,
) -> [InputStatistics; 4] {
    let positions: Vec<u32> = (0..TOKENS as u32).collect();
    let (sequences, tables) = (vec![0; TOKENS], [(0..(TOKENS / PAGE_TOKENS) as u32).collect()]);
    let limits = StepLimits {
        tokens: TOKENS,
        sequences: 1,
        pages_per_sequence: TOKENS / PAGE_TOKENS,
    };
    let mut step = device.step(limits).unwrap();
    let layout = StepLayout {
        positions: &positions,
        sequences: &sequences,
        page_tables: &tables,
    };
    device.upload_step(&mut step, &layout).unwrap();
    let shape = CacheShape {
        num_layers: 1,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        num_pages: TOKENS / PAGE_TOKENS,
    };
    let mut cache = device.cache(shape, &CacheFormat::F32).unwrap();
    let observed = |input: &<CpuDevice as Device>::Matrix| {
        let mut observation = Observation::new(device, device.columns(input)).unwrap();
        observation.add(input, 0, 1).unwrap();
        observation.finish(0, "any").unwrap()
    };
    block.attn_norm(device, x, scratch).unwrap();
    let qkv = observed(&scratch.h);
    block.qkv(device, x, scratch).unwrap();
    block.attention(device, scratch, &mut cache, 0, &step).unwrap();
    let out = observed(&scratch.c);
    block.add_out(device, x, scratch).unwrap();
    block.ffn_norm(device, x, scratch).unwrap();
    let up = observed(&scratch.h);
    block.ffn_inner(device, x, scratch).unwrap();
    let down = observed(&scratch.f);
    block.add_down(device, x, scratch).unwrap();
    [qkv, out, up, down]
}

/// Summed objective of a model's layers, with a shortlist and exhaustive.
fn objectives(dir: &Path) -> [f64; 2] {
    let device = CpuDevice::new(2).unwrap();
    let config = ModelConfig::load(dir).unwrap();
    let weights = Weights::open(dir).unwrap();
    let tokenizer = Tokenizer::load(dir, config.vocab_size).unwrap();
    let text = std::fs::read_to_string(bundled().join("sample_calib.txt")).unwrap();
    let tokens = tokenizer.encode(&text, true).unwrap();
    let positions: Vec<u32> = (0..TOKENS as u32)
        .map(|p| p % config.max_positions as u32)
        .collect();
    let mut x = device.matrix(TOKENS, config.hidden_size).unwrap();
    let embedding = Embedding::load(&device, &weights, &config).unwrap();
    let on_device = |values: &[u32]| {
        let mut indices = device.indices(TOKENS).unwrap();
        device.upload_indices(&mut indices, values).unwrap();
        indices
    };
    let (tokens, positions) = (on_device(&tokens[..TOKENS]), on_device(&positions));
    let mut scratch = Scratch::new(&device, &config, TOKENS, TOKENS).unwrap();
    scratch.prepare(&device, &positions).unwrap();
    embedding
        .apply(&device, &mut x, &mut scratch.y, &tokens, &positions)
        .unwrap();
    let mut sums = [0.0; 2];
    for layer in 0..config.num_layers {
        let block = Block::load(&device, &weights, &config, layer).unwrap();
        let inputs = observe(&device, &config, &block, &mut x, &mut scratch);
        for (linear, statistics) in block.spec().linears.values().zip(&inputs) {
            let LinearWeights::Float(linear) = load_linear_float(&weights, linear).unwrap().weights else {
                panic!("an original layer is float");
            };
            let (FloatValues::F32(rows), k) = (linear.weight(), linear.k()) else {
                panic!("asked for f32")
            };
            let rows: Vec<f32> = rows
                .chunks_exact(k)
                .step_by(EVERY_NTH_ROW)
                .flatten()
                .copied()
                .collect();
            let task = LinearTask {
                rows: FloatRows {
                    weights: &rows,
                    k,
                    bias: None,
                },
                statistics,
                group_size: GroupSize::Along(128),
                activations: ActivationScale::PerToken,
            };
            let resources = Resources {
                device: &device,
                pool: device.pool(),
                meter: &Meter::new(Monitor::silent(), 0),
            };
            for (sum, search) in sums.iter_mut().zip([Search::TwoPhase, Search::Exhaustive]) {
                *sum += search.method().quantize(&resources, &task).unwrap().1.nmse();
            }
        }
    }
    sums
}

fn assert_shortlist_loses_little(dir: &Path) {
    let [shortlisted, exhaustive] = objectives(dir);
    println!(
        "{}: shortlisted {shortlisted}, exhaustive {exhaustive}",
        dir.display()
    );
    assert!(
        shortlisted >= exhaustive * (1.0 - 1e-9),
        "exhaustive is the best there is"
    );
    assert!(
        shortlisted <= exhaustive * (1.0 + LOSS),
        "{shortlisted} against {exhaustive}"
    );
}

#[test]
fn on_the_bundled_model() {
    assert_shortlist_loses_little(&bundled());
}

#[test]
fn on_the_shared_models() {
    for name in ["llama-small", "opt-tiny"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../../shared/models")
            .join(name);
        if dir.exists() {
            assert_shortlist_loses_little(&dir);
        } else {
            skipped("shared", format_args!("the shortlist was not tried on {name}"));
        }
    }
}

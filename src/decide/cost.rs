//! `cost`: what a language model will cost on a machine, from config.json and a fitted model alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dualgrain_device::CacheFormat;
use dualgrain_engine::{FfnKind, ModelConfig, Position, products};
use dualgrain_format::{CacheScheme, GroupField, TensorScheme};
use dualgrain_perf::cost::{self, BatchCost, Cost, Linear, Network, Prices, Request, Scheme};
use dualgrain_perf::plot::quantity;
use dualgrain_perf::{Interval, Model};

use crate::cli::arguments::{Common, Cost as Options, CostScheme, Kv, LmHead};
use crate::cli::table::table;
use crate::cli::terminal::Terminal;
use crate::decide::request::{by, shipped};

/// Weights that share a group scale where the folder does not say.
const GROUP_SIZE: usize = 128;

/// Prices the model and prints the answer.
pub fn run(options: &Options, common: &Common, terminal: &Terminal) -> Result<()> {
    let model = fitted(options)?;
    let (config, name) = read_config(&options.model)?;
    let network = network(&config, name);
    let request = request(options, &config);
    let threads = (common.threads > 0).then_some(common.threads);
    let prices = &mut Prices::of_model(&model, request.group_size, by(options.by), threads)?;
    let cost = cost::cost(&network, model.machine(), &request, prices)?;
    if let Some(path) = &options.html {
        std::fs::write(path, cost::page(&cost)).with_context(|| format!("writing {}", path.display()))?;
        terminal.say(&format!("pictures in {}", path.display()));
    }
    terminal.result(&cost, &text(&cost))
}

fn fitted(options: &Options) -> Result<Model> {
    Ok(match &options.fitted {
        Some(path) => Model::read(path)?,
        None => shipped(&options.device)?,
    })
}

/// The configuration in a folder or a file, and what to call the model.
fn read_config(path: &Path) -> Result<(ModelConfig, String)> {
    let config = if path.is_dir() {
        ModelConfig::load(path)?
    } else {
        ensure!(
            path.exists(),
            "{}: no such model folder or config.json",
            path.display()
        );
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        ModelConfig::from_json(&text).with_context(|| path.display().to_string())?
    };
    // A file that has no name of its own is called by its folder's.
    let nameless = path.file_name().is_some_and(|name| name == "config.json");
    let folder: PathBuf = match nameless {
        true => path.parent().unwrap_or(path).to_owned(),
        false => path.to_owned(),
    };
    let folder = folder.canonicalize().unwrap_or(folder);
    let named = if folder.is_dir() {
        folder.file_name()
    } else {
        folder.file_stem()
    };
    let name = named.map_or("the model".into(), |name| name.to_string_lossy().into_owned());
    Ok((config, name))
}

fn network(config: &ModelConfig, name: String) -> Network {
    let linears = products(config, 1).into_iter().map(|product| Linear {
        name: product.name.to_owned(),
        n: product.shape.n,
        k: product.shape.k,
        count: product.count,
        head: product.name == "head",
    });
    let positions = match config.position {
        Position::Learned { offset } => config.max_positions + offset,
        _ => 0,
    };
    Network {
        name,
        linears: linears.collect(),
        num_layers: config.num_layers,
        hidden_size: config.hidden_size,
        ffn_size: config.ffn_size,
        gated: matches!(config.ffn, FfnKind::Gated(_)),
        num_heads: config.num_heads,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        vocab_size: config.vocab_size,
        num_embeddings: config.vocab_size + positions,
        tie_embeddings: config.tie_embeddings,
        max_positions: config.max_positions,
        sliding_windows: config.sliding_windows.clone(),
    }
}

fn request(options: &Options, config: &ModelConfig) -> Request {
    let quantization = config.quantization.as_ref();
    let scheme = match options.scheme {
        CostScheme::W4a8 => Scheme::W4a8,
        CostScheme::W8a8 => Scheme::W8a8,
        CostScheme::Bf16 => Scheme::Bf16,
    };
    let head = options.lm_head.map(|head| match head {
        LmHead::Float => Scheme::Bf16,
        LmHead::Int8 => Scheme::W8a8,
        LmHead::W4a8 => Scheme::W4a8,
    });
    let stored_head = quantization.map(|q| match q.scheme(config.family.head_name()) {
        TensorScheme::Float => Scheme::Bf16,
        TensorScheme::W8 => Scheme::W8a8,
        TensorScheme::W4 => Scheme::W4a8,
    });
    let group_size = quantization.map_or(GROUP_SIZE, |q| match q.group_size {
        GroupField::Along(size) => size,
        GroupField::WholeRow(_) => 0,
    });
    Request {
        batches: options.batch.clone(),
        prompt_tokens: options.prompt,
        generate_tokens: options.generate,
        step_tokens: options.step_tokens,
        scheme,
        head_scheme: head.or(stored_head).unwrap_or(match scheme {
            Scheme::Bf16 => Scheme::Bf16,
            Scheme::W4a8 | Scheme::W8a8 => Scheme::W8a8,
        }),
        group_size,
        cache: cache(options.kv, quantization.map(|q| q.kv_cache), scheme),
    }
}

fn cache(asked: Option<Kv>, stored: Option<CacheScheme>, scheme: Scheme) -> CacheFormat {
    let asked = asked.map(|kv| match kv {
        Kv::Int8 => CacheScheme::Int8,
        Kv::Int8Static => CacheScheme::Int8Static,
        Kv::F16 => CacheScheme::F16,
    });
    let usual = match scheme {
        Scheme::Bf16 => CacheScheme::F16,
        Scheme::W4a8 | Scheme::W8a8 => CacheScheme::Int8,
    };
    match asked.or(stored).unwrap_or(usual) {
        CacheScheme::F16 => CacheFormat::F16,
        CacheScheme::Int8 => CacheFormat::Int8,
        // Only its size matters here.
        CacheScheme::Int8Static => CacheFormat::Int8Static {
            key_scales: Vec::new(),
            value_scales: Vec::new(),
        },
    }
}

fn text(cost: &Cost) -> String {
    let mut text = format!(
        "{} on {}: {} linears, {} output layer, prompts of {} tokens, {} generated\n\n",
        cost.model,
        cost.machine_words(),
        cost.scheme,
        cost.head_scheme,
        cost.prompt_tokens,
        cost.generate_tokens
    );
    let rows: Vec<_> = cost.batches.iter().map(figures).collect();
    let header = [
        "batch",
        "first token",
        "90 %",
        "tok/s",
        "90 %",
        "J/token",
        "90 %",
        "J/prompt token",
        "memory",
        "fits",
        "estimated",
        "extrapolated",
    ];
    text += &table(&header, &rows);
    for batch in &cost.batches {
        text += &format!("\nThe most expensive products at batch {}:\n\n", batch.batch);
        text += &products_table(batch);
        text += &format!(
            "\nnot measured, estimated ({:.0} % of the time): {}\n",
            100.0 * batch.estimated_share,
            estimates(batch)
        );
    }
    if cost.batches.iter().any(|batch| batch.extrapolated_share > 0.0) {
        text += "\nExtrapolated products lie outside what was measured: as far as they reach, the intervals of the totals promise nothing.\n";
    }
    text += "\n";
    for assumption in &cost.assumptions {
        text += &format!("{assumption}\n");
    }
    text
}

fn figures(batch: &BatchCost) -> Vec<String> {
    let pair = |interval: Option<Interval>, unit: &str| match interval {
        Some(i) => [
            quantity(i.value, unit),
            format!("{}..{}", quantity(i.low, unit), quantity(i.high, unit)),
        ],
        None => ["-".to_owned(), "-".to_owned()],
    };
    let memory = &batch.memory;
    let fits = if memory.fits { "yes" } else { "no" };
    let mut row = vec![batch.batch.to_string()];
    row.extend(pair(Some(batch.time_to_first_token_s), "s"));
    row.extend(pair(batch.decode_tokens_per_s, ""));
    row.extend(pair(batch.joules_per_token, "J"));
    let prompt = batch.prompt_joules_per_token;
    row.extend([
        prompt.map_or("-".to_owned(), |energy| quantity(energy.value, "J")),
        quantity(memory.total_bytes as f64, "B"),
        fits.to_owned(),
        format!("{:.0} %", 100.0 * batch.estimated_share),
        format!("{:.0} %", 100.0 * batch.extrapolated_share),
    ]);
    row
}

fn products_table(batch: &BatchCost) -> String {
    let header = [
        "product",
        "phase",
        "M x N x K",
        "times",
        "kernel",
        "config",
        "time",
        "90 %",
        "share",
        "",
    ];
    let rows = batch.products.iter().map(|line| {
        let [m, n, k] = line.shape.unwrap_or_default();
        let extrapolated = if line.extrapolated { "extrapolated" } else { "" };
        vec![
            line.name.clone(),
            line.phase.name().to_owned(),
            format!("{m}x{n}x{k}"),
            line.count.to_string(),
            line.kernel.clone(),
            line.config.clone(),
            quantity(line.time_s.value, "s"),
            format!(
                "{}..{}",
                quantity(line.time_s.low, "s"),
                quantity(line.time_s.high, "s")
            ),
            format!("{:.1} %", 100.0 * line.share),
            extrapolated.to_owned(),
        ]
    });
    table(&header, &rows.collect::<Vec<_>>())
}

fn estimates(batch: &BatchCost) -> String {
    let lines = batch.estimates.iter().map(|line| {
        let phase = line.phase.name();
        format!("{} ({phase}) {}", line.name, quantity(line.time_s.value, "s"))
    });
    lines.collect::<Vec<_>>().join(", ")
}

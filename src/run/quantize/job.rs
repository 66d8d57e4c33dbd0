//! What the options of `quantize` stand for.

use std::path::Path;

use anyhow::{Result, ensure};
use dualgrain::engine::ModelConfig;
use dualgrain::format::{ActivationScheme, CacheScheme, GroupSize, LinearScheme};
use dualgrain::quant::{JournalPolicy, QuantJob, QuantOptions, Search};
use dualgrain::quant::{SmoothPairs, Smoothing};

use crate::cli::arguments::{self, Activations, Kv, LmHead, Quantize, Smooth, SmoothPair};

/// SmoothQuant's own choice.
const DEFAULT_ALPHA: f64 = 0.5;

/// The job that was asked for.
pub fn job(arguments: &Quantize) -> Result<QuantJob> {
    check_options(arguments)?;
    let mut job = QuantJob::new(&arguments.model, &arguments.out);
    job.replace = arguments.replace;
    job.journal = journal_policy(arguments);
    job.spill_above_bytes = (arguments.spill_above * 1e9) as u64;
    let search = search(arguments.search);
    job.options = QuantOptions {
        group_size: arguments.group_size,
        schemes: arguments.scheme.clone(),
        bits: arguments.bits,
        search,
        rotate: arguments.rotate,
        hadamard_down: arguments.hadamard_down,
        ablation: arguments.without.iter().copied().collect(),
        smoothing: smoothing(arguments),
        pairs: match arguments.smooth_pairs[..] {
            [] => SmoothPairs::default(),
            ref chosen => pairs(chosen),
        },
        activations: activations(arguments.activations),
        kv_cache: cache(arguments.kv),
        lm_head: head(arguments.lm_head, arguments.group_size),
        num_windows: arguments.windows.unwrap_or(search.default_windows()),
        window_tokens: match arguments.context {
            Some(tokens) => tokens,
            None => default_window_tokens(&arguments.model)?,
        },
    };
    Ok(job)
}

/// Options that would do nothing are mistakes.
fn check_options(arguments: &Quantize) -> Result<()> {
    let smooth = smooth(arguments);
    let smooths = smooth == Smooth::Percentile;
    ensure!(
        smooths || arguments.percentile.is_none(),
        "--percentile belongs to --smooth percentile"
    );
    ensure!(
        arguments.alpha.is_none() || smooth == Smooth::Alpha,
        "--alpha belongs to --smooth alpha"
    );
    ensure!(
        smooth != Smooth::Off || arguments.smooth_pairs.is_empty(),
        "--smooth-pairs belongs to smoothing, which is off (with --rotate it is, unless --smooth asks for it)"
    );
    ensure!(
        !(arguments.hadamard_down && arguments.smooth_pairs.contains(&SmoothPair::UpDown)),
        "--smooth-pairs up-down: with --hadamard-down no scale of up reaches down; leave up-down out"
    );
    ensure!(
        arguments.without.is_empty() || arguments.search == arguments::Search::Compensate,
        "--without belongs to --method compensate"
    );
    Ok(())
}

/// Tokens of a calibration window unless the user says otherwise.
pub fn default_window_tokens(model: &Path) -> Result<usize> {
    let positions = ModelConfig::load(model)?.max_positions;
    Ok(QuantOptions::default().window_tokens.min(positions))
}

fn journal_policy(arguments: &Quantize) -> JournalPolicy {
    match (arguments.resume, arguments.restart) {
        (true, _) => JournalPolicy::Resume,
        (false, true) => JournalPolicy::Restart,
        (false, false) => JournalPolicy::Refuse,
    }
}

fn pairs(chosen: &[SmoothPair]) -> SmoothPairs {
    SmoothPairs {
        norm_qkv: chosen.contains(&SmoothPair::NormQkv),
        norm_up: chosen.contains(&SmoothPair::NormUp),
        up_down: chosen.contains(&SmoothPair::UpDown),
        v_out: chosen.contains(&SmoothPair::VOut),
    }
}

fn search(search: arguments::Search) -> Search {
    match search {
        arguments::Search::Compensate => Search::Compensate,
        arguments::Search::TwoPhase => Search::TwoPhase,
        arguments::Search::Exhaustive => Search::Exhaustive,
        arguments::Search::Rtn => Search::Rtn,
    }
}

/// A rotated model has no outliers to smooth.
fn smooth(arguments: &Quantize) -> Smooth {
    let usual = match arguments.rotate && arguments.percentile.is_none() {
        true => Smooth::Off,
        false => Smooth::Percentile,
    };
    arguments.smooth.unwrap_or(usual)
}

fn smoothing(arguments: &Quantize) -> Smoothing {
    match smooth(arguments) {
        Smooth::Percentile => arguments
            .percentile
            .map_or(Smoothing::Auto, Smoothing::Percentile),
        Smooth::Alpha => Smoothing::Alpha(arguments.alpha.unwrap_or(DEFAULT_ALPHA)),
        Smooth::Off => Smoothing::Off,
    }
}

fn activations(activations: Activations) -> ActivationScheme {
    match activations {
        Activations::PerToken => ActivationScheme::PerToken,
        Activations::Static => ActivationScheme::Static,
    }
}

fn cache(kv: Kv) -> CacheScheme {
    match kv {
        Kv::Int8 => CacheScheme::Int8,
        Kv::Int8Static => CacheScheme::Int8Static,
        Kv::F16 => CacheScheme::F16,
    }
}

fn head(head: LmHead, group_size: GroupSize) -> LinearScheme {
    match head {
        LmHead::Float => LinearScheme::Float,
        LmHead::Int8 => LinearScheme::W8,
        LmHead::W4a8 => LinearScheme::w4(group_size),
    }
}

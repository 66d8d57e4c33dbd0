//! Whole answers from prices that are a roofline: sums that must hold whatever the products cost.

use dualgrain_device::CacheFormat;
use dualgrain_format::GroupSize;

use super::answer::{BatchCost, CostItem, NetworkCost};
use super::calculation::cost;
use super::html::html;
use super::network::{Linear, Network};
use super::phase::{product_items, scaled};
use super::price::{Price, Prices};
use super::scheme::Scheme;
use super::threads;
use super::workload::{Phase, Workload};
use crate::machine::{Machine, MachineKind};
use crate::predict::{Interval, Prediction};
use crate::small_ops::{SmallOpPower, SmallOpRates};
use crate::timed_models::{DecodeStep, ModelSizes, TimedModel};

fn machine(kind: MachineKind) -> Machine {
    Machine {
        name: "a machine".to_owned(),
        kind,
        num_units: 132,
        clock_hz: 1.98e9,
        read_bytes_per_s: 4e12,
        last_level_cache_bytes: 60 << 20,
        memory_bytes: 140_000_000_000,
        shared_bytes: 232_448,
        capability: 90,
        int8_ops_per_s: 1.4e15,
        half_ops_per_s: 7e14,
        float_ops_per_s: 5e13,
        idle_power_w: Some(80.0),
        power_limit_w: Some(700.0),
        small_ops: None,
        timed_models: Vec::new(),
    }
}

/// Llama-3-70B's sizes.
fn network() -> Network {
    let linear = |name: &str, n: usize, k: usize, count: usize| Linear {
        name: name.to_owned(),
        n,
        k,
        count,
        choice: None,
        head: name == "head",
    };
    Network {
        name: "llama-3-70b".to_owned(),
        linears: vec![
            linear("qkv", 10_240, 8_192, 80),
            linear("out", 8_192, 8_192, 80),
            linear("up", 57_344, 8_192, 80),
            linear("down", 8_192, 28_672, 80),
            linear("head", 128_256, 8_192, 1),
        ],
        num_layers: 80,
        hidden_size: 8_192,
        ffn_size: 28_672,
        gated: true,
        num_heads: 64,
        num_kv_heads: 8,
        head_dim: 128,
        vocab_size: 128_256,
        num_embeddings: 128_256,
        tie_embeddings: false,
        max_positions: 8_192,
        sliding_windows: vec![None; 80],
    }
}

fn workload(batches: &[usize]) -> Workload {
    Workload {
        batches: batches.to_vec(),
        prompt_tokens: 512,
        generate_tokens: 64,
        step_tokens: 4_096,
        scheme: Scheme::W4a8,
        head_scheme: Scheme::Bf16,
        group_size: GroupSize::Along(128),
        kv_cache: CacheFormat::Int8,
    }
}

/// Bytes at 4 TB/s or operations at 1,000 TOPS, 10 % either way, 500 W.
fn roofline(with_energy: bool) -> Prices<'static> {
    Prices::new(move |scheme, [m, n, k]| {
        let (m, n, k) = (m as f64, n as f64, k as f64);
        let weight_bytes = if scheme == Scheme::W4a8 { 0.52 } else { 2.0 };
        let time = (n * k * weight_bytes / 4e12).max(2.0 * m * n * k / 1e15);
        let time_s = Interval {
            value: time,
            low: 0.9 * time,
            high: 1.1 * time,
        };
        let energy_j = with_energy.then(|| scaled(time_s, 500.0));
        Ok(Price {
            kernel: format!("gemm_{scheme}"),
            config: "m64".to_owned(),
            prediction: Prediction {
                time_s,
                power_w: energy_j.map(|_| scaled(time_s, 500.0 / time)),
                energy_j,
                ops_per_s: time_s.rate(2.0 * m * n * k),
                ops_per_j: None,
                extrapolated: false,
            },
        })
    })
}

fn answer(workload: &Workload) -> NetworkCost {
    cost(
        &network(),
        &machine(MachineKind::Gpu),
        workload,
        &mut roofline(true),
    )
    .unwrap()
}

#[test]
fn shares_of_all_lines_are_the_whole_time() {
    for batch in answer(&workload(&[1, 8, 32])).batches {
        // At most ten kinds of product here, so none is cut off.
        let items = || batch.products.iter().chain(&batch.estimates);
        let shares: f64 = items().map(|item| item.share).sum();
        let time_s: f64 = items().map(|item| item.time_s.value).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{shares}");
        assert!((time_s / batch.total_time_s.value - 1.0).abs() < 1e-9);
        let phases = batch.time_to_first_token_s.value
            + (batch.batch * 63) as f64 / batch.decode_tokens_per_s.unwrap().value;
        assert!((phases / batch.total_time_s.value - 1.0).abs() < 1e-9);
    }
}

#[test]
fn every_token_of_the_prompts_is_multiplied_once() {
    // 5 prompts of 512 tokens in steps of 1,000: two whole ones and a rest of 560.
    let mut workload = workload(&[5]);
    workload.step_tokens = 1_000;
    let items = |phase| product_items(&network(), &workload, 5, phase, &mut roofline(true)).unwrap();
    let rows = |name: &str, phase: Phase| -> usize {
        let items = items(phase);
        let wanted = items.iter().filter(|item| item.name == name);
        wanted.map(|item| item.count * item.shape.unwrap()[0]).sum()
    };
    assert_eq!(rows("up", Phase::Prompt), 80 * 5 * 512);
    assert_eq!(rows("head", Phase::Prompt), 5);
    assert_eq!(rows("up", Phase::Decode), 80 * 5 * 63);
    assert_eq!(rows("head", Phase::Decode), 5 * 63);
}

#[test]
fn steps_of_equal_size_are_counted_together() {
    // One prompt token for each of three sequences: the prompt's step looks like a step of decoding, in its own phase.
    let mut workload = workload(&[3]);
    (workload.prompt_tokens, workload.generate_tokens) = (1, 1);
    let cost = answer(&workload);
    let batch = &cost.batches[0];
    assert_eq!(batch.products.len(), 5);
    assert_eq!((batch.decode_tokens_per_s, batch.joules_per_token), (None, None));
    assert!(batch.total_joules_per_token.is_some());
}

#[test]
fn measured_operations_have_their_own_start_and_power() {
    let rates = SmallOpRates {
        prompt_attention_ops_per_s: 2e14,
        decode_attention_ops_per_s: 0.0,
        decode_cache_bytes_per_s: 4e12,
        decode_attention_start_s: 4e-6,
        bytes_per_s: 3e12,
        start_s: 2e-6,
        power: Some(SmallOpPower {
            prompt_attention_w: 600.0,
            decode_attention_w: 400.0,
            bytes_w: 300.0,
            start_w: 200.0,
        }),
    };
    let mut machine = machine(MachineKind::Gpu);
    machine.small_ops = Some(rates);
    let answer = |machine: &Machine| cost(&network(), machine, &workload(&[1]), &mut roofline(true)).unwrap();
    let attention = |machine: &Machine| {
        let [batch] = &answer(machine).batches[..] else {
            panic!("one batch");
        };
        let is_it = |item: &&CostItem| item.name.starts_with("attention") && item.phase == Phase::Decode;
        batch.estimates.iter().find(is_it).unwrap().clone()
    };
    let with_start = attention(&machine);
    let power_w = with_start.energy_j.unwrap().value / with_start.time_s.value;
    assert!(
        power_w > 200.0 && power_w < 400.0,
        "{power_w} W: between start and pairs"
    );
    machine.small_ops = Some(SmallOpRates {
        decode_attention_start_s: 0.0,
        ..rates
    });
    let without = attention(&machine);
    let starts_s = with_start.time_s.value - without.time_s.value;
    // 63 steps behind the prompt's own token, 80 layers each.
    assert!((starts_s / (63.0 * 80.0 * 4e-6) - 1.0).abs() < 1e-9, "{starts_s}");
    let power_w = without.energy_j.unwrap().value / without.time_s.value;
    assert!((power_w / 400.0 - 1.0).abs() < 1e-9, "{power_w} W");
}

#[test]
fn larger_batches_share_the_weights() {
    let cost = answer(&workload(&[1, 32]));
    let [one, many] = &cost.batches[..] else {
        panic!("two batch sizes")
    };
    let speed = |batch: &BatchCost| batch.decode_tokens_per_s.unwrap().value;
    assert!(speed(many) > 10.0 * speed(one));
    assert!(many.joules_per_token.unwrap().value < one.joules_per_token.unwrap().value);
    assert_eq!(many.memory.weights_bytes, one.memory.weights_bytes);
    assert_eq!(many.memory.kv_cache_bytes, 32 * one.memory.kv_cache_bytes);
}

#[test]
fn energy_of_a_token_leaves_the_prompts_out_as_its_speed_does() {
    let cost = answer(&workload(&[4]));
    let batch = &cost.batches[0];
    let [token, prompt, total] = [
        batch.joules_per_token,
        batch.prompt_joules_per_token,
        batch.total_joules_per_token,
    ]
    .map(|energy| energy.unwrap().value);
    let (decoded, prompts, generated) = (4.0 * 63.0, 4.0 * 512.0, 4.0 * 64.0);
    let sum = token * decoded + prompt * prompts;
    assert!((total * generated / sum - 1.0).abs() < 1e-9);
    // Products draw 500 W, and everything else what they do.
    let power_w = token * batch.decode_tokens_per_s.unwrap().value;
    assert!((power_w / 500.0 - 1.0).abs() < 0.01, "{power_w} W");
}

#[test]
fn products_outside_what_was_measured_are_told_in_the_totals() {
    let mut known = roofline(true);
    let mut prices = Prices::new(move |scheme, shape| {
        let mut price = known.of(scheme, shape)?;
        price.prediction.extrapolated = shape[1] > 100_000;
        Ok(price)
    });
    let cost = cost(
        &network(),
        &machine(MachineKind::Gpu),
        &workload(&[1]),
        &mut prices,
    )
    .unwrap();
    let batch = &cost.batches[0];
    let heads = batch.products.iter().filter(|item| item.name == "head");
    let share: f64 = heads.map(|item| item.share).sum();
    assert!(share > 0.0 && (batch.extrapolated_share - share).abs() < 1e-12);
    let none = answer(&workload(&[1])).batches[0].extrapolated_share;
    assert!(none == 0.0 && none.is_sign_positive(), "{none}");
    assert!(html(&cost).contains(&format!("{:.0} %", 100.0 * share)));
}

#[test]
fn fewer_threads_reach_less_and_say_so() {
    let machine = Machine {
        num_units: 4,
        ..machine(MachineKind::Cpu)
    };
    let one = threads::limited(&machine, 1);
    assert_eq!(one.read_bytes_per_s, machine.read_bytes_per_s / 4.0);
    assert!(
        threads::assumption(&machine, 1)
            .unwrap()
            .contains("1 of 4 threads")
    );
    assert_eq!(threads::limited(&machine, 4), machine);
    assert_eq!(threads::assumption(&machine, 4), None);
}

#[test]
fn memory_says_what_fits() {
    let (small, large) = (workload(&[1]), workload(&[512]));
    let memory = |workload: &Workload| answer(workload).batches[0].memory;
    // 68.45 G weights of the blocks at 4.1 bits, a 16-bit head and embedding of 1.05 G each.
    let expected = 68.45e9 * 4.1 / 8.0 + 2.0 * 2.1e9;
    assert!((memory(&small).weights_bytes as f64 / expected - 1.0).abs() < 0.01);
    assert!(memory(&small).fits && memory(&large).kv_cache_bytes > memory(&small).kv_cache_bytes);
    let floats = Workload {
        scheme: Scheme::Bf16,
        ..workload(&[1])
    };
    assert!(!memory(&floats).fits, "141 GB of weights do not fit 140 GB");
}

#[test]
fn intervals_hold_their_values_and_energy_needs_every_line() {
    let cost_of = |with_energy| {
        let prices = &mut roofline(with_energy);
        cost(&network(), &machine(MachineKind::Cpu), &workload(&[4]), prices).unwrap()
    };
    let batch = &cost_of(true).batches[0];
    let energy = [batch.joules_per_token, batch.prompt_joules_per_token];
    let times = [Some(batch.time_to_first_token_s), batch.decode_tokens_per_s];
    for interval in energy.into_iter().chain(times).flatten() {
        assert!(interval.low < interval.value && interval.value < interval.high);
    }
    assert_eq!(cost_of(false).batches[0].joules_per_token, None);
}

#[test]
fn requests_that_cannot_be_are_refused_in_words() {
    let refused = |change: &dyn Fn(&mut Workload)| {
        let mut workload = workload(&[1]);
        change(&mut workload);
        let prices = &mut roofline(true);
        cost(&network(), &machine(MachineKind::Gpu), &workload, prices)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&|r| r.batches = vec![1, 0]).contains("--batch is 0"));
    assert!(refused(&|r| r.batches = Vec::new()).contains("--batch"));
    assert!(refused(&|r| r.generate_tokens = 0).contains("--generate is 0"));
    let message = refused(&|r| r.prompt_tokens = 8_190);
    assert!(message.contains("8254") && message.contains("8192"), "{message}");
    assert!(refused(&|r| r.prompt_tokens = usize::MAX).contains("positions"));
}

#[test]
fn kernels_of_a_scheme_are_told_by_their_names() {
    let gpu = [
        "cublas_bf16",
        "cublas_f16",
        "cublaslt_int8",
        "gemm_w4a8_sm90",
        "gemv_w4a8_sm90",
        "sgemm_tiled",
    ];
    assert_eq!(Scheme::W4a8.kernels(&gpu), ["gemm_w4a8_sm90", "gemv_w4a8_sm90"]);
    assert_eq!(Scheme::W8a8.kernels(&gpu), ["cublaslt_int8"]);
    assert_eq!(Scheme::Bf16.kernels(&gpu), ["cublas_bf16"]);
    assert_eq!(
        Scheme::Bf16.kernels(&["gemm_f32_avx2", "other"]),
        ["gemm_f32_avx2"]
    );
}

#[test]
fn page_shows_the_figures_of_the_answer() {
    let cost = answer(&workload(&[1, 8, 32]));
    let html = html(&cost);
    for batch in &cost.batches {
        let figure = crate::report::plot::quantity(batch.decode_tokens_per_s.unwrap().value, "tok/s");
        assert!(html.contains(&figure), "{figure}");
    }
    assert!(html.contains("estimate") && html.contains("on a card of that kind"));
    assert!(!html.contains("<script") && !html.contains("http"));
}

/// A Llama of so many blocks that was timed at a second a step.
fn timed(num_layers: usize) -> TimedModel {
    TimedModel {
        sizes: ModelSizes {
            num_layers,
            hidden: 1_024,
            num_heads: 16,
            num_kv_heads: 4,
            head_dim: 64,
            ffn: 4_096,
            vocab_size: 8_192,
        },
        prompt_tokens: 512,
        prompt_s: 1.0,
        context: 576,
        decode: [1, 4]
            .map(|sequences| DecodeStep {
                sequences,
                time_s: 1.0,
            })
            .to_vec(),
    }
}

/// The same model as it is asked about.
fn network_of(timed: &TimedModel) -> Network {
    let sizes = timed.sizes;
    let linear = |(name, [n, k]): (&str, [usize; 2]), count| Linear {
        name: name.to_owned(),
        n,
        k,
        count,
        choice: None,
        head: name == "head",
    };
    let block = ["qkv", "out", "up", "down"].into_iter().zip(sizes.block());
    let block = block.map(|one| linear(one, sizes.num_layers));
    Network {
        linears: block.chain([linear(("head", sizes.head()), 1)]).collect(),
        num_layers: sizes.num_layers,
        hidden_size: sizes.hidden,
        ffn_size: sizes.ffn,
        num_heads: sizes.num_heads,
        num_kv_heads: sizes.num_kv_heads,
        head_dim: sizes.head_dim,
        vocab_size: sizes.vocab_size,
        sliding_windows: vec![None; sizes.num_layers],
        ..network()
    }
}

/// Seconds of a step that decodes `batch` sequences of 575 positions and of a prompt of 512.
fn step_s(machine: &Machine, network: &Network, batch: usize, asked: &Workload) -> [f64; 2] {
    let decode = Workload {
        batches: vec![batch],
        prompt_tokens: 575,
        generate_tokens: 2,
        ..asked.clone()
    };
    let prompt = Workload {
        prompt_tokens: 512,
        ..decode.clone()
    };
    let mut prices = roofline(false).with_threads(2);
    let mut answer = |workload: &Workload| {
        let cost = cost(network, machine, workload, &mut prices).unwrap();
        cost.batches[0].clone()
    };
    let tokens_per_s = answer(&decode).decode_tokens_per_s.unwrap().value;
    [
        batch as f64 / tokens_per_s,
        answer(&prompt).time_to_first_token_s.value,
    ]
}

#[test]
fn steps_are_priced_by_what_models_took_whose_weights_lie_as_theirs_do() {
    let alone = Machine {
        num_units: 2,
        ..machine(MachineKind::Cpu)
    };
    let asked = Workload {
        head_scheme: Scheme::W8a8,
        ..workload(&[1])
    };
    // One lies in the cache and takes half of what its parts add up to; the other one takes a quarter more.
    let (mut small, mut large) = (timed(2), timed(32));
    for (timed, factor) in [(&mut small, 0.5), (&mut large, 1.25)] {
        let network = network_of(timed);
        for step in &mut timed.decode {
            step.time_s = factor * step_s(&alone, &network, step.sequences, &asked)[0];
        }
        timed.prompt_s = factor * step_s(&alone, &network, 1, &asked)[1];
    }
    let told = Machine {
        timed_models: vec![large, small],
        ..alone.clone()
    };
    let factors = |num_layers, batch, asked: &Workload| {
        let network = network_of(&timed(num_layers));
        let (told, alone) = (
            step_s(&told, &network, batch, asked),
            step_s(&alone, &network, batch, asked),
        );
        [told[0] / alone[0], told[1] / alone[1]]
    };
    let are = |factors: [f64; 2], expected: f64| factors.iter().all(|f| (f - expected).abs() < 1e-9);
    for batch in [1, 2, 4, 16] {
        assert!(are(factors(1, batch, &asked), 0.5), "smaller than any");
        assert!(are(factors(2, batch, &asked), 0.5));
        assert!(are(factors(32, batch, &asked), 1.25));
        assert!(are(factors(80, batch, &asked), 1.25), "larger than any");
        let between = factors(8, batch, &asked);
        assert!(
            between.iter().all(|factor| (0.55..1.2).contains(factor)),
            "{between:?}"
        );
    }
    let floats = Workload {
        scheme: Scheme::Bf16,
        ..asked.clone()
    };
    assert!(are(factors(2, 1, &floats), 1.0), "no model of floats was timed");
    let network = network_of(&timed(2));
    let cost = cost(&network, &told, &asked, &mut roofline(false).with_threads(2)).unwrap();
    let said = cost.assumptions.last().unwrap();
    assert!(
        said.contains("0.50 (prompts") && said.contains("0.50 (decode)"),
        "{said}"
    );
}

//! How long each step takes while many sequences arrive together, decode, and end one after the other, as under a server; a step that
//! stalls shows: `step_times DIR [SEQUENCES] [PROMPT TOKENS] [GENERATED TOKENS] [ROUNDS]`, on a card.

use std::sync::Arc;
use std::time::Instant;

use dualgrain_cuda::CudaDevice;
use dualgrain_device::sampling::SamplingParams;
use dualgrain_engine::scheduler::{Scheduler, TokenRequest};
use dualgrain_engine::{LoadOptions, Model, Session, SessionLimits};

/// The slowest steps without prompt tokens are shown, so many.
const SLOWEST: usize = 10;

struct Step {
    time_s: f64,
    running: usize,
    prompt_tokens: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| {
        let text = arguments.get(at);
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let (num_sequences, prompt, generated) = (number(1, 256), number(2, 1_000), number(3, 300));
    let card = Arc::new(CudaDevice::open(0).expect("a card"));
    let options = LoadOptions {
        cache: None,
        blocks_at_once: 4,
    };
    let model = Arc::new(Model::load(card, arguments[0].as_ref(), &options).expect("a model"));
    let vocab_size = model.config().vocab_size;
    let limits = SessionLimits::new(num_sequences, prompt + generated, 2_048);
    let mut scheduler = Scheduler::new(Session::new(model, limits).expect("a session"));
    for round in 0..number(4, 2) {
        for sequence in 0..num_sequences {
            let first = sequence * 104_729 + round;
            let tokens = (0..prompt).map(|i| ((i * 7919 + first) % vocab_size) as u32);
            let request = request(tokens.collect(), generated);
            scheduler.admit(request).expect("a request");
        }
        println!("round {round}:");
        show(&steps(&mut scheduler), num_sequences);
    }
}

fn request(prompt: Vec<u32>, generated: usize) -> TokenRequest {
    TokenRequest {
        score_from: None,
        prompt,
        sampling: SamplingParams::GREEDY,
        max_tokens: Some(generated),
        end_tokens: Vec::new(),
        keep: false,
        constraint: None,
    }
}

fn steps(scheduler: &mut Scheduler<CudaDevice>) -> Vec<Step> {
    let mut steps = Vec::new();
    while !scheduler.is_idle() {
        let begin = Instant::now();
        let report = scheduler.step();
        steps.push(Step {
            time_s: begin.elapsed().as_secs_f64(),
            running: scheduler.num_running(),
            prompt_tokens: report.prompt_tokens,
        });
    }
    steps
}

fn show(steps: &[Step], num_sequences: usize) {
    group(
        "with prompt tokens",
        steps.iter().filter(|step| step.prompt_tokens > 0),
    );
    let decoding = || steps.iter().filter(|step| step.prompt_tokens == 0);
    group(
        "all decode",
        decoding().filter(|step| step.running == num_sequences),
    );
    let mut below = num_sequences;
    while below > 0 {
        let from = below / 2;
        let name = format!("{from} to {below} decode");
        group(
            &name,
            decoding().filter(|step| (from..below).contains(&step.running)),
        );
        below = from;
    }
    let mut slowest: Vec<(usize, &Step)> = steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.prompt_tokens == 0)
        .collect();
    slowest.sort_by(|(_, one), (_, other)| other.time_s.total_cmp(&one.time_s));
    for (at, step) in slowest.iter().take(SLOWEST) {
        println!(
            "  step {at}: {:.1} ms, {} decode",
            1e3 * step.time_s,
            step.running
        );
    }
}

fn group<'a>(name: &str, steps: impl Iterator<Item = &'a Step>) {
    let mut times: Vec<f64> = steps.map(|step| 1e3 * step.time_s).collect();
    times.sort_by(f64::total_cmp);
    if let Some(longest) = times.last() {
        let (sum, median) = (times.iter().sum::<f64>(), times[times.len() / 2]);
        println!(
            "  {name}: {} steps, {sum:.0} ms, median {median:.2} ms, longest {longest:.1} ms",
            times.len()
        );
    }
}

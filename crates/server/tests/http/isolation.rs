//! An answer does not depend on who else is served.

use dualgrain::SessionLimits;
use dualgrain_device::cases::Random;
use dualgrain_server::Options;
use serde_json::{Value, json};

use crate::client::{Server, said};

const CHAT: &str = "/v1/chat/completions";

/// A request that is drawn at random; what it asks for is answered with every token's log-probabilities.
fn asked(random: &mut Random) -> Value {
    let words = ["sea", "ship", "old", "captain", "wind", "night", "the", "of"];
    let num_words = 1 + random.below(60);
    let text: Vec<&str> = (0..num_words).map(|_| words[random.below(words.len())]).collect();
    json!({
        "messages": said(&text.join(" ")),
        "max_tokens": 1 + random.below(60),
        "temperature": random.below(3) as f64 * 0.6,
        "top_k": random.below(2) * 20,
        "frequency_penalty": random.below(2) as f64 * 0.5,
        "repetition_penalty": 1.0 + random.below(2) as f64 * 0.2,
        "seed": random.below(1000),
        "n": 1 + random.below(2),
        "logprobs": true,
        "top_logprobs": random.below(4),
    })
}

#[test]
fn a_request_alone_equals_the_same_request_among_others() {
    let mut random = Random(3);
    let all: Vec<Value> = (0..60).map(|_| asked(&mut random)).collect();
    let quiet = Server::start(SessionLimits::new(1, 256, 128), Options::default());
    let alone: Vec<Value> = all
        .iter()
        .map(|asked| quiet.ask(CHAT, asked)["choices"].clone())
        .collect();
    let mut limits = SessionLimits::new(8, 256, 32);
    // Fewer pages than eight sequences can fill: some lose theirs and run again.
    limits.num_pages = Some(12);
    let busy = Server::start(limits, Options::default());
    std::thread::scope(|scope| {
        for client in 0..20 {
            let (busy, all, alone) = (&busy, &all, &alone);
            scope.spawn(move || {
                for index in (0..all.len()).filter(|index| index % 20 == client) {
                    let choices = busy.ask(CHAT, &all[index])["choices"].clone();
                    assert_eq!(choices, alone[index], "{}", all[index]);
                }
            });
        }
    });
    busy.wait_for_rest();
    let preempted = busy.metric("vllm:num_preemptions_total");
    assert!(preempted > 0.0, "pages never ran short");
}

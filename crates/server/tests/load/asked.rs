//! Requests that are drawn at random, and their answers in one form however they were sent.

use dualgrain_device::cases::Random;
use serde_json::{Value, json};

use crate::client::{Reply, Server, request, said};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const WORDS: [&str; 12] = [
    "sea", "ship", "old", "captain", "wind", "night", "the", "of", "whale", "and", "deep", "home",
];

/// A request, whole.
#[derive(Clone)]
pub struct Asked {
    pub path: &'static str,
    pub body: Value,
}

/// A choice: its text, each token with its log-probabilities, and how it ended.
#[derive(Debug, Default, PartialEq)]
pub struct Choice {
    text: String,
    tokens: Vec<Value>,
    reason: Value,
}

impl Asked {
    /// Every second one begins with one of three long texts, so that the cache can hold its beginning.
    pub fn draw(random: &mut Random) -> Self {
        let beginning = match random.below(6) {
            kind @ 0..3 => WORDS[kind..kind + 4].join(" ").repeat(20) + " ",
            _ => String::new(),
        };
        let text = beginning + &words(random);
        let (path, mut body) = match random.below(2) {
            0 => (
                CHAT,
                json!({"messages": said(&text), "logprobs": true, "top_logprobs": random.below(4)}),
            ),
            _ => (COMPLETIONS, json!({"prompt": text, "logprobs": random.below(4)})),
        };
        let sampling = json!({
            "max_tokens": 1 + random.below(60),
            "temperature": random.below(3) as f64 * 0.6,
            "top_p": 1.0 - random.below(3) as f64 * 0.1,
            "top_k": random.below(2) * 20,
            "min_p": random.below(2) as f64 * 0.02,
            "frequency_penalty": random.below(2) as f64 * 0.5,
            "presence_penalty": random.below(2) as f64 * 0.5,
            "repetition_penalty": 1.0 + random.below(2) as f64 * 0.2,
            "logit_bias": {"11": random.below(3) as i64 - 1},
            "stop": [WORDS[random.below(WORDS.len())].to_owned() + " " + WORDS[random.below(WORDS.len())]],
            "ignore_eos": random.below(2) == 0,
            "seed": random.below(1000),
            "n": 1 + random.below(2),
        });
        body.as_object_mut()
            .unwrap()
            .extend(sampling.as_object().unwrap().clone());
        Self { path, body }
    }

    /// The bytes of the request.
    pub fn bytes(&self, stream: bool) -> Vec<u8> {
        let mut body = self.body.clone();
        body["stream"] = stream.into();
        request(self.path, "", body.to_string().as_bytes())
    }

    /// What it is answered.
    #[track_caller]
    pub fn choices(&self, server: &Server, stream: bool) -> Vec<Choice> {
        self.choices_of(&server.raw(&self.bytes(stream)), stream)
    }

    /// What `reply` says.
    #[track_caller]
    pub fn choices_of(&self, reply: &Reply, stream: bool) -> Vec<Choice> {
        assert!(
            reply.status == 200 && reply.complete,
            "{}: {}",
            self.body,
            reply.text()
        );
        let num_choices = self.body["n"].as_u64().unwrap() as usize;
        let mut choices: Vec<Choice> = (0..num_choices).map(|_| Choice::default()).collect();
        let pieces = match stream {
            true => reply.events(),
            false => vec![reply.json()],
        };
        for piece in pieces
            .iter()
            .flat_map(|event| event["choices"].as_array().unwrap())
        {
            choices[piece["index"].as_u64().unwrap() as usize].add(piece);
        }
        choices
    }
}

impl Choice {
    fn add(&mut self, piece: &Value) {
        let texts = [
            &piece["text"],
            &piece["message"]["content"],
            &piece["delta"]["content"],
        ];
        texts
            .iter()
            .filter_map(|text| text.as_str())
            .for_each(|text| self.text += text);
        let logprobs = &piece["logprobs"];
        if let Some(entries) = logprobs["content"].as_array() {
            self.tokens.extend(entries.iter().cloned());
        }
        if let Some(tokens) = logprobs["tokens"].as_array() {
            let entry = |index: usize| {
                let of = |list: &str| logprobs[list][index].clone();
                json!([
                    tokens[index],
                    of("token_logprobs"),
                    of("top_logprobs"),
                    of("text_offset")
                ])
            };
            self.tokens.extend((0..tokens.len()).map(entry));
        }
        if !piece["finish_reason"].is_null() {
            self.reason = piece["finish_reason"].clone();
        }
    }
}

fn words(random: &mut Random) -> String {
    let num_words = 1 + random.below(50);
    let text: Vec<&str> = (0..num_words).map(|_| WORDS[random.below(WORDS.len())]).collect();
    text.join(" ")
}

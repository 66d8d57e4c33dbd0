//! The parameters that interfaces share, checked against the model.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use dualgrain::engine::{Request, SamplingDefaults, SharedConstraint};
use dualgrain::{GenerateOptions, SamplingParams};
use serde_json::Value;

use super::fields::{Fields, shown};
use super::ranges::{
    BIAS, CHOICES, LOGPROBS, MAX_BIASES, MAX_STOP_BYTES, MAX_STOPS, MAX_TOKENS, MIN_P, PENALTY, PRIORITY,
    REPETITION_PENALTY, TEMPERATURE, TOP_K, TOP_P,
};
use crate::error::ApiError;

/// What a model allows.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Tokens of a prompt and its answer together.
    pub context_tokens: usize,
    /// Token ids lie below it.
    pub vocab_size: usize,
    /// How its authors sample, which counts where a request does not say.
    pub defaults: SamplingDefaults,
}

/// How many answers to one prompt, and how they are given out.
#[derive(Debug, Clone, Copy)]
pub struct Choices {
    /// Answers to each prompt.
    pub n: usize,
    /// Whether pieces are sent as they come.
    pub stream: bool,
    /// Whether a stream ends with the tokens counted.
    pub include_usage: bool,
}

/// What to generate for every prompt of a request.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// How tokens are chosen; the first choice takes this seed, the others the numbers after it.
    pub sampling: SamplingParams,
    /// End after so many tokens.
    pub max_tokens: Option<usize>,
    /// End before these texts.
    pub stop: Vec<String>,
    /// What the answer must look like, when it is known.
    pub constraint: Option<SharedConstraint>,
    /// Go on where the model would end.
    pub ignore_eos: bool,
    /// Its place among those that wait: smaller is earlier.
    pub priority: i64,
}

impl Choices {
    /// Takes `n`, `stream` and `stream_options`.
    ///
    /// # Errors
    /// A value outside its range.
    pub fn take(fields: &mut Fields, ignore_unknown: bool) -> Result<Self, ApiError> {
        let n = fields.whole("n", CHOICES)?.unwrap_or(1) as usize;
        let stream = fields.flag("stream")?;
        let mut include_usage = false;
        if let Some(mut options) = fields.inner("stream_options")? {
            if !stream {
                return Err(fields.error("stream_options", "only taken with \"stream\": true"));
            }
            include_usage = options.flag("include_usage")?;
            // Padding against those who measure encrypted streams: there is none here.
            options.flag("include_obfuscation")?;
            options.finish(&["include_usage", "include_obfuscation"], ignore_unknown)?;
        }
        Ok(Self {
            n,
            stream,
            include_usage,
        })
    }
}

impl Wanted {
    /// Takes the parameters of sampling that OpenAI's interfaces share; `num_logprobs` is read by each in its own way.
    ///
    /// # Errors
    /// A value outside its range.
    pub fn take(fields: &mut Fields, bounds: Bounds) -> Result<Self, ApiError> {
        let basic = basic_sampling(fields, bounds)?;
        let sampling = SamplingParams {
            repetition_penalty: fields
                .number("repetition_penalty", REPETITION_PENALTY)?
                .unwrap_or(basic.repetition_penalty),
            min_p: fields.number("min_p", MIN_P)?.unwrap_or(basic.min_p),
            logit_bias: logit_bias(fields, bounds)?,
            seed: seed(fields)?,
            ..basic
        };
        let mut wanted = Self {
            sampling,
            max_tokens: max_tokens(fields, "max_tokens")?,
            stop: end_texts(fields, "stop")?,
            constraint: None,
            ignore_eos: fields.flag("ignore_eos")?,
            priority: fields.whole("priority", PRIORITY)?.unwrap_or(0),
        };
        wanted.take_penalties(fields)?;
        Ok(wanted)
    }

    /// Takes the penalties that all of OpenAI's interfaces have.
    ///
    /// # Errors
    /// A value outside its range.
    pub fn take_penalties(&mut self, fields: &mut Fields) -> Result<(), ApiError> {
        let mut penalty = |name| Ok(fields.number(name, PENALTY)?.unwrap_or(0.0));
        self.sampling.frequency_penalty = penalty("frequency_penalty")?;
        self.sampling.presence_penalty = penalty("presence_penalty")?;
        Ok(())
    }

    /// Takes what every interface has: temperature, `top_p`, `top_k`, and the most tokens at `max_name`. The seed is a random one.
    ///
    /// # Errors
    /// A value outside its range.
    pub fn take_basic(fields: &mut Fields, max_name: &str, bounds: Bounds) -> Result<Self, ApiError> {
        Ok(Self {
            sampling: SamplingParams {
                seed: random_seed(),
                ..basic_sampling(fields, bounds)?
            },
            max_tokens: max_tokens(fields, max_name)?,
            stop: Vec::new(),
            constraint: None,
            ignore_eos: false,
            priority: 0,
        })
    }

    /// Takes texts that end the answer.
    ///
    /// # Errors
    /// Something else than a few short texts.
    pub fn take_stop(&mut self, fields: &mut Fields, name: &str) -> Result<(), ApiError> {
        self.stop = end_texts(fields, name)?;
        Ok(())
    }

    /// Takes `max_completion_tokens` in place of `max_tokens`.
    ///
    /// # Errors
    /// Both are there, or the value is outside its range.
    pub fn take_newer_max_tokens(&mut self, fields: &mut Fields) -> Result<(), ApiError> {
        let newer = max_tokens(fields, "max_completion_tokens")?;
        if newer.is_some() && self.max_tokens.is_some() {
            return Err(fields.error(
                "max_completion_tokens",
                "given beside `max_tokens`: expected one of them",
            ));
        }
        self.max_tokens = newer.or(self.max_tokens);
        Ok(())
    }

    /// Takes how many log-probabilities to report: a number from 0 to 20 at `name`.
    ///
    /// # Errors
    /// A value outside its range.
    pub fn take_logprobs(&mut self, fields: &mut Fields, name: &str) -> Result<(), ApiError> {
        let number = fields.whole(name, LOGPROBS)?;
        self.sampling.num_logprobs = number.map(|number| number as usize);
        Ok(())
    }

    /// The engine's requests: `n` for each prompt, one after the other.
    ///
    /// # Errors
    /// A prompt that is empty or does not fit the context together with `max_tokens`.
    pub fn requests(
        &self,
        prompts: Vec<Vec<u32>>,
        n: usize,
        bounds: Bounds,
    ) -> Result<Vec<Request>, ApiError> {
        let mut requests = Vec::with_capacity(prompts.len() * n);
        for prompt in prompts {
            self.check_room(prompt.len(), bounds)?;
            for choice in 0..n {
                requests.push(self.request(prompt.clone(), choice));
            }
        }
        Ok(requests)
    }

    fn request(&self, prompt: Vec<u32>, choice: usize) -> Request {
        let mut sampling = self.sampling.clone();
        sampling.seed = sampling.seed.wrapping_add(choice as u64);
        let options = GenerateOptions {
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            sampling,
            constraint: self.constraint.clone(),
        };
        // What stays in the cache serves the next turn of a conversation, and gives way when room is needed.
        let keep = true;
        Request {
            prompt,
            options,
            keep,
        }
    }

    fn check_room(&self, prompt_tokens: usize, bounds: Bounds) -> Result<(), ApiError> {
        let context_tokens = bounds.context_tokens;
        if prompt_tokens == 0 {
            return Err(ApiError::bad("the prompt is empty: expected at least one token"));
        }
        let answer_tokens = self.max_tokens.unwrap_or(1);
        if prompt_tokens.saturating_add(answer_tokens) > context_tokens {
            let message = format!(
                "the prompt has {prompt_tokens} tokens and {answer_tokens} more are to follow, but the context holds \
                 {context_tokens}: shorten the conversation or lower max_tokens"
            );
            return Err(ApiError::bad(message).with_code("context_length_exceeded"));
        }
        Ok(())
    }
}

fn basic_sampling(fields: &mut Fields, bounds: Bounds) -> Result<SamplingParams, ApiError> {
    let usual = unasked_sampling(bounds.defaults);
    Ok(SamplingParams {
        temperature: fields
            .number("temperature", TEMPERATURE)?
            .unwrap_or(usual.temperature),
        top_p: fields.number("top_p", TOP_P)?.unwrap_or(usual.top_p),
        top_k: match fields.whole("top_k", TOP_K)? {
            Some(top_k) => top_k.max(0) as usize,
            None => usual.top_k,
        },
        ..usual
    })
}

/// How tokens are chosen for a request that does not say: as the model's authors do, else at temperature 1 without cuts.
pub fn unasked_sampling(defaults: SamplingDefaults) -> SamplingParams {
    SamplingParams {
        temperature: defaults.temperature.unwrap_or(1.0),
        top_p: defaults.top_p.unwrap_or(1.0),
        top_k: defaults.top_k.unwrap_or(0),
        min_p: defaults.min_p.unwrap_or(0.0),
        repetition_penalty: defaults.repetition_penalty.unwrap_or(1.0),
        ..SamplingParams::GREEDY
    }
}

fn max_tokens(fields: &mut Fields, name: &str) -> Result<Option<usize>, ApiError> {
    let number = fields.whole(name, MAX_TOKENS)?;
    Ok(number.map(|number| number as usize))
}

/// Takes `seed`; without it a random one.
///
/// # Errors
/// No whole number of 64 bits.
fn seed(fields: &mut Fields) -> Result<u64, ApiError> {
    match fields.value("seed") {
        None => Ok(random_seed()),
        Some(value) => value
            .as_u64()
            .or_else(|| value.as_i64().map(i64::cast_unsigned))
            .ok_or_else(|| fields.error("seed", format!("expected a whole number, got {}", shown(&value)))),
    }
}

/// Every `RandomState` has keys of its own, drawn from the system's randomness.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// Takes texts that end an answer: one, or a list.
///
/// # Errors
/// Anything else, an empty text, too many or too long ones.
fn end_texts(fields: &mut Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let texts = match fields.value(name) {
        None => Vec::new(),
        Some(Value::String(text)) => vec![Value::String(text)],
        Some(Value::Array(texts)) if texts.len() <= MAX_STOPS => texts,
        Some(other) => {
            let problem = format!(
                "expected a text or up to {MAX_STOPS} texts, got {}",
                shown(&other)
            );
            return Err(fields.error(name, problem));
        }
    };
    let fits = |text: &str| !text.is_empty() && text.len() <= MAX_STOP_BYTES;
    texts
        .into_iter()
        .map(|text| match text {
            Value::String(text) if fits(&text) => Ok(text),
            other => {
                let problem = format!(
                    "expected texts of 1 to {MAX_STOP_BYTES} bytes, got {}",
                    shown(&other)
                );
                Err(fields.error(name, problem))
            }
        })
        .collect()
}

/// Takes `logit_bias`: an object from token ids to numbers.
///
/// # Errors
/// An id outside the vocabulary or twice, a number outside its range, too many of them.
fn logit_bias(fields: &mut Fields, bounds: Bounds) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(value) = fields.value("logit_bias") else {
        return Ok(Vec::new());
    };
    let problem = format!(
        "expected an object of up to {MAX_BIASES} token ids below {} with numbers from -100 to 100, got ",
        bounds.vocab_size
    );
    let wrong = |got: &str| fields.error("logit_bias", format!("{problem}{got}"));
    let Value::Object(biases) = &value else {
        return Err(wrong(&shown(&value)));
    };
    if biases.len() > MAX_BIASES {
        return Err(wrong(&format!("{} of them", biases.len())));
    }
    let mut ids = BTreeSet::new();
    let mut bias = |(id, bias): (&String, &Value)| {
        let id: u32 = id.parse().ok().filter(|&id| (id as usize) < bounds.vocab_size)?;
        let bias = bias.as_f64().filter(|bias| BIAS.contains(bias))?;
        // "7" and "07" name the same token.
        ids.insert(id).then_some((id, bias as f32))
    };
    biases
        .iter()
        .map(|entry| bias(entry).ok_or_else(|| wrong(&format!("\"{}\": {}", entry.0, shown(entry.1)))))
        .collect()
}

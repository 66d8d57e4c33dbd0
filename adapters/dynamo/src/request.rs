//! A request in Dynamo's words becomes one in the engine's. What the engine does not have is refused by name, never passed over.

use std::sync::Arc;

use dualgrain::SamplingParams;
use dualgrain::engine::scheduler::TokenRequest;
use dualgrain::engine::{
    Constraint, ConstraintError, ConstraintState, Next, Progress, SamplingDefaults, SharedConstraint,
    TokenMask,
};
use dynamo_backend_common::{DynamoError, PreprocessedRequest, SamplingOptions, StopConditions};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::invalid;

/// What the model allows.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Tokens of a prompt and its answer together.
    pub context_tokens: usize,
    /// Token ids lie below it.
    pub vocab_size: usize,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
    /// How its authors sample, which counts where a request does not say.
    pub defaults: SamplingDefaults,
}

/// A request that can be run.
#[derive(Debug)]
pub struct Wanted {
    /// What the engine runs.
    pub request: TokenRequest,
    /// Tokens that end the answer and belong to it.
    pub last_tokens: Vec<u32>,
    /// The JSON Schema that the answer must follow; its constraint is made apart, since that takes time.
    pub schema: Option<Value>,
    /// Tokens before which the answer may not end.
    pub min_tokens: usize,
    /// Whether nobody asks but Dynamo, to see whether the worker works.
    pub is_probe: bool,
}

/// Checks a request and translates it; `id` names it, the same for every worker that takes it over from another.
///
/// # Errors
/// A value outside its range, or something that this engine does not have.
pub fn translate(request: &PreprocessedRequest, id: &str, bounds: &Bounds) -> Result<Wanted, DynamoError> {
    refuse_unknown(request)?;
    let prompt: Vec<u32> = request.token_ids.to_vec();
    let stop = &request.stop_conditions;
    let max_tokens = stop.max_tokens.map(|tokens| tokens as usize);
    check_room(&prompt, max_tokens, bounds)?;
    let num_logprobs = request.output_options.logprobs.map(|number| number as usize);
    let sampling = sampling(&request.sampling_options, num_logprobs, id, bounds.defaults);
    sampling.check().map_err(|error| invalid(error.to_string()))?;
    let ignores_end = stop.ignore_eos.unwrap_or(false);
    // A frontend always names the model; the probe of `WorkerEngine::health_check_payload` does not.
    let is_probe = request.model.is_empty();
    Ok(Wanted {
        request: TokenRequest {
            prompt,
            sampling,
            max_tokens,
            end_tokens: match ignores_end {
                true => Vec::new(),
                false => end_tokens(request, bounds),
            },
            // What stays in the cache serves the next turn of a conversation, and gives way when room is needed.
            keep: !is_probe,
            score_from: None,
            constraint: at_least(stop, bounds.vocab_size),
        },
        last_tokens: match ignores_end {
            true => Vec::new(),
            false => stop.stop_token_ids_visible.clone().unwrap_or_default(),
        },
        schema: schema(&request.sampling_options)?,
        min_tokens: stop.min_tokens.unwrap_or(0) as usize,
        is_probe,
    })
}

/// Refuses by name what a client asked for and would not get.
fn refuse_unknown(request: &PreprocessedRequest) -> Result<(), DynamoError> {
    let unknown = unknown_choices(&request.sampling_options)
        .or_else(|| unknown_form(request))
        .or_else(|| unknown_parts(request));
    match unknown {
        Some((name, has)) => Err(invalid(format!("{name} is not supported: this worker has {has}"))),
        None => Ok(()),
    }
}

/// What of the choice of tokens this engine does not have, and what it has instead.
fn unknown_choices(sampling: &SamplingOptions) -> Option<(&'static str, &'static str)> {
    const NO_SEARCH: &str = "no search over answers";
    if sampling.n.is_some_and(|n| n != 1) {
        return Some((
            "n",
            "one answer to a request: ask several times, with other seeds",
        ));
    }
    if sampling.best_of.is_some_and(|n| n > 1) {
        return Some(("best_of", NO_SEARCH));
    }
    if sampling.use_beam_search.unwrap_or(false) {
        return Some(("use_beam_search", NO_SEARCH));
    }
    if sampling.length_penalty.is_some_and(|penalty| penalty != 1.0) {
        return Some(("length_penalty", NO_SEARCH));
    }
    if sampling.top_k.is_some_and(|top_k| top_k < -1) {
        return Some(("top_k", "the most likely tokens by number, 0 or -1 for all"));
    }
    None
}

/// What of the form of an answer this engine does not have, and what it has instead.
fn unknown_form(request: &PreprocessedRequest) -> Option<(&'static str, &'static str)> {
    const SCHEMAS_ALONE: &str = "answers under JSON Schemas alone";
    let guided = request.sampling_options.guided_decoding.as_ref()?;
    let counts = request
        .stop_conditions
        .min_tokens
        .is_some_and(|tokens| tokens > 0);
    let forms = [
        ("guided_decoding.regex", guided.regex.is_some(), SCHEMAS_ALONE),
        ("guided_decoding.choice", guided.choice.is_some(), SCHEMAS_ALONE),
        ("guided_decoding.grammar", guided.grammar.is_some(), SCHEMAS_ALONE),
        (
            "guided_decoding.structural_tag",
            guided.structural_tag.is_some(),
            SCHEMAS_ALONE,
        ),
        (
            "guided_decoding.whitespace_pattern",
            guided.whitespace_pattern.is_some(),
            "white space of its own between values",
        ),
        ("min_tokens", counts, "no least length for answers under a schema"),
    ];
    let (name, _, has) = forms.into_iter().find(|(_, is_asked, _)| *is_asked)?;
    Some((name, has))
}

/// The JSON Schema that a request names, also where it stands there as a text.
fn schema(sampling: &SamplingOptions) -> Result<Option<Value>, DynamoError> {
    let schema = sampling
        .guided_decoding
        .as_ref()
        .and_then(|guided| guided.json.as_ref());
    match schema {
        Some(Value::String(text)) => {
            let read = serde_json::from_str(text).map(Some);
            read.map_err(|error| invalid(format!("guided_decoding.json: no JSON: {error}")))
        }
        other => Ok(other.cloned()),
    }
}

/// What of the rest of a request this engine does not have, and what it has instead.
fn unknown_parts(request: &PreprocessedRequest) -> Option<(&'static str, &'static str)> {
    let routing = request.routing.as_ref();
    let lora = routing.and_then(|routing| routing.lora_name.as_ref());
    let salt = routing.and_then(|routing| routing.cache_namespace.as_ref());
    let has_salt = salt.is_some_and(|salt| !salt.is_empty());
    let thinks = request.stop_conditions.max_thinking_tokens.is_some();
    let scores_prompt = request.output_options.prompt_logprobs.is_some();
    let parts = [
        (
            "max_thinking_tokens",
            thinks,
            "no limit on thinking apart from max_tokens",
        ),
        (
            "prompt_logprobs",
            scores_prompt,
            "log-probabilities of answers alone",
        ),
        (
            "prompt_embeds",
            request.prompt_embeds.is_some(),
            "prompts of tokens alone",
        ),
        (
            "multi_modal_data",
            request.multi_modal_data.is_some(),
            "prompts of tokens alone",
        ),
        ("lora_name", lora.is_some(), "no adapters of LoRA"),
        (
            "cache_salt",
            has_salt,
            "one cache, whose prefixes all requests share",
        ),
    ];
    let (name, _, has) = parts.into_iter().find(|(_, is_asked, _)| *is_asked)?;
    Some((name, has))
}

fn check_room(prompt: &[u32], max_tokens: Option<usize>, bounds: &Bounds) -> Result<(), DynamoError> {
    let context_tokens = bounds.context_tokens;
    if prompt.is_empty() {
        return Err(invalid("the prompt is empty: expected at least one token"));
    }
    if let Some(token) = prompt.iter().find(|&&token| token as usize >= bounds.vocab_size) {
        let vocab_size = bounds.vocab_size;
        return Err(invalid(format!(
            "token {token} of the prompt is outside the vocabulary of {vocab_size}: is the frontend's tokenizer this model's?"
        )));
    }
    let (prompt_tokens, answer_tokens) = (prompt.len(), max_tokens.unwrap_or(1));
    if prompt_tokens.saturating_add(answer_tokens) > context_tokens {
        return Err(invalid(format!(
            "the prompt has {prompt_tokens} tokens and {answer_tokens} more are to follow, but the context holds \
             {context_tokens}: shorten the conversation or lower max_tokens"
        )));
    }
    Ok(())
}

/// How tokens are chosen: as the request says, else as the model's authors do, else at temperature 1 without cuts. A request without a seed
/// takes one from its id, so that a worker that takes it over draws on as the first one would have.
fn sampling(
    asked: &SamplingOptions,
    num_logprobs: Option<usize>,
    id: &str,
    defaults: SamplingDefaults,
) -> SamplingParams {
    // -1 keeps all tokens, as 0 does; what is below was refused.
    let top_k = asked.top_k.map(|top_k| top_k.max(0) as usize);
    SamplingParams {
        temperature: asked.temperature.or(defaults.temperature).unwrap_or(1.0),
        top_k: top_k.or(defaults.top_k).unwrap_or(0),
        top_p: asked.top_p.or(defaults.top_p).unwrap_or(1.0),
        min_p: asked.min_p.or(defaults.min_p).unwrap_or(0.0),
        repetition_penalty: asked
            .repetition_penalty
            .or(defaults.repetition_penalty)
            .unwrap_or(1.0),
        presence_penalty: asked.presence_penalty.unwrap_or(0.0),
        frequency_penalty: asked.frequency_penalty.unwrap_or(0.0),
        logit_bias: Vec::new(),
        num_logprobs,
        seed: asked.seed.map_or_else(|| seed_of(id), i64::cast_unsigned),
    }
}

fn seed_of(id: &str) -> u64 {
    let hash = Sha256::digest(id);
    hash.iter()
        .take(8)
        .fold(0, |seed, &byte| seed << 8 | u64::from(byte))
}

/// Every token that ends the answer and does not belong to it.
fn end_tokens(request: &PreprocessedRequest, bounds: &Bounds) -> Vec<u32> {
    let stop = &request.stop_conditions;
    let of_request = [&stop.stop_token_ids, &stop.stop_token_ids_hidden];
    let mut tokens = bounds.end_tokens.clone();
    tokens.extend(&request.eos_token_ids);
    tokens.extend(of_request.into_iter().flatten().flatten());
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

/// Forbids end tokens until `min_tokens` came.
#[derive(Debug)]
struct AtLeast {
    tokens: u32,
    vocab_size: usize,
}

struct Counted {
    left: u32,
    vocab_size: usize,
}

fn at_least(stop: &StopConditions, vocab_size: usize) -> Option<SharedConstraint> {
    let tokens = stop.min_tokens.filter(|&tokens| tokens > 0)?;
    Some(SharedConstraint(Arc::new(AtLeast { tokens, vocab_size })))
}

impl Constraint for AtLeast {
    fn begin(&self) -> Result<Box<dyn ConstraintState>, ConstraintError> {
        Ok(Box::new(Counted {
            left: self.tokens,
            vocab_size: self.vocab_size,
        }))
    }
}

impl ConstraintState for Counted {
    fn allow_next(&mut self, mask: &mut TokenMask) -> Result<Next, ConstraintError> {
        (0..self.vocab_size as u32).for_each(|token| mask.allow(token));
        Ok(match self.left {
            0 => Next::MayEnd,
            _ => Next::MustGoOn,
        })
    }

    fn accept(&mut self, _: u32) -> Result<Progress, ConstraintError> {
        self.left = self.left.saturating_sub(1);
        Ok(Progress::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bounds() -> Bounds {
        Bounds {
            context_tokens: 100,
            vocab_size: 50,
            end_tokens: vec![2],
            defaults: SamplingDefaults {
                temperature: Some(0.6),
                top_k: Some(20),
                ..SamplingDefaults::default()
            },
        }
    }

    fn translated(extra: &Value) -> Result<Wanted, String> {
        let mut request = json!({ "model": "m", "token_ids": [1, 2, 3] });
        for (name, value) in extra.as_object().unwrap() {
            request[name] = value.clone();
        }
        let request: PreprocessedRequest = serde_json::from_value(request).unwrap();
        translate(&request, "an id", &bounds()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn what_the_engine_does_not_have_is_refused_by_name() {
        for (name, request) in [
            ("n", json!({ "sampling_options": { "n": 2 } })),
            ("best_of", json!({ "sampling_options": { "best_of": 3 } })),
            (
                "use_beam_search",
                json!({ "sampling_options": { "use_beam_search": true } }),
            ),
            (
                "length_penalty",
                json!({ "sampling_options": { "length_penalty": 0.5 } }),
            ),
            (
                "guided_decoding.regex",
                json!({ "sampling_options": { "guided_decoding": { "regex": "a*" } } }),
            ),
            (
                "guided_decoding.json: no JSON",
                json!({ "sampling_options": { "guided_decoding": { "json": "{" } } }),
            ),
            (
                "min_tokens",
                json!({ "sampling_options": { "guided_decoding": { "json": {} } }, "stop_conditions": { "min_tokens": 3 } }),
            ),
            (
                "max_thinking_tokens",
                json!({ "stop_conditions": { "max_thinking_tokens": 5 } }),
            ),
            (
                "prompt_logprobs",
                json!({ "output_options": { "prompt_logprobs": 1 } }),
            ),
            ("prompt_embeds", json!({ "prompt_embeds": "AAAA" })),
            ("lora_name", json!({ "routing": { "lora_name": "a" } })),
            ("cache_salt", json!({ "routing": { "cache_salt": "a" } })),
            ("top_p", json!({ "sampling_options": { "top_p": 1.5 } })),
            ("top_k", json!({ "sampling_options": { "top_k": -7 } })),
            ("min_p", json!({ "sampling_options": { "min_p": -0.5 } })),
            ("the prompt is empty", json!({ "token_ids": [] })),
            ("outside the vocabulary of 50", json!({ "token_ids": [50] })),
            (
                "the context holds 100",
                json!({ "stop_conditions": { "max_tokens": 98 } }),
            ),
        ] {
            let message = translated(&request).map(drop).expect_err(name);
            assert!(message.contains(name), "{name}: {message}");
        }
    }

    #[test]
    fn a_request_that_does_not_say_samples_as_the_authors_do() {
        let sampling = translated(&json!({})).unwrap().request.sampling;
        assert_eq!(
            (sampling.temperature, sampling.top_k, sampling.top_p),
            (0.6, 20, 1.0)
        );
        let asked = json!({ "sampling_options": { "temperature": 0.0, "top_k": -1, "seed": -1 } });
        let sampling = translated(&asked).unwrap().request.sampling;
        assert_eq!(
            (sampling.temperature, sampling.top_k, sampling.seed),
            (0.0, 0, u64::MAX)
        );
    }

    #[test]
    fn a_probe_leaves_nothing_in_the_cache() {
        assert!(translated(&json!({})).unwrap().request.keep);
        let probe = translated(&json!({ "model": "" })).unwrap();
        assert!(probe.is_probe && !probe.request.keep);
    }

    #[test]
    fn without_a_seed_the_id_gives_one() {
        let seed = |id| {
            let request: PreprocessedRequest = serde_json::from_value(json!({ "token_ids": [1] })).unwrap();
            translate(&request, id, &bounds()).unwrap().request.sampling.seed
        };
        assert_eq!(seed("a"), seed("a"));
        assert_ne!(seed("a"), seed("b"));
    }

    #[test]
    fn answers_end_with_the_tokens_of_model_and_request() {
        let stop =
            json!({ "stop_token_ids_hidden": [7, 2], "stop_token_ids": [9], "stop_token_ids_visible": [11] });
        let wanted = translated(&json!({ "eos_token_ids": [3], "stop_conditions": stop })).unwrap();
        assert_eq!(wanted.request.end_tokens, [2, 3, 7, 9]);
        assert_eq!(wanted.last_tokens, [11]);
        let wanted = translated(&json!({ "stop_conditions": { "ignore_eos": true } })).unwrap();
        assert!(wanted.request.end_tokens.is_empty());
    }

    #[test]
    fn an_answer_of_at_least_some_tokens_may_not_end_before() {
        let stop = json!({ "min_tokens": 2 });
        let wanted = translated(&json!({ "stop_conditions": stop })).unwrap();
        let mut state = wanted.request.constraint.unwrap().0.begin().unwrap();
        let mut mask = TokenMask::new(50);
        let mut next = || {
            mask.clear();
            let next = state.allow_next(&mut mask).unwrap();
            assert_eq!(mask.num_allowed(), 50);
            state.accept(5).unwrap();
            next
        };
        assert_eq!(
            [next(), next(), next()],
            [Next::MustGoOn, Next::MustGoOn, Next::MayEnd]
        );
    }
}

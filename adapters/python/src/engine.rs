//! A model that is loaded, and what it is asked.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use dualgrain::engine::chat::ChatTemplate;
use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::engine::{GenerateOptions, ModelConfig, SamplingDefaults};
use dualgrain::{
    AnyDevice, CacheFormat, Device, Error, Model, PAGE_TOKENS, Request, SamplingParams, SessionLimits,
    load_on, plan_memory,
};
use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray2};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{ArgumentError, exception, of_chat};
use crate::fields::Fields;
use crate::names;
use crate::running::{Door, Running};
use crate::scoring::{Scored, logits, loglikelihoods};
use crate::watch;

/// Tokens of a sequence where nothing is said, if the model has positions for them.
const USUAL_CONTEXT: usize = 8192;
/// Share of the free memory that a model may take with its cache.
const MEMORY_SHARE: f64 = 0.9;

/// A model with its tokenizer and a cache.
#[pyclass(frozen, module = "dualgrain._native")]
pub struct Engine {
    door: Arc<Door>,
    model: Arc<Model<AnyDevice>>,
    tokenizer: Arc<Tokenizer>,
    path: PathBuf,
    /// Read when a conversation is first asked for: base models have none.
    template: OnceLock<ChatTemplate>,
    defaults: SamplingDefaults,
    limits: SessionLimits,
    end_tokens: Vec<u32>,
    /// Which device was taken and why, where that was left open.
    reason: Option<String>,
}

/// What an engine is asked to be.
struct Asked {
    path: PathBuf,
    device: (dualgrain::DeviceChoice, usize),
    context: Option<usize>,
    num_sequences: usize,
    cache: Option<CacheFormat>,
}

impl Asked {
    fn new(fields: &Fields<'_, '_>) -> PyResult<Self> {
        let num_sequences = fields.value("max_sequences")?;
        if num_sequences == 0 {
            return Err(ArgumentError::new_err(
                "max_sequences: expected at least 1, got 0",
            ));
        }
        Ok(Self {
            path: fields.value("path")?,
            device: names::device(fields)?,
            context: fields.value("context")?,
            num_sequences,
            cache: fields.optional_choice("kv_cache", names::cache_format)?,
        })
    }

    fn open(self) -> PyResult<Engine> {
        let dir = self.path.as_path();
        if !dir.is_dir() {
            return Err(exception(Error::NoFolder { dir: dir.to_owned() }));
        }
        let config = ModelConfig::load(dir).map_err(exception)?;
        let defaults = SamplingDefaults::load(dir).map_err(exception)?;
        let context = self.context(&config)?;
        let chosen = self
            .device
            .0
            .open(self.device.1, dir, MEMORY_SHARE)
            .map_err(exception)?;
        let device = Arc::new(chosen.device);
        let limits = self.limits(context, &device)?;
        let loaded = load_on(dir, &device, self.cache.clone()).map_err(exception)?;
        let engine = dualgrain::Engine::new(Arc::clone(&loaded.model), Arc::clone(&loaded.tokenizer), limits);
        let engine = engine.map_err(exception)?;
        Ok(Engine {
            end_tokens: engine.end_tokens(),
            door: Arc::new(Door::new(engine)),
            model: loaded.model,
            tokenizer: loaded.tokenizer,
            path: self.path,
            template: OnceLock::new(),
            defaults,
            limits,
            reason: chosen.reason,
        })
    }

    fn context(&self, config: &ModelConfig) -> PyResult<usize> {
        let most = config.max_positions;
        let context = self.context.unwrap_or(USUAL_CONTEXT.min(most));
        match (2..=most).contains(&context) {
            true => Ok(context),
            false => Err(ArgumentError::new_err(format!(
                "context: expected 2 to {most} tokens (the model's positions), got {context}"
            ))),
        }
    }

    /// Room for all sequences at their full context, or as much as memory holds: then sequences wait for pages.
    fn limits(&self, context: usize, device: &AnyDevice) -> PyResult<SessionLimits> {
        let step_tokens = device.step_tokens().max(self.num_sequences);
        let mut limits = SessionLimits::new(self.num_sequences, context, step_tokens);
        let plan = |limits| {
            plan_memory(&self.path, device, self.cache.as_ref(), limits, MEMORY_SHARE).map_err(exception)
        };
        let most = plan(limits)?.most_cached_tokens();
        let pages = most.and_then(|tokens| usize::try_from(tokens / PAGE_TOKENS as u64).ok());
        let all_pages = limits.pages_per_sequence().saturating_mul(self.num_sequences);
        limits.num_pages = pages
            .filter(|pages| *pages < all_pages)
            .map(|pages| pages.max(limits.pages_per_sequence()));
        plan(limits)?.check().map_err(Error::Plan).map_err(exception)?;
        Ok(limits)
    }
}

impl Engine {
    /// How tokens are drawn and when an answer ends; what was not said is as the model's generation_config.json has it.
    fn options(&self, fields: &Fields<'_, '_>) -> PyResult<GenerateOptions> {
        let defaults = match fields.value("ignore_defaults")? {
            true => SamplingDefaults::default(),
            false => self.defaults,
        };
        let float = |name, default: Option<f32>, none: f32| {
            Ok::<_, PyErr>(fields.value::<Option<f32>>(name)?.or(default).unwrap_or(none))
        };
        let sampling = SamplingParams {
            temperature: float("temperature", defaults.temperature, 0.0)?,
            top_k: fields
                .value::<Option<usize>>("top_k")?
                .or(defaults.top_k)
                .unwrap_or(0),
            top_p: float("top_p", defaults.top_p, 1.0)?,
            min_p: float("min_p", defaults.min_p, 0.0)?,
            repetition_penalty: float("repetition_penalty", defaults.repetition_penalty, 1.0)?,
            presence_penalty: fields.value("presence_penalty")?,
            frequency_penalty: fields.value("frequency_penalty")?,
            logit_bias: self.bias(fields)?,
            num_logprobs: fields.value("logprobs")?,
            seed: fields.value("seed")?,
        };
        sampling
            .check()
            .map_err(|error| ArgumentError::new_err(error.to_string()))?;
        Ok(GenerateOptions {
            max_tokens: fields.value("max_tokens")?,
            stop: fields.value("stop")?,
            ignore_eos: fields.value("ignore_eos")?,
            sampling,
            constraint: None,
        })
    }

    /// What is added to the logits of tokens that exist.
    fn bias(&self, fields: &Fields<'_, '_>) -> PyResult<Vec<(u32, f32)>> {
        let bias: Vec<(u32, f32)> = fields.value("logit_bias")?;
        let vocab_size = self.vocab_size();
        match bias.iter().find(|(token, _)| *token as usize >= vocab_size) {
            None => Ok(bias),
            Some((token, _)) => Err(ArgumentError::new_err(format!(
                "logit_bias: token id {token} is outside the vocabulary of {vocab_size}"
            ))),
        }
    }

    /// The prompt for a conversation.
    fn rendered(&self, messages: &str, add_generation_prompt: bool) -> PyResult<String> {
        let messages: serde_json::Value = serde_json::from_str(messages)
            .map_err(|error| ArgumentError::new_err(format!("messages: {error}")))?;
        let template = match self.template.get() {
            Some(template) => template,
            None => {
                let template = ChatTemplate::load(&self.path).map_err(of_chat)?;
                self.template.get_or_init(|| template)
            }
        };
        template.render(&messages, add_generation_prompt).map_err(of_chat)
    }

    fn encoded(&self, prompt: Prompt, special_tokens: bool) -> PyResult<Vec<u32>> {
        match prompt {
            Prompt::Tokens(tokens) => Ok(tokens),
            Prompt::Text(text) => self.tokenizer.encode(&text, special_tokens).map_err(exception),
        }
    }
}

/// What is continued.
#[derive(FromPyObject)]
enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, arguments: &Bound<'_, PyDict>) -> PyResult<Self> {
        let asked = Asked::new(&Fields(arguments))?;
        watch::run(py, None, |_| asked.open())
    }

    /// Admits a request for every prompt. With `streams` the pieces of their texts are kept for a reader. Gives how many tokens each
    /// prompt has.
    fn start(
        &self,
        py: Python<'_>,
        arguments: &Bound<'_, PyDict>,
        streams: bool,
    ) -> PyResult<(Running, Vec<usize>)> {
        let fields = Fields(arguments);
        let prompts: Vec<Prompt> = fields.value("prompts")?;
        let special_tokens = fields.value("special_tokens")?;
        let options = self.options(&fields)?;
        watch::run(py, None, |_| {
            let mut requests = Vec::with_capacity(prompts.len());
            for prompt in prompts {
                requests.push(Request {
                    prompt: self.encoded(prompt, special_tokens)?,
                    options: options.clone(),
                    keep: false,
                });
            }
            let lengths = requests.iter().map(|request| request.prompt.len()).collect();
            Ok((Running::start(&self.door, requests, streams)?, lengths))
        })
    }

    /// The prompt for a conversation, a list of messages as JSON, by the folder's own template.
    fn chat_prompt(&self, py: Python<'_>, messages: String, add_generation_prompt: bool) -> PyResult<String> {
        watch::run(py, None, |_| self.rendered(&messages, add_generation_prompt))
    }

    /// Tokens of a text.
    fn encode(&self, py: Python<'_>, text: String, special_tokens: bool) -> PyResult<Vec<u32>> {
        watch::run(py, None, |_| self.encoded(Prompt::Text(text), special_tokens))
    }

    /// The text of tokens.
    fn decode(&self, py: Python<'_>, tokens: Vec<u32>, skip_special_tokens: bool) -> PyResult<String> {
        watch::run(py, None, |_| {
            self.tokenizer
                .decode(&tokens, skip_special_tokens)
                .map_err(exception)
        })
    }

    /// Logits `[tokens, vocab_size]` after the tokens from `first` on. The array owns the memory that the device wrote to.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<u32>,
        first: usize,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let values = watch::run(py, None, |watch| logits(&self.model, &tokens, first, watch))?;
        let shape = (tokens.len() - first, self.vocab_size());
        let values = Array2::from_shape_vec(shape, values)
            .map_err(|error| ArgumentError::new_err(error.to_string()))?;
        Ok(values.into_pyarray(py))
    }

    /// Of each sequence of tokens: the sum of the log-probabilities of those from an index on, and whether each is the likeliest.
    #[pyo3(signature = (sequences, progress=None))]
    fn loglikelihoods(
        &self,
        py: Python<'_>,
        sequences: Vec<(Vec<u32>, usize)>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<Scored>> {
        watch::run(py, progress, |watch| {
            loglikelihoods(&self.model, &sequences, watch)
        })
    }

    /// What the device calls itself.
    #[getter]
    fn device(&self) -> String {
        self.model.device().name()
    }

    /// Which device was taken and why, where that was left open.
    #[getter]
    fn device_reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Tokens of a sequence at most.
    #[getter]
    fn context(&self) -> usize {
        self.limits.context_tokens
    }

    /// Sequences that run at once.
    #[getter]
    fn max_sequences(&self) -> usize {
        self.limits.num_sequences
    }

    /// Positions that the model was made for.
    #[getter]
    fn max_positions(&self) -> usize {
        self.model.config().max_positions
    }

    /// Entries of the logits.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    /// Tokens that end an answer.
    #[getter]
    fn end_tokens(&self) -> Vec<u32> {
        self.end_tokens.clone()
    }

    /// The token that a text begins with, where the model has one.
    #[getter]
    fn first_token(&self) -> Option<u32> {
        self.tokenizer.bos_id().or(self.model.config().bos_token)
    }
}

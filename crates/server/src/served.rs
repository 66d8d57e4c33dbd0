//! The model that is served, opened and checked.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dualgrain::engine::chat::{ChatError, ChatTemplate};
use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::engine::{EngineError, Model, SamplingDefaults, Storage, Weights};
use dualgrain::{AnyDevice, Device, Engine, Error, Loaded, SessionLimits, load};

use serde_json::{Value, json};

use crate::error::ServeError;
use crate::grammar::Grammars;
use crate::parameters::{Bounds, unasked_sampling};

/// A model that is ready to serve.
pub struct Served {
    pub(crate) engine: Engine<AnyDevice>,
    pub(crate) num_sequences: usize,
    pub(crate) description: Description,
}

/// What the asynchronous side knows of the model.
pub(crate) struct Description {
    /// The name that clients call it by.
    pub alias: String,
    /// When it was opened, in seconds of the Unix epoch.
    pub created_s: u64,
    pub tokenizer: Arc<Tokenizer>,
    /// How conversations become prompts; a base model has none.
    pub template: Option<ChatTemplate>,
    pub bounds: Bounds,
    /// What makes constraints for its tokens.
    pub grammars: Grammars,
    /// What runs and where, for people.
    pub facts: Value,
}

impl Served {
    /// Loads the folder `dir` and makes its cache and buffers.
    ///
    /// # Errors
    /// As [`load`] and [`Self::new`].
    pub fn open(
        dir: &Path,
        alias: String,
        options: &dualgrain::Options,
        limits: SessionLimits,
    ) -> Result<Self, ServeError> {
        Self::new(dir, alias, load(dir, options)?, limits)
    }

    /// The model of the folder `dir`, which was loaded, with cache and buffers for `limits`.
    ///
    /// # Errors
    /// A chat template that is damaged; limits that the model or the memory can not hold; a device that fails at a first run.
    pub fn new(dir: &Path, alias: String, loaded: Loaded, limits: SessionLimits) -> Result<Self, ServeError> {
        let Loaded { model, tokenizer } = loaded;
        let vocab_size = model.config().vocab_size;
        let facts = facts(dir, &model)?;
        let mut engine = Engine::new(model, Arc::clone(&tokenizer), limits).map_err(Error::from)?;
        let grammars = Grammars::new(Arc::clone(&tokenizer), &engine.end_tokens());
        engine.prepare().map_err(Error::from)?;
        Ok(Self {
            engine,
            num_sequences: limits.num_sequences,
            description: Description {
                alias,
                created_s: now_s(),
                tokenizer,
                template: template(dir)?,
                grammars,
                bounds: Bounds {
                    context_tokens: limits.context_tokens,
                    vocab_size,
                    defaults: SamplingDefaults::default(),
                },
                facts,
            },
        })
    }
}

impl Served {
    /// Samples as the model's authors say where a request does not say how.
    ///
    /// # Errors
    /// A value that no sampling has.
    pub fn with_sampling(mut self, defaults: SamplingDefaults) -> Result<Self, ServeError> {
        unasked_sampling(defaults)
            .check()
            .map_err(|error| ServeError::Sampling(error.to_string()))?;
        self.description.bounds.defaults = defaults;
        if let Some(words) = words(defaults) {
            tracing::info!("requests that do not say how to sample follow generation_config.json: {words}");
            self.description.facts["sampling"] = format!("{words} (generation_config.json)").into();
        }
        Ok(self)
    }
}

/// What is named, as a request would; `None` where nothing is.
fn words(defaults: SamplingDefaults) -> Option<String> {
    let float = |number: Option<f32>| number.map(|number| number.to_string());
    let named = [
        ("temperature", float(defaults.temperature)),
        ("top_k", defaults.top_k.map(|number| number.to_string())),
        ("top_p", float(defaults.top_p)),
        ("min_p", float(defaults.min_p)),
        ("repetition_penalty", float(defaults.repetition_penalty)),
    ];
    let named = named
        .into_iter()
        .filter_map(|(name, number)| Some(format!("{name} {}", number?)));
    let named: Vec<String> = named.collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// What the folder `dir` holds and which device runs it.
fn facts(dir: &Path, model: &Model<AnyDevice>) -> Result<Value, Error> {
    let config = model.config();
    let unread = |error| Error::from(EngineError::from(error));
    let weights = Weights::open(dir).map_err(unread)?;
    let storage = Storage::measure(&weights, config).map_err(unread)?;
    let schemes = storage.schemes.iter();
    let schemes: Vec<String> = schemes
        .map(|(scheme, count)| format!("{count} {scheme}"))
        .collect();
    Ok(json!({
        "device": model.device().name(),
        "family": format!("{:?}", config.family),
        "parameters": storage.parameters(&weights).map_err(unread)?,
        "linears": schemes.join(", "),
        "bits_per_weight": (storage.bits_per_weight() * 1e3).round() / 1e3,
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "vocabulary": config.vocab_size,
        "size_bytes": storage.file_bytes
    }))
}

/// Seconds of the Unix epoch.
pub(crate) fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn template(dir: &Path) -> Result<Option<ChatTemplate>, ServeError> {
    match ChatTemplate::load(dir) {
        Ok(template) => Ok(Some(template)),
        Err(ChatError::Missing { .. }) => Ok(None),
        Err(error) => Err(ServeError::Template(error)),
    }
}

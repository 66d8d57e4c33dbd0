//! What Dynamo's runtime drives: start, requests, drain, metrics, news of pages.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use async_trait::async_trait;
use dualgrain::engine::scheduler::Scheduler;
use dualgrain::engine::{Model, ModelConfig, SamplingDefaults, Session, SharedConstraint};
use dualgrain::{AnyDevice, Device, Error, PAGE_TOKENS, SessionLimits, load_on, plan_memory};
use dualgrain_server::{Schemas, SchemasError};
use dynamo_backend_common::engine::GenerateContext;
use dynamo_backend_common::{
    BackendError, DynamoError, EngineConfig, ErrorType, KvEventSource, LLMEngine, LLMEngineOutput,
    LlmRegistration, MetricsBindings, MetricsCtx, PreprocessedRequest,
};
use dynamo_runtime::component::Endpoint;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::arguments::Arguments;
use crate::ending::Ending;
use crate::error::{failed, invalid, overloaded, shutting_down};
use crate::identity::{self, Identity};
use crate::metrics::Metrics;
use crate::output;
use crate::request::{Bounds, translate};
use crate::runner::{Publishers, Runner, Unsubmitted, Update};

/// The engine behind a worker.
pub struct WorkerEngine {
    arguments: Arguments,
    publishers: Arc<Publishers>,
    /// Set when the model is loaded.
    started: OnceLock<Started>,
    ending: Ending,
}

/// A model that is ready.
struct Started {
    runner: Runner,
    bounds: Bounds,
    schemas: Schemas,
    metrics: Arc<Metrics>,
    served_name: String,
    identity: Identity,
}

/// A loaded model, before its thread runs.
struct Opened {
    scheduler: Scheduler<AnyDevice>,
    bounds: Bounds,
    schemas: Schemas,
    limits: SessionLimits,
    identity: Identity,
}

impl WorkerEngine {
    /// An engine that has loaded nothing yet.
    pub fn new(arguments: Arguments) -> Self {
        Self {
            arguments,
            publishers: Arc::default(),
            started: OnceLock::new(),
            ending: Ending::default(),
        }
    }

    /// Whether somebody has told the worker to end.
    pub fn ending(&self) -> &Ending {
        &self.ending
    }

    fn started(&self) -> Result<&Started, DynamoError> {
        self.started
            .get()
            .ok_or_else(|| failed("the model is not loaded yet"))
    }
}

#[async_trait]
impl LLMEngine for WorkerEngine {
    async fn start(&self, _worker_id: u64) -> Result<EngineConfig, DynamoError> {
        self.ending
            .watch()
            .map_err(|error| did_not_start(&error.into()))?;
        let arguments = self.arguments.clone();
        let opened = tokio::task::spawn_blocking(move || open(&arguments));
        let opened = opened
            .await
            .map_err(|error| failed(format!("loading the model: {error}")))?;
        let opened = opened.map_err(|error| did_not_start(&error))?;
        let (config, started) = self.begin(opened).map_err(|error| did_not_start(&error))?;
        if self.started.set(started).is_err() {
            return Err(failed("the worker was started twice"));
        }
        Ok(config)
    }

    async fn generate(
        &self,
        request: PreprocessedRequest,
        context: GenerateContext,
    ) -> Result<BoxStream<'static, Result<LLMEngineOutput, DynamoError>>, DynamoError> {
        let started = self.started()?;
        let mut wanted = translate(&request, context.id(), &started.bounds)?;
        if let Some(schema) = wanted.schema.take() {
            wanted.request.constraint = Some(constraint(started.schemas.clone(), schema).await?);
        }
        // Where another worker has begun the answer, its part of the prompt is counted by the frontend alone.
        let goes_on = request.migration_link.is_some();
        let prompt_tokens = (!goes_on).then_some(wanted.request.prompt.len());
        let updates = started.runner.submit(wanted).map_err(|why| match why {
            Unsubmitted::Full => {
                overloaded("as many requests run and wait as may (--max-sequences, --queue)")
            }
            Unsubmitted::Closed => shutting_down(),
        })?;
        Ok(answer(updates, prompt_tokens, context))
    }

    /// Returns when every request that was taken has ended: those of the seconds between leaving discovery and this call too.
    async fn cleanup(&self) -> Result<(), DynamoError> {
        if let Some(started) = self.started.get() {
            tracing::info!(
                requests = started.runner.num_open(),
                "waiting for the last requests"
            );
            started.runner.drain().await;
        }
        Ok(())
    }

    async fn kv_event_sources(&self) -> Result<Vec<KvEventSource>, DynamoError> {
        let publishers = Arc::clone(&self.publishers);
        let on_ready = Box::new(move |publisher| {
            // Made once; a second one would tell the same.
            let _ = publishers.pages.set(publisher);
            Ok(())
        });
        Ok(vec![KvEventSource::Push { on_ready, dp_rank: 0 }])
    }

    async fn setup_metrics(&self, context: MetricsCtx<'_>) -> Result<MetricsBindings, DynamoError> {
        let metrics = Arc::clone(&self.started()?.metrics);
        context
            .metrics
            .add_expfmt_callback(Arc::new(move || metrics.text()));
        let publishers = Arc::clone(&self.publishers);
        Ok(MetricsBindings {
            dp_ranks: vec![0],
            on_publisher_ready: Some(Box::new(move |publisher| {
                // Made once; a second one would tell the same.
                let _ = publishers.load.set(publisher);
                Ok(())
            })),
        })
    }

    /// One greedy token: it goes through everything that a request goes through.
    async fn health_check_payload(&self) -> Result<Option<serde_json::Value>, DynamoError> {
        Ok(Some(json!({
            "token_ids": [0],
            "stop_conditions": { "max_tokens": 1, "ignore_eos": true },
            "sampling_options": { "temperature": 0.0 }
        })))
    }

    async fn on_endpoint_ready(&self, endpoint: Endpoint) -> Result<(), DynamoError> {
        let Started {
            served_name,
            identity,
            ..
        } = self.started()?;
        let checked = identity::check_peers(&endpoint, served_name, identity).await;
        checked.map_err(|error| did_not_start(&error))?;
        tokio::spawn(identity::check_again(
            endpoint,
            served_name.clone(),
            identity.clone(),
        ));
        Ok(())
    }
}

impl WorkerEngine {
    /// Starts the thread of a loaded model; what Dynamo registers of it, and the way to it.
    fn begin(&self, opened: Opened) -> anyhow::Result<(EngineConfig, Started)> {
        let Opened {
            scheduler,
            bounds,
            schemas,
            limits,
            identity,
        } = opened;
        let whole = self.arguments.model.canonicalize()?;
        let served_name = self.arguments.served_name(&whole);
        let metrics = Arc::new(Metrics::new(&served_name)?);
        let num_pages = scheduler.session().num_pages();
        let places = limits.num_sequences + self.arguments.queue as usize;
        let runner = Runner::start(
            scheduler,
            places,
            Arc::clone(&metrics),
            Arc::clone(&self.publishers),
        )?;
        let config = EngineConfig {
            model: whole.to_string_lossy().into_owned(),
            served_model_name: Some(served_name.clone()),
            runtime_data: HashMap::from([(identity::KEY.to_owned(), json!(identity))]),
            llm: Some(LlmRegistration {
                context_length: Some(limits.context_tokens as u32),
                kv_cache_block_size: Some(PAGE_TOKENS as u32),
                total_kv_blocks: Some(num_pages as u64),
                max_num_seqs: Some(limits.num_sequences as u64),
                max_num_batched_tokens: Some(limits.step_tokens as u64),
                ..LlmRegistration::default()
            }),
            ..EngineConfig::default()
        };
        let started = Started {
            runner,
            bounds,
            schemas,
            metrics,
            served_name,
            identity,
        };
        Ok((config, started))
    }
}

/// Loads the model and makes ready what requests would otherwise wait for.
fn open(arguments: &Arguments) -> anyhow::Result<Opened> {
    let dir: &Path = &arguments.model;
    let loading = || format!("loading the model in {}", dir.display());
    let config = ModelConfig::load(dir).with_context(loading)?;
    let chosen = arguments.device.open(arguments.threads, dir, arguments.memory);
    let chosen = chosen.with_context(|| {
        format!(
            "opening the device {} (--device cpu needs no card)",
            arguments.device
        )
    })?;
    if let Some(reason) = chosen.reason {
        tracing::info!("{reason}");
    }
    let device = Arc::new(chosen.device);
    let limits = arguments.limits(&config, &device)?;
    let plan = plan_memory(dir, &device, None, limits, arguments.memory).with_context(loading)?;
    tracing::info!("{}", plan.check().map_err(Error::Plan).with_context(loading)?);
    // Reading twice beside each other costs little: the second finds what the first has fetched.
    let (identity, loaded) = std::thread::scope(|scope| {
        let ignores = arguments.ignore_defaults;
        let identity = scope.spawn(move || identity::identity_of(dir, limits.context_tokens, ignores));
        let loaded = load_on(dir, &device, None);
        (identity.join(), loaded)
    });
    let identity = identity.map_err(|_| anyhow::anyhow!("hashing {} panicked", dir.display()))??;
    let loaded = loaded.with_context(loading)?;
    let bounds = Bounds {
        context_tokens: limits.context_tokens,
        vocab_size: config.vocab_size,
        end_tokens: end_tokens(&loaded.model, loaded.tokenizer.eos_id()),
        defaults: match arguments.ignore_defaults {
            true => SamplingDefaults::default(),
            false => SamplingDefaults::load(dir)?,
        },
    };
    let schemas = Schemas::new(Arc::clone(&loaded.tokenizer), &bounds.end_tokens);
    let mut scheduler = Scheduler::new(Session::new(loaded.model, limits).with_context(loading)?);
    scheduler.prepare().with_context(loading)?;
    tracing::info!(device = device.name(), identity = %json!(identity), "the model is ready");
    Ok(Opened {
        scheduler,
        bounds,
        schemas,
        limits,
        identity,
    })
}

/// Tokens that end an answer: those of the model's files, and what the tokenizer's own files call its end.
fn end_tokens(model: &Model<AnyDevice>, of_tokenizer: Option<u32>) -> Vec<u32> {
    let mut tokens = model.config().eos_tokens.clone();
    tokens.extend(of_tokenizer);
    tokens
}

/// The constraint to a schema, made on a thread that may wait.
async fn constraint(schemas: Schemas, schema: Value) -> Result<SharedConstraint, DynamoError> {
    let made = tokio::task::spawn_blocking(move || schemas.constraint("guided_decoding.json", &schema));
    let made = made
        .await
        .map_err(|error| failed(format!("compiling a schema: {error}")))?;
    made.map_err(|error| match error {
        SchemasError::Refused(message) => invalid(message),
        SchemasError::Busy(message) => overloaded(message),
    })
}

/// The updates of a request as Dynamo's stream: tokens, then one end. Dropping the stream cancels the request, and so does Dynamo's word; that
/// end tells of no tokens. `prompt_tokens` are `None` where this worker does not know how many there were.
fn answer(
    mut updates: mpsc::UnboundedReceiver<Update>,
    prompt_tokens: Option<usize>,
    context: GenerateContext,
) -> BoxStream<'static, Result<LLMEngineOutput, DynamoError>> {
    Box::pin(async_stream::stream! {
        let mut answer_tokens = 0;
        loop {
            let update = tokio::select! {
                biased;
                () = context.stopped() => {
                    yield Ok(LLMEngineOutput::cancelled());
                    return;
                }
                update = updates.recv() => update,
            };
            match update {
                Some(Update::Token { token, logprobs }) => {
                    answer_tokens += 1;
                    yield Ok(output::token(token, logprobs.as_ref()));
                }
                Some(Update::Ended { reason, cached_tokens }) => {
                    yield Ok(output::end(reason, prompt_tokens, cached_tokens, answer_tokens));
                    return;
                }
                Some(Update::Failed(message)) => {
                    yield Err(failed(message));
                    return;
                }
                None => {
                    yield Err(shutting_down());
                    return;
                }
            }
        }
    })
}

/// Why the worker does not start, with every cause in one line: Dynamo's runtime shows the message alone.
fn did_not_start(error: &anyhow::Error) -> DynamoError {
    DynamoError::builder()
        .error_type(ErrorType::Backend(BackendError::EngineShutdown))
        .message(format!("{error:#}"))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// The kit of Dynamo's own: one end for each answer, cancellation within two seconds, answers side by side, cleanup at any time. It
    /// asks for 10,000 tokens and cancels them, so the model has positions for as many.
    #[tokio::test]
    async fn the_engine_keeps_dynamos_contract() {
        let folder = tempfile::tempdir().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny");
        for name in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(model.join(name), folder.path().join(name)).unwrap();
        }
        let config = std::fs::read_to_string(model.join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        config["max_position_embeddings"] = json!(16_384);
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let dir = folder.path().to_str().unwrap();
        let line = [
            "dualgrain-dynamo",
            dir,
            "--device",
            "cpu",
            "--threads",
            "1",
            "--context",
            "16384",
        ];
        let engine = || WorkerEngine::new(Arguments::parse_from(line));
        dynamo_backend_common::testing::run_conformance(engine)
            .await
            .unwrap();
    }
}

//! What every request can reach.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use crate::answers::{Message, Rules, Splitter, Thinking};
use crate::body::Bodies;
use crate::call::Call;
use crate::error::ApiError;
use crate::options::Options;
use crate::parameters::{Choices, Wanted};
use crate::running::{
    Cancellable, Cancellations, Metrics, Place, Progress, Queue, QueueLimits, Rank, Terms, Unsubmitted,
    Update,
};
use crate::served::{Description, Served};
use crate::turns::{Turn, Turns, beside};

/// Requests that ask for texts or tokens, at once: fewer than there are threads for such work.
const MAX_TEXTS: usize = 2;

/// What every request can reach.
pub struct App {
    pub model: Description,
    pub options: Options,
    pub bodies: Bodies,
    /// Of requests that ask for texts or tokens and so take no place in the queue.
    pub texts: Turns,
    pub queue: Queue,
    pub metrics: Arc<Metrics>,
    pub progress: Arc<Progress>,
    /// Answers under way.
    pub cancellations: Arc<Cancellations>,
    #[cfg(feature = "otel")]
    pub telemetry: Option<crate::telemetry::Telemetry>,
    draining: AtomicBool,
    ids: Ids,
}

/// Names of answers: a random part for the process and a number.
struct Ids {
    process: u64,
    next: AtomicU64,
}

/// Choices that were submitted.
pub struct Submitted {
    /// What happens to them.
    pub updates: mpsc::Receiver<Update>,
    /// How many they are.
    pub num_choices: usize,
    /// Tokens of all prompts, each counted once.
    pub prompt_tokens: usize,
    /// Divides each of their texts.
    pub splitter: Splitter,
    /// What the id of their answer ends with.
    pub name: String,
    /// Held as long as their answer can be cancelled.
    #[expect(dead_code, reason = "held to be dropped with the answer")]
    pub cancellable: Cancellable,
}

impl App {
    /// Starts the engine's thread, inside the runtime; the receiver resolves when the thread has ended.
    pub fn start(served: Served, options: Options) -> std::io::Result<(Arc<Self>, oneshot::Receiver<()>)> {
        let metrics = Arc::new(Metrics::new(&served.description.alias));
        let progress = Arc::new(Progress::default());
        let limits = QueueLimits {
            places: served.num_sequences.saturating_add(options.queue),
            tokens: options.queue_tokens,
            buffered: options.buffered_pieces.max(1),
            log_texts: options.log_prompts,
            energy: options.energy.clone(),
        };
        let (queue, ended) =
            Queue::start(served.engine, limits, Arc::clone(&metrics), Arc::clone(&progress))?;
        #[cfg(feature = "otel")]
        let telemetry = options.collector.clone().map(crate::telemetry::Telemetry::start);
        let app = Self {
            model: served.description,
            bodies: Bodies::new(options.body_bytes),
            texts: Turns::new(MAX_TEXTS),
            options,
            queue,
            metrics,
            progress,
            cancellations: Arc::default(),
            #[cfg(feature = "otel")]
            telemetry,
            draining: AtomicBool::new(false),
            ids: Ids {
                process: RandomState::new().hash_one(0),
                next: AtomicU64::new(0),
            },
        };
        Ok((Arc::new(app), ended))
    }

    /// A name for an answer, which begins with the word of its kind.
    pub fn next_id(&self, kind: &str) -> String {
        let number = self.ids.next.fetch_add(1, Ordering::Relaxed);
        format!("{kind}{:016x}{number:08x}", self.ids.process)
    }

    /// Takes no new requests from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether new requests are taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Refuses a model that is not served; no name means the one there is.
    pub fn check_model(&self, name: Option<&str>) -> Result<(), ApiError> {
        let alias = &self.model.alias;
        match name {
            Some(name) if name != alias => {
                let shown: String = name.chars().take(100).collect();
                let message = format!("there is no model `{shown}`: this server has `{alias}`");
                let error = ApiError::new(StatusCode::NOT_FOUND, message).with_code("model_not_found");
                Err(ApiError {
                    param: Some("model".into()),
                    ..error
                })
            }
            _ => Ok(()),
        }
    }

    /// Runs something that takes long beside the asynchronous threads and beside the engine's; `held` is kept until it
    /// is done.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        held: impl Send + 'static,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = Arc::clone(self);
        beside(held, move || work(&app)).await
    }

    /// A place in the queue for every choice of a request.
    pub fn reserve(&self, num_choices: usize) -> Result<Place<'_>, ApiError> {
        if self.is_draining() {
            return Err(ApiError::come_again(
                StatusCode::SERVICE_UNAVAILABLE,
                "the server is shutting down",
            ));
        }
        let num_places = self.queue.num_places();
        if num_choices > num_places {
            let message =
                format!("{num_choices} answers were asked for, the server has room for {num_places} at once");
            return Err(ApiError::bad(message));
        }
        let full = || {
            let seconds = self.queue.retry_after_s(num_choices);
            queue_full(seconds, "the queue is full: ask again later")
        };
        self.queue.reserve(num_choices).ok_or_else(full)
    }

    /// Submits the choices of a request that continues a conversation; `turn` is kept until it has its tokens and its grammar.
    pub async fn submit_chat(
        self: &Arc<Self>,
        turn: Option<Turn>,
        (messages, rules): (Vec<Message>, Rules),
        (wanted, choices): (&Wanted, Choices),
    ) -> Result<Submitted, ApiError> {
        let place = self.reserve(choices.n)?;
        let work = move |app: &Self| app.chat_prompt(&messages, &rules);
        let prompt = self.blocking(turn, work).await?;
        let wanted = Wanted {
            constraint: prompt.constraint,
            ..wanted.clone()
        };
        let submitted = self.submit(place, vec![prompt.tokens], (&wanted, choices))?;
        Ok(Submitted {
            splitter: prompt.splitter,
            ..submitted
        })
    }

    /// Submits the choices of a request at their place.
    pub fn submit(
        &self,
        place: Place<'_>,
        prompts: Vec<Vec<u32>>,
        (wanted, choices): (&Wanted, Choices),
    ) -> Result<Submitted, ApiError> {
        let prompt_tokens = prompts.iter().map(Vec::len).sum();
        self.log_prompts(&prompts);
        let requests = wanted.requests(prompts, choices.n, self.model.bounds)?;
        let num_choices = requests.len();
        let call = Call::current();
        call.account.submit(prompt_tokens);
        let name = self.next_id("");
        let cancellable = self.cancellations.begin(&name, &call.account.id, call.key());
        let terms = Terms {
            account: Arc::clone(&call.account),
            rank: Rank {
                key: call.key(),
                priority: wanted.priority,
            },
            deadline: call.deadline,
            cancelled: cancellable.cancelled.clone(),
        };
        Ok(Submitted {
            updates: place.submit(requests, terms).map_err(unsubmitted)?,
            num_choices,
            prompt_tokens,
            splitter: Splitter::new(Thinking::Never, None),
            name,
            cancellable,
        })
    }

    /// Writes prompts to the log where that was asked for.
    fn log_prompts(&self, prompts: &[Vec<u32>]) {
        if !self.options.log_prompts {
            return;
        }
        for prompt in prompts {
            let prompt = self.model.tokenizer.decode(prompt, false).unwrap_or_default();
            tracing::info!(id = Call::current().account.id, prompt, "prompt");
        }
    }
}

fn queue_full(seconds: u64, message: &str) -> ApiError {
    ApiError::come_again_in(seconds, StatusCode::TOO_MANY_REQUESTS, message).with_code("queue_full")
}

fn unsubmitted(why: Unsubmitted) -> ApiError {
    match why {
        Unsubmitted::Full(seconds) => {
            let message = "the prompts that wait have too many tokens: ask again later";
            queue_full(seconds, message)
        }
        Unsubmitted::Gone => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the engine has stopped"),
    }
}

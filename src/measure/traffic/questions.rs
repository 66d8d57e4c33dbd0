//! What a server is asked: requests with random prompts of about the wanted number of tokens.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::StatusCode;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::arguments::BenchServe;
use crate::measure::traffic::answer::{Answer, Outcome, Question, ask};
use crate::measure::traffic::target::Target;
use crate::measure::traffic::words::{Measure, Random};

/// Answers that only warm the server up have no more tokens.
const WARM_TOKENS: usize = 8;
/// The stream of random numbers of what all prompts begin with.
const PREFIX: u64 = u64::MAX;

/// Fields that not every server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extras {
    /// Answers do not end before they have all tokens that are asked for.
    ignore_eos: bool,
    /// A stream ends with the tokens counted.
    usage: bool,
}

/// From the most to the least that a server may take.
const EXTRAS: [Extras; 3] = [
    Extras {
        ignore_eos: true,
        usage: true,
    },
    Extras {
        ignore_eos: false,
        usage: true,
    },
    Extras {
        ignore_eos: false,
        usage: false,
    },
];

/// Writes requests; no two of its prompts are alike behind what all begin with.
pub struct Questions<'a> {
    options: &'a BenchServe,
    /// What the server calls its model.
    pub model: String,
    /// Of words, lengths and moments.
    pub seed: u64,
    extras: Extras,
    measure: Measure,
    prefix: String,
    /// Prompts written so far.
    written: u64,
}

/// A prompt and what is wanted of it.
struct Wanted<'a> {
    prompt: &'a str,
    tokens: usize,
}

impl<'a> Questions<'a> {
    /// Asks the server for its model, for what it takes, and for the tokens of words.
    pub async fn prepare(target: &Target, options: &'a BenchServe, seed: u64) -> Result<Self> {
        ensure!(
            options.shared_prefix <= options.prompt_tokens,
            "--shared-prefix {} is more than --prompt-tokens {}",
            options.shared_prefix,
            options.prompt_tokens
        );
        let model = match &options.model {
            Some(model) => model.clone(),
            None => first_model(target).await?,
        };
        let mut questions = Self {
            options,
            model,
            seed,
            extras: EXTRAS[0],
            measure: Measure::UNKNOWN,
            prefix: String::new(),
            written: 0,
        };
        questions.calibrate(target).await?;
        let shared = match options.shared_prefix {
            0 => 0,
            tokens => Measure {
                overhead: 0.0,
                ..questions.measure
            }
            .words(tokens),
        };
        questions.prefix = Random::new(seed, PREFIX).words(shared);
        Ok(questions)
    }

    /// What the server does not do, in words.
    pub fn reservations(&self) -> Vec<&'static str> {
        let mut said = Vec::new();
        if !self.extras.ignore_eos {
            said.push("the server does not take ignore_eos: answers may be shorter than --generate-tokens");
        }
        if self.measure == Measure::UNKNOWN {
            said.push("the server does not count tokens: a word and an event count as one each");
        }
        said
    }

    /// The next requests that are timed.
    pub fn timed(&mut self, count: usize) -> Vec<Question> {
        (0..count).map(|_| self.next(usize::MAX)).collect()
    }

    /// The next requests that warm the server up.
    pub fn warming(&mut self, count: usize) -> Vec<Question> {
        (0..count).map(|_| self.next(WARM_TOKENS)).collect()
    }

    fn next(&mut self, most_tokens: usize) -> Question {
        let options = self.options;
        let mut random = Random::new(self.seed, self.written);
        self.written += 1;
        let prompt_tokens = random.around(options.prompt_tokens, options.spread);
        let tokens = random.around(options.generate_tokens, options.spread);
        let own = self
            .measure
            .words(prompt_tokens.saturating_sub(options.shared_prefix).max(1));
        let own = random.words(own);
        let prompt = match self.prefix.is_empty() {
            true => own,
            false => format!("{} {own}", self.prefix),
        };
        self.question(&Wanted {
            prompt: &prompt,
            tokens: tokens.min(most_tokens),
        })
    }

    fn question(&self, wanted: &Wanted<'_>) -> Question {
        let (path, body) = match self.options.chat {
            true => {
                let messages = json!([{"role": "user", "content": wanted.prompt}]);
                (
                    "/v1/chat/completions",
                    json!({"model": self.model, "messages": messages}),
                )
            }
            false => (
                "/v1/completions",
                json!({"model": self.model, "prompt": wanted.prompt}),
            ),
        };
        Question {
            path,
            body: Bytes::from(self.fields(body, wanted.tokens).to_string()),
            due: Instant::now(),
            timeout: Duration::from_secs(self.options.timeout as u64),
        }
    }

    fn fields(&self, mut body: Value, tokens: usize) -> Value {
        body["max_tokens"] = tokens.into();
        body["temperature"] = self.options.temperature.into();
        body["stream"] = true.into();
        if self.extras.usage {
            body["stream_options"] = json!({"include_usage": true});
        }
        if self.extras.ignore_eos {
            body["ignore_eos"] = true.into();
        }
        body
    }

    /// Finds what the server takes, and how many tokens words have.
    async fn calibrate(&mut self, target: &Target) -> Result<()> {
        let few = (self.options.prompt_tokens / 4).max(1);
        let counted_few = self.first_answer(target, few).await?;
        let many = (self.options.prompt_tokens / 2).max(few + 1);
        let counted_many = prompt_tokens(&self.try_out(target, many).await)?;
        self.measure = Measure::of((few, counted_few), (many, counted_many)).unwrap_or(Measure::UNKNOWN);
        Ok(())
    }

    /// The tokens of `words` words by the first answer that the server gives: it may refuse a field it does not know.
    async fn first_answer(&mut self, target: &Target, words: usize) -> Result<usize> {
        for extras in EXTRAS {
            self.extras = extras;
            let answer = self.try_out(target, words).await;
            let refused = matches!(
                answer.outcome,
                Outcome::Failed(
                    Some(StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY),
                    _
                )
            );
            if !refused || extras == EXTRAS[EXTRAS.len() - 1] {
                return prompt_tokens(&answer);
            }
        }
        unreachable!("the last of the extras returns")
    }

    async fn try_out(&mut self, target: &Target, words: usize) -> Answer {
        let prompt = Random::new(self.seed, self.written).words(words);
        self.written += 1;
        let question = self.question(&Wanted {
            prompt: &prompt,
            tokens: 1,
        });
        ask(target, question, &AtomicU64::new(0)).await
    }
}

fn prompt_tokens(answer: &Answer) -> Result<usize> {
    match &answer.outcome {
        Outcome::Complete => Ok(answer.usage.prompt_tokens),
        Outcome::Refused => {
            bail!("the server has no room for a first request (429): ask when it has less to do")
        }
        Outcome::Failed(_, message) => bail!("a first request failed: {message}"),
    }
}

async fn first_model(target: &Target) -> Result<String> {
    let (status, body) = target.get("/v1/models").await?;
    let expected =
        || format!("GET /v1/models: {status}, expected a list of models: --model names one without asking");
    let list: Value = serde_json::from_slice(&body).with_context(expected)?;
    let first = list["data"][0]["id"].as_str();
    Ok(first.with_context(expected)?.to_owned())
}

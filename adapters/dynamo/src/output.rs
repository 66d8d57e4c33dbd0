//! What the engine gave, in Dynamo's words.

use dualgrain::Logprobs;
use dualgrain::engine::FinishReason;
use dynamo_backend_common::{LLMEngineOutput, LLMEngineOutputExt, PromptTokensDetails, TopLogprob, usage};

/// A token of an answer that goes on.
pub fn token(token: u32, logprobs: Option<&Logprobs>) -> LLMEngineOutput {
    let mut output = LLMEngineOutput {
        token_ids: vec![token],
        ..LLMEngineOutput::default()
    };
    if let Some(logprobs) = logprobs {
        output.log_probs = Some(vec![f64::from(logprobs.chosen)]);
        let top = (1..)
            .zip(&logprobs.top)
            .map(|(rank, &(token_id, logprob))| TopLogprob {
                rank,
                token_id,
                // The frontend has the tokenizer.
                token: None,
                logprob: f64::from(logprob),
                bytes: None,
            });
        output.top_logprobs = Some(vec![top.collect()]);
    }
    output
}

/// The end of an answer; without `prompt_tokens` the frontend counts alone.
pub fn end(
    reason: FinishReason,
    prompt_tokens: Option<usize>,
    cached_tokens: usize,
    answer_tokens: usize,
) -> LLMEngineOutput {
    let output = match reason {
        FinishReason::Eos | FinishReason::StopString => LLMEngineOutput::stop(),
        FinishReason::MaxTokens | FinishReason::Context => LLMEngineOutput::length(),
        FinishReason::Cancelled => LLMEngineOutput::cancelled(),
    };
    let Some(prompt_tokens) = prompt_tokens else {
        return output;
    };
    let mut used = usage(prompt_tokens as u32, answer_tokens as u32);
    used.prompt_tokens_details = Some(PromptTokensDetails {
        cached_tokens: Some(cached_tokens as u32),
        ..PromptTokensDetails::default()
    });
    output.with_usage(used)
}

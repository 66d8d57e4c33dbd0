//! How a model writes calls: its chat template says it.

use dualgrain::engine::chat::ChatTemplate;
use dualgrain::engine::tokenizer::Tokenizer;

/// How calls are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// Each between `<tool_call>` and `</tool_call>`, told of by words of our own: the template knows nothing of tools.
    #[default]
    Told,
    /// The same, told of by the template: Hermes, Qwen and many others.
    Marked,
    /// One call is the whole answer, `{"name": ..., "parameters": ...}`: Llama 3.
    Bare,
    /// The token `[TOOL_CALLS]` of this id, which has no text, and a list of all calls: Mistral.
    Listed(u32),
}

impl Style {
    /// What a model of this template and these tokens writes. Other ways of writing calls are not read: such models are told in words.
    pub fn of(template: &ChatTemplate, tokenizer: &Tokenizer) -> Self {
        let has = |words: &str| template.mentions(words);
        if !has("tools") || has("<function=") {
            return Self::Told;
        }
        if has("<tool_call>") {
            return Self::Marked;
        }
        if has("\"parameters\": dictionary of argument name") {
            return Self::Bare;
        }
        let token = tokenizer.token_id("[TOOL_CALLS]");
        match token.filter(|_| has("[TOOL_CALLS]") && has("[AVAILABLE_TOOLS]") && !has("[ARGS]")) {
            Some(token) => Self::Listed(token),
            None => Self::Told,
        }
    }

    /// Whether the template has a place for tools.
    pub fn is_own(self) -> bool {
        self != Self::Told
    }

    /// The name of a call's arguments.
    pub fn arguments(self) -> &'static str {
        match self {
            Self::Bare => "parameters",
            _ => "arguments",
        }
    }
}

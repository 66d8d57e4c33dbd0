//! How each interface writes messages: what requests are read by and what /openapi.json says of them.

/// The words of an interface's messages.
#[derive(Debug, Clone, Copy)]
pub struct MessageWords {
    /// Roles that are taken.
    pub roles: &'static [&'static str],
    /// Fields of a message that change nothing.
    pub message_fields: &'static [&'static str],
    /// Types of a part of text.
    pub part_types: &'static [&'static str],
    /// Fields of a part of text that change nothing.
    pub part_fields: &'static [&'static str],
}

/// OpenAI's chat.
pub const CHAT_MESSAGES: MessageWords = MessageWords {
    roles: &["system", "developer", "user", "assistant", "tool"],
    // Templates have no place for them.
    message_fields: &[
        "name",
        "refusal",
        "annotations",
        "audio",
        "function_call",
        "reasoning_content",
    ],
    part_types: &["text"],
    part_fields: &[],
};

/// OpenAI's responses.
pub const INPUT_MESSAGES: MessageWords = MessageWords {
    roles: &["system", "developer", "user", "assistant"],
    message_fields: &["id", "status", "phase"],
    part_types: &["input_text", "output_text"],
    part_fields: &["annotations", "logprobs"],
};

/// Anthropic's messages.
pub const ANTHROPIC_MESSAGES: MessageWords = MessageWords {
    roles: &["user", "assistant"],
    message_fields: &[],
    part_types: &["text"],
    part_fields: &["cache_control", "citations"],
};

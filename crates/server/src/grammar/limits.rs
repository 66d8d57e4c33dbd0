//! What a grammar may cost.

use std::time::Duration;

use llguidance::api::ParserLimits;

/// Longest time that a request waits for its grammar.
pub const COMPILE_TIME: Duration = Duration::from_secs(1);
/// Grammars that are compiled at once, those included whose requests were told that it takes too long.
pub const MAX_COMPILING: usize = 4;
/// Stack of a thread that compiles: grammars are walked recursively.
pub const STACK_BYTES: usize = 32 << 20;
/// Bytes of a schema's JSON.
pub const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Schemas inside each other.
pub const MAX_DEPTH: usize = 64;

/// What the library may do for a grammar, and for a mask. Half of its own bounds for a mask: others wait meanwhile.
pub fn parser_limits() -> ParserLimits {
    ParserLimits {
        step_lexer_fuel: 100_000,
        step_max_items: 25_000,
        max_lexer_states: 50_000,
        max_grammar_size: 100_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

//! What an answer may consist of: text, thoughts, tool calls, or a JSON value of a schema; and how its text is divided into these.

mod call_grammar;
mod form;
mod rules;
mod said;
mod split;
mod style;
mod tool;
mod tool_prompt;
mod written_call;

pub use form::Form;
pub use rules::Rules;
pub use said::{Message, SaidCall};
pub use split::{Part, Parts, Splitter, Thinking};
pub use style::Style;
pub use tool::{Choice, MAX_NAME_BYTES, MAX_TOOLS, Tool, Tools};

#[cfg(test)]
mod tests;

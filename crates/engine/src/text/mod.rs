//! Text and tokens: the tokenizer and back (`detokenizer`), stop strings, chat templates (`chat`, run by `jinja`).

pub mod chat;
pub mod detokenizer;
mod jinja;
mod stop;
pub mod tokenizer;

pub(crate) use stop::StopMatcher;

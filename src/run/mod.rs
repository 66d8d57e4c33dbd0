//! Verbs that open a model folder and read its weights. `quantize` and its plan are here because quantizing runs the original
//! block by block; `eval` runs a model over texts, `inspect` reads what a folder holds, `export` writes it as something else.

pub mod bench;
mod bundled;
pub mod chat;
pub mod eval;
pub mod export;
pub mod generate;
pub mod inspect;
mod model_folder;
pub mod pull;
pub mod quantize;
pub mod quickstart;
mod sampling;
pub mod serve;

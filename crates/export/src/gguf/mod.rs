//! A GGUF file: `model.gguf` in a folder with a card.

mod blocks;
mod experts;
mod file;
mod metadata;
mod names;
mod pre_tokenizer;
mod rope;
mod tokenizer;
mod vocabulary;

pub use file::write;

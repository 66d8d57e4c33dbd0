//! What holds for every layer, configuration and checkpoint: properties, whose counterexamples shrink.

mod checkpoint;
mod config;
mod int4;
mod join;
mod layers;
mod quantized;

//! A worker of NVIDIA Dynamo that runs dualgrain's engine.
//!
//! Dynamo's frontend speaks HTTP, applies the chat template, makes tokens of texts and texts of tokens, and sends each request to a worker.
//! This program is such a worker: tokens in, tokens out. `arguments` reads the command line, `engine` is what Dynamo's runtime drives,
//! `request` and `output` translate between Dynamo's words and the engine's, and `runner` is the thread that owns the model.
#![forbid(unsafe_code)]

mod arguments;
mod ending;
mod engine;
mod error;
mod identity;
mod metrics;
mod output;
mod request;
mod runner;

use std::sync::Arc;

use clap::Parser;

use dynamo_backend_common::LLMEngine;

use crate::arguments::Arguments;
use crate::engine::WorkerEngine;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = arguments.worker_config()?;
    dualgrain::share_one_arena();
    let engine = Arc::new(WorkerEngine::new(arguments));
    dynamo_backend_common::run(Arc::clone(&engine) as Arc<dyn LLMEngine>, config)?;
    engine.ending().check()
}

//! A model behind the interfaces that clients of language models speak: HTTP in, tokens from the engine out.
//!
//! One thread owns the engine (`running`); everything asynchronous stays on this side of its two channels. A request is read and
//! checked (`body`, `parameters`), turned into tokens (`prompt`) and, where its answer has a form, into a
//! constraint (`answers`, `grammar`), given a place (`running::Queue`) and answered in the shape of
//! the interface that it came through (`openai`, `anthropic`). Dropping the receiver of a request is its cancellation.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use dualgrain_server::{Options, Served, listen, run};
//!
//! let listener = listen("127.0.0.1", 8080)?;
//! let limits = dualgrain::SessionLimits::new(8, 2048, 512);
//! let served = Served::open("models/llama-tiny".as_ref(), "llama-tiny".to_owned(), &dualgrain::Options::default(), limits)?;
//! run(listener, served, Options::default(), || println!("ready"))?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod answers;
mod anthropic;
mod app;
mod body;
mod call;
mod contract;
mod documentation;
mod endpoints;
mod energy;
mod error;
mod grammar;
mod keys;
mod openai;
mod options;
mod parameters;
mod prompt;
mod running;
mod served;
mod serving;
mod streaming;
#[cfg(any(feature = "otel", test))]
#[cfg_attr(
    not(feature = "otel"),
    allow(dead_code, reason = "tested in every build, used in some")
)]
mod telemetry;
mod tls;
mod turns;

pub use documentation::{parameter_tables, path_table};
pub use energy::Energy;
pub use error::ServeError;
pub use grammar::{Schemas, SchemasError};
pub use keys::{Keys, KeysError};
pub use options::Options;
pub use served::Served;
pub use serving::{Stage, listen, run, serve};
#[cfg(feature = "otel")]
pub use telemetry::{Collector, CollectorError};
pub use tls::{Tls, TlsError};

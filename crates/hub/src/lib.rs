//! Models from the Hugging Face hub, in the cache that the hub's other programs use: what one downloads, all find.
//!
//! [`pull`] brings a model, [`find`] looks for one that is there. A download goes on where it was cut, and nothing but files with the
//! right checksum reaches the folder that [`Pulled::path`] names.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use dualgrain_hub::{Extent, ModelName, Revision, Settings, Watch, pull};
//!
//! struct Silent;
//! impl Watch for Silent {
//!     fn bytes(&self, _: &str, _: u64, _: u64) {}
//!     fn file(&self, _: &str, _: u64, _: bool) {}
//!     fn say(&self, _: &str) {}
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let name: ModelName = "HuggingFaceTB/SmolLM2-135M".parse()?;
//! let settings = Settings::from_environment()?;
//! let model = pull(&name, &Revision::default(), Extent::Whole, &settings, (&Silent, &AtomicBool::new(false)))?;
//! println!("{}", model.path.display());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod cache;
mod checksum;
mod error;
mod http;
mod hub;
mod listing;
mod model_name;
mod pull;
mod settings;
mod transfer;
mod watch;

pub use error::HubError;
pub use http::{Patience, Proxies};
pub use model_name::{ModelName, Revision};
pub use pull::{Extent, Pulled, find, pull};
pub use settings::{Settings, Token, cache_folder};
pub use watch::Watch;

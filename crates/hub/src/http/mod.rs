//! A client of HTTP for downloads: one request at a time, every wait bounded and ended by a flag.

mod client;
mod connection;
mod patience;
mod proxies;
mod url;

pub use client::{Answer, Client};
pub use patience::Patience;
pub use proxies::Proxies;
pub use url::{Url, quoted};

//! Pulls from a hub over loopback, which speaks as the real one does, breaks off, lies and refuses.

mod cuts;
mod hub;
mod lies;
mod refusals;
mod secrets;
mod server;
mod whole;

//! What those who run a server see of it and set about it.

mod description;
mod names;

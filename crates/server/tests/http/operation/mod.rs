//! What those who run a server see of it and set about it.

mod cancelling;
mod deadlines;
mod defaults;
mod description;
mod energy;
mod leaving;
mod lengths;
mod names;
mod node;
mod origins;
mod secured;
mod waiting;

//! What physics says of a product before anything is learned: its tiles (`tiling`), the terms that its time is roughly a
//! sum of (`terms`), and from them a rough time and a rough power (`time`, `power`).

mod power;
mod terms;
mod tiling;
mod time;

pub(crate) use power::{NUM_RATES, PowerFactors, rates, rough_power_w};
pub(crate) use terms::{BUSIEST, CACHED, NUM_TERMS, Physics};
pub(crate) use tiling::{Tile, Tiling};
pub(crate) use time::{TimeFactors, rough_time_s};

//! What a phase spends its time on: its products (`products`) and the estimates of the rest (`estimate`), together (`items`), and
//! how their intervals add up (`sum`).

mod estimate;
mod items;
mod products;
mod sum;

pub(crate) use estimate::assumption;
pub(crate) use items::items;
#[cfg(test)]
pub(crate) use products::product_items;
pub(crate) use products::{energy, time};
pub(crate) use sum::scaled;

//! Learning from a table of numbers, whatever they mean: histogram trees, a random forest and gradient boosting of them.
//!
//! Columns are cut into at most 256 bins once (`bins`); a tree grows best split first from histograms of bins (`grow`);
//! `forest` and `boost` differ in what the trees are grown on. Both give [`Trees`], which are flat arrays walked eight
//! trees at a time. Everything random comes from a seed, and threads share whole trees or whole fits, so that their
//! number changes nothing.

mod bins;
mod boost;
mod forest;
mod grow;
mod parallel;
mod random;
mod trees;

pub use bins::{Bins, Table};
pub use boost::{Boost, boost};
pub use forest::{Forest, forest};
pub use parallel::parallel;
pub use random::Random;
pub use trees::{Node, Trees};

//! Learning from a table of numbers, whatever they mean: histogram trees, a random forest and gradient boosting of them.
//!
//! Columns are cut into at most 256 bins once (`bins`). A forest's trees grow best split first from histograms of bins
//! (`grow`, kept as [`Trees`]); boosting's level by level (`level`, kept as [`Symmetric`]), which is faster to walk. Both
//! are flat arrays walked eight trees at a time. Everything random comes from a seed, and threads share whole trees or whole fits, so that their
//! number changes nothing.

mod bins;
mod boost;
mod ensemble;
mod forest;
mod grow;
mod level;
mod parallel;
mod random;
mod symmetric;
mod trees;

pub use bins::{Bins, Table};
pub use boost::{Boost, boost};
pub use ensemble::Ensemble;
pub use forest::{Forest, forest};
pub use parallel::parallel;
pub use random::Random;
pub use symmetric::{DEPTH, LEAVES, Question, Symmetric, SymmetricTree};
pub use trees::{Node, Trees};

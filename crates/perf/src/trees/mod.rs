//! Learns from a table of numbers, whatever they mean: histogram trees, and a random forest and gradient boosting of
//! them.
//!
//! Columns are cut into at most 256 bins once (`bins`). The trees of a forest grow best split first from histograms of
//! bins (`best_first`) and are kept in `binary`; the trees of boosting grow level by level (`level_wise`) and are kept in
//! `symmetric`, which is faster to walk. Both are flat arrays, and eight trees are walked side by side. Everything random
//! comes from a seed, and threads share whole trees or whole fits, so that their number changes nothing.

mod best_first;
mod binary;
mod bins;
mod boost;
mod ensemble;
mod forest;
mod level_wise;
mod parallel;
mod random;
mod symmetric;

pub(crate) use binary::{BinaryTrees, Node};
pub(crate) use bins::Table;
pub(crate) use boost::{BoostOptions, boost};
pub(crate) use ensemble::Ensemble;
pub(crate) use forest::{ForestOptions, forest};
pub(crate) use parallel::parallel;
pub(crate) use random::Random;
pub(crate) use symmetric::{DEPTH, LEAVES, Question, SymmetricTree, SymmetricTrees};

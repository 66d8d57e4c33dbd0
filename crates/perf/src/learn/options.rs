//! How to fit: the learner, the seed, the threads, the folds.

/// What learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Learner {
    /// A random forest.
    Forest,
    /// Gradient boosting.
    Boost,
}

/// How to fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitOptions {
    /// What learns.
    pub learner: Learner,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Parts the shapes are dealt into; each is judged by what the others teach. More parts take longer and leave each
    /// judge closer to a model that has learned from all. At most half as many as there are shapes.
    pub folds: usize,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            learner: Learner::Boost,
            seed: 7,
            threads: std::thread::available_parallelism().map_or(1, |count| count.get()),
            folds: 5,
        }
    }
}

//! Symmetric trees: all nodes of a level ask the same question, so that the answers are the bits of the leaf's number and
//! no load waits for another. Walking one takes 2 ns, a third of the time of a binary tree.

/// Questions from the root to a leaf. A tree with fewer questions has some whose answer is always no.
pub const DEPTH: usize = 6;
/// Leaves of a tree.
pub const LEAVES: usize = 1 << DEPTH;
/// Trees walked side by side.
const LANES: usize = 8;

/// A question: does this column lie above this threshold?
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Question {
    /// Column.
    pub feature: u8,
    /// Greater values answer yes.
    pub threshold: f32,
}

impl Question {
    /// A question whose answer is always no.
    pub const NO: Self = Self {
        feature: 0,
        threshold: f32::INFINITY,
    };
}

/// One tree: its questions, and the values of its leaves. The bits of a leaf's number are the answers, the first one the highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SymmetricTree {
    /// From the root down.
    pub questions: [Question; DEPTH],
    /// The values of the leaves, by number.
    pub values: [f32; LEAVES],
}

/// Trees. The value for a row is the sum of the values of the leaves that it falls into.
#[derive(Debug, Clone, PartialEq)]
pub struct SymmetricTrees {
    start: f32,
    num_trees: usize,
    /// The questions of eight trees at a time, level by level.
    eights: Vec<Eight>,
    /// The leaves of each tree. The last eight trees are filled up with trees whose values are 0.
    values: Vec<[f32; LEAVES]>,
}

#[derive(Debug, Clone, PartialEq)]
struct Eight {
    features: [[u8; LANES]; DEPTH],
    thresholds: [[f32; LANES]; DEPTH],
}

impl SymmetricTrees {
    /// No trees yet: sums are `start`.
    pub fn new(start: f32) -> Self {
        Self {
            start,
            num_trees: 0,
            eights: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Trees from stored parts. `None` if a number is not finite or a column lies beyond `width`.
    pub fn from_parts(start: f32, trees: impl Iterator<Item = SymmetricTree>, width: usize) -> Option<Self> {
        let mut whole = Self::new(start);
        for tree in trees {
            let sound = |question: &Question| {
                usize::from(question.feature) < width && question.threshold > f32::NEG_INFINITY
            };
            if !tree.questions.iter().all(sound) || !tree.values.iter().all(|value| value.is_finite()) {
                return None;
            }
            whole.push(&tree);
        }
        start.is_finite().then_some(whole)
    }

    /// Appends a tree.
    pub fn push(&mut self, tree: &SymmetricTree) {
        let lane = self.num_trees % LANES;
        if lane == 0 {
            self.eights.push(Eight {
                features: [[0; LANES]; DEPTH],
                thresholds: [[f32::INFINITY; LANES]; DEPTH],
            });
            self.values.resize(self.values.len() + LANES, [0.0; LEAVES]);
        }
        if let Some(eight) = self.eights.last_mut() {
            for (level, question) in tree.questions.iter().enumerate() {
                eight.features[level][lane] = question.feature;
                eight.thresholds[level][lane] = question.threshold;
            }
        }
        self.values[self.num_trees] = tree.values;
        self.num_trees += 1;
    }

    /// Number of trees.
    pub fn len(&self) -> usize {
        self.num_trees
    }

    /// The sum of no trees.
    pub fn start(&self) -> f32 {
        self.start
    }

    /// The trees, one by one.
    pub fn trees(&self) -> impl Iterator<Item = SymmetricTree> + '_ {
        (0..self.num_trees).map(|number| {
            let (eight, lane) = (&self.eights[number / LANES], number % LANES);
            SymmetricTree {
                questions: std::array::from_fn(|level| Question {
                    feature: eight.features[level][lane],
                    threshold: eight.thresholds[level][lane],
                }),
                values: self.values[number],
            }
        })
    }

    /// The sum for a row of features. `N` is a power of two not below the number of columns.
    pub fn sum<const N: usize>(&self, row: &[f32; N]) -> f32 {
        const { assert!(N.is_power_of_two()) };
        let mut sums = [0.0f32; LANES];
        let (leaves, _) = self.values.as_chunks::<LANES>();
        for (eight, leaves) in self.eights.iter().zip(leaves) {
            let mut at = [0u32; LANES];
            for (features, thresholds) in eight.features.iter().zip(&eight.thresholds) {
                // Gathered before they are compared, so that all eight are compared at once.
                let asked = features.map(|feature| row[usize::from(feature) & (N - 1)]);
                for ((at, asked), threshold) in at.iter_mut().zip(asked).zip(thresholds) {
                    *at = *at * 2 + u32::from(asked > *threshold);
                }
            }
            for ((sum, leaves), at) in sums.iter_mut().zip(leaves).zip(at) {
                *sum += leaves[at as usize & (LEAVES - 1)];
            }
        }
        self.start + sums.iter().sum::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(number: u8) -> SymmetricTree {
        let mut questions = [Question::NO; DEPTH];
        for (level, question) in questions
            .iter_mut()
            .enumerate()
            .take(1 + usize::from(number) % DEPTH)
        {
            *question = Question {
                feature: (number + level as u8) % 4,
                threshold: f32::from(number % 7) - 2.0 + level as f32,
            };
        }
        SymmetricTree {
            questions,
            values: std::array::from_fn(|leaf| (leaf * 31 + usize::from(number)) as f32),
        }
    }

    #[test]
    fn walk_of_eight_ends_in_the_leaves_that_the_answers_name() {
        let mut trees = SymmetricTrees::new(0.5);
        (0..19).for_each(|number| trees.push(&tree(number)));
        for row in [[0.0, 3.0, -1.5, 9.0], [1.0, -7.0, 2.0, 4.5]] {
            let one_by_one: f32 = trees
                .trees()
                .map(|tree| {
                    let answers = tree.questions.iter();
                    let leaf = answers.fold(0, |at, question| {
                        at * 2 + usize::from(row[usize::from(question.feature)] > question.threshold)
                    });
                    tree.values[leaf]
                })
                .sum();
            assert_eq!(trees.sum(&row), 0.5 + one_by_one);
        }
        let again = SymmetricTrees::from_parts(0.5, trees.trees(), 4).unwrap();
        assert_eq!((again.len(), &again), (19, &trees));
    }

    #[test]
    fn numbers_that_make_no_tree_are_refused() {
        let read = |tree: SymmetricTree| SymmetricTrees::from_parts(0.0, [tree].into_iter(), 4);
        assert!(read(tree(3)).is_some());
        let mut beyond = tree(3);
        beyond.questions[1].feature = 4;
        assert!(read(beyond).is_none(), "a column beyond the last");
        let mut nan = tree(3);
        nan.questions[0].threshold = f32::NAN;
        assert!(read(nan).is_none(), "no threshold");
        let mut endless = tree(3);
        endless.values[63] = f32::INFINITY;
        assert!(read(endless).is_none(), "no value");
    }
}

//! The trees of a model file, column by column, because columns compress better than nodes one by one.

use super::header::EnsembleShape;
use crate::predict::features::NAMES;
use crate::trees::{BinaryTrees, DEPTH, Ensemble, LEAVES, Node, Question, SymmetricTree, SymmetricTrees};

/// An ensemble to be written.
pub(crate) enum EnsembleRef<'a> {
    Forest(&'a BinaryTrees),
    Boost(&'a SymmetricTrees),
}

impl<'a> EnsembleRef<'a> {
    pub(crate) fn of(ensemble: &'a Ensemble) -> Self {
        match ensemble {
            Ensemble::Forest(trees) => Self::Forest(trees),
            Ensemble::Boost(trees) => Self::Boost(trees),
        }
    }

    pub(crate) fn shape(&self) -> EnsembleShape {
        match self {
            Self::Forest(trees) => EnsembleShape::Forest {
                start: trees.start()[0],
                sizes: trees.sizes(),
            },
            Self::Boost(trees) => EnsembleShape::Boost {
                start: trees.start(),
                trees: trees.len(),
            },
        }
    }

    pub(crate) fn append_to(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Forest(trees) => write_trees(trees, bytes),
            Self::Boost(trees) => write_symmetric(trees, bytes),
        }
    }
}

/// Columns apart compress better than nodes one by one.
fn write_trees(trees: &BinaryTrees, bytes: &mut Vec<u8>) {
    trees
        .nodes()
        .iter()
        .for_each(|node| bytes.extend(node.threshold.to_le_bytes()));
    trees
        .nodes()
        .iter()
        .for_each(|node| bytes.extend(node.feature.to_le_bytes()));
    trees
        .nodes()
        .iter()
        .for_each(|node| bytes.extend(node.left.to_le_bytes()));
    trees
        .values()
        .iter()
        .for_each(|value| bytes.extend(value.to_le_bytes()));
}

fn write_symmetric(trees: &SymmetricTrees, bytes: &mut Vec<u8>) {
    for tree in trees.trees() {
        let thresholds = tree.questions.iter().map(|question| question.threshold);
        thresholds.for_each(|threshold| bytes.extend(threshold.to_le_bytes()));
        bytes.extend(tree.questions.iter().map(|question| question.feature));
        tree.values
            .iter()
            .for_each(|value| bytes.extend(value.to_le_bytes()));
    }
}

/// All ensembles; `None` where they contradict themselves.
pub(crate) fn read_ensembles(shapes: &[EnsembleShape], mut bytes: &[u8]) -> Option<Vec<Ensemble>> {
    let mut trees = Vec::new();
    for shape in shapes {
        let (read, rest) = read_ensemble(shape, bytes)?;
        trees.push(read);
        bytes = rest;
    }
    bytes.is_empty().then_some(trees)
}

fn read_ensemble<'a>(shape: &EnsembleShape, bytes: &'a [u8]) -> Option<(Ensemble, &'a [u8])> {
    match shape {
        EnsembleShape::Forest { start, sizes } => {
            let (trees, rest) = read_trees(*start, sizes, bytes)?;
            Some((Ensemble::Forest(trees), rest))
        }
        EnsembleShape::Boost { start, trees } => {
            let (trees, rest) = read_symmetric(*start, *trees, bytes)?;
            Some((Ensemble::Boost(trees), rest))
        }
    }
}

fn float(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn read_symmetric(start: f32, count: usize, bytes: &[u8]) -> Option<(SymmetricTrees, &[u8])> {
    const TREE: usize = 5 * DEPTH + 4 * LEAVES;
    let (trees, rest) = bytes.split_at_checked(count.checked_mul(TREE)?)?;
    let trees = trees.chunks_exact(TREE).map(|tree| {
        let (thresholds, tree) = tree.split_at(4 * DEPTH);
        let (features, values) = tree.split_at(DEPTH);
        SymmetricTree {
            questions: std::array::from_fn(|level| Question {
                feature: features[level],
                threshold: float(&thresholds[4 * level..]),
            }),
            values: std::array::from_fn(|leaf| float(&values[4 * leaf..])),
        }
    });
    Some((SymmetricTrees::from_parts(start, trees, NAMES.len())?, rest))
}

fn read_trees<'a>(start: f32, sizes: &[u16], bytes: &'a [u8]) -> Option<(BinaryTrees, &'a [u8])> {
    let count: usize = sizes.iter().map(|&size| usize::from(size)).sum();
    let (thresholds, rest) = bytes.split_at_checked(4 * count)?;
    let (features, rest) = rest.split_at_checked(2 * count)?;
    let (lefts, rest) = rest.split_at_checked(2 * count)?;
    let (values, rest) = rest.split_at_checked(4 * count)?;
    let short = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    let nodes = thresholds
        .chunks_exact(4)
        .zip(features.chunks_exact(2).zip(lefts.chunks_exact(2)))
        .map(|(threshold, (feature, left))| Node {
            threshold: float(threshold),
            feature: short(feature),
            left: short(left),
        });
    let values = values.chunks_exact(4).map(float).collect();
    let trees = BinaryTrees::from_parts(vec![start], sizes, nodes.collect(), values, NAMES.len())?;
    Some((trees, rest))
}

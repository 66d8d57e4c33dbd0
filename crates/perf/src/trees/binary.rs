//! Binary trees in flat arrays: each node asks its own question.

/// A node. A row goes to the left child, or to the child behind it if the feature lies above the threshold.
///
/// A leaf is its own left child, and no value lies above its threshold. A walk of any length therefore ends in the leaf, and
/// nobody has to ask whether a node is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    /// Greater values go right.
    pub threshold: f32,
    /// Column.
    pub feature: u16,
    /// Left child, counted from the tree's root; the right one stands behind it.
    pub left: u16,
}

/// Trees. The value for a row is the sum of the values of the leaves that it falls into.
#[derive(Debug, Clone, PartialEq)]
pub struct BinaryTrees {
    /// Number of values of a leaf.
    outputs: usize,
    /// The sum of no trees.
    start: Vec<f32>,
    /// Each tree's first node, and its longest path.
    roots: Vec<(u32, u32)>,
    nodes: Vec<Node>,
    /// `[nodes][outputs]`; 0 for inner nodes.
    values: Vec<f32>,
}

/// Trees that are walked side by side: their loads wait for memory together.
const LANES: usize = 8;

impl BinaryTrees {
    /// No trees yet: sums are `start`.
    pub fn new(start: Vec<f32>) -> Self {
        Self {
            outputs: start.len(),
            start,
            roots: Vec::new(),
            nodes: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Trees from stored parts; `sizes` are the numbers of nodes of each tree. `None` if they are no trees over `width` columns.
    pub fn from_parts(
        start: Vec<f32>,
        sizes: &[u16],
        nodes: Vec<Node>,
        values: Vec<f32>,
        width: usize,
    ) -> Option<Self> {
        let mut trees = Self::new(start);
        let total: usize = sizes.iter().map(|&size| usize::from(size)).sum();
        if total != nodes.len() || values.len() != nodes.len() * trees.outputs {
            return None;
        }
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        if !finite(&values) || !finite(&trees.start) {
            return None;
        }
        let mut root = 0;
        for &size in sizes {
            let range = root..root + usize::from(size);
            root = range.end;
            depth_of(&nodes[range.clone()], width)?;
            trees.push(
                &nodes[range.clone()],
                &values[range.start * trees.outputs..range.end * trees.outputs],
            );
        }
        Some(trees)
    }

    /// Appends a tree; `values` are `[nodes][outputs]`.
    ///
    /// # Panics
    /// If the nodes are no tree.
    pub fn push(&mut self, nodes: &[Node], values: &[f32]) {
        assert_eq!(values.len(), nodes.len() * self.outputs, "values of a tree");
        let depth = depth_of(nodes, usize::from(u16::MAX)).expect("nodes of a tree");
        self.roots.push((self.nodes.len() as u32, depth));
        self.nodes.extend_from_slice(nodes);
        self.values.extend_from_slice(values);
    }

    /// Number of trees.
    pub fn len(&self) -> usize {
        self.roots.len()
    }

    /// Number of values of a leaf.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The sum of no trees.
    pub fn start(&self) -> &[f32] {
        &self.start
    }

    /// All nodes, tree after tree.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All values, `[nodes][outputs]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of nodes of each tree.
    pub fn sizes(&self) -> Vec<u16> {
        let ends = self.roots.iter().skip(1).map(|&(root, _)| root as usize);
        let ends = ends.chain([self.nodes.len()]);
        let begins = self.roots.iter().map(|&(root, _)| root as usize);
        begins
            .zip(ends)
            .map(|(begin, end)| (end - begin) as u16)
            .collect()
    }

    /// The sum of the first output for a row of features. `N` is a power of two not below the number of columns.
    pub fn sum<const N: usize>(&self, row: &[f32; N]) -> f32 {
        const { assert!(N.is_power_of_two()) };
        let mut sum = self.start[0];
        for trees in self.roots.chunks(LANES) {
            let mut at = [0u32; LANES];
            let mut root = [0u32; LANES];
            let mut depth = 0;
            for (lane, &(first, longest)) in trees.iter().enumerate() {
                (root[lane], at[lane]) = (first, first);
                depth = depth.max(longest);
            }
            for _ in 0..depth {
                for lane in 0..LANES {
                    let node = self.nodes[at[lane] as usize];
                    let above = row[usize::from(node.feature) & (N - 1)] > node.threshold;
                    at[lane] = root[lane] + u32::from(node.left) + u32::from(above);
                }
            }
            for &leaf in &at[..trees.len()] {
                sum += self.values[leaf as usize * self.outputs];
            }
        }
        sum
    }

    /// The sums of all outputs for a row of any width.
    pub fn sums(&self, row: &[f32]) -> Vec<f32> {
        let mut sums = self.start.clone();
        for tree in 0..self.roots.len() {
            let leaf = self.leaf(tree, row);
            for (sum, value) in sums.iter_mut().zip(self.leaf_values(leaf)) {
                *sum += value;
            }
        }
        sums
    }

    /// The leaf of a tree that a row falls into.
    pub fn leaf(&self, tree: usize, row: &[f32]) -> usize {
        let (root, depth) = self.roots[tree];
        let mut at = root;
        for _ in 0..depth {
            let node = self.nodes[at as usize];
            let above = row[usize::from(node.feature)] > node.threshold;
            at = root + u32::from(node.left) + u32::from(above);
        }
        at as usize
    }

    /// The values of a leaf.
    pub fn leaf_values(&self, leaf: usize) -> &[f32] {
        &self.values[leaf * self.outputs..(leaf + 1) * self.outputs]
    }
}

impl Node {
    /// A leaf at a place of its tree.
    pub fn leaf(at: u16) -> Self {
        Self {
            threshold: f32::INFINITY,
            feature: 0,
            left: at,
        }
    }
}

/// The longest path of a tree. `None` if the nodes are no tree: a child is missing or stands before its parent, a column lies
/// beyond `width`, a threshold is not finite.
fn depth_of(nodes: &[Node], width: usize) -> Option<u32> {
    let mut depths = vec![0u32; nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        let left = usize::from(node.left);
        let is_leaf = left == at && node.threshold == f32::INFINITY;
        if is_leaf && usize::from(node.feature) < width {
            continue;
        }
        let sound = left > at && left + 1 < nodes.len() && usize::from(node.feature) < width;
        if !sound || !node.threshold.is_finite() {
            return None;
        }
        depths[left] = depths[left].max(depths[at] + 1);
        depths[left + 1] = depths[left + 1].max(depths[at] + 1);
    }
    depths.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stump(feature: u16, threshold: f32) -> Vec<Node> {
        let root = Node {
            threshold,
            feature,
            left: 1,
        };
        vec![root, Node::leaf(1), Node::leaf(2)]
    }

    #[test]
    fn walk_of_eight_and_walk_of_one_end_in_the_same_leaves() {
        let mut trees = BinaryTrees::new(vec![0.5]);
        for tree in 0..19u16 {
            let mut nodes = stump(tree % 4, f32::from(tree));
            if tree % 3 == 0 {
                nodes[2] = Node {
                    threshold: 20.0,
                    feature: 1,
                    left: 3,
                };
                nodes.extend([Node::leaf(3), Node::leaf(4)]);
            }
            let values: Vec<f32> = (0..nodes.len())
                .map(|at| (at * 100 + usize::from(tree)) as f32)
                .collect();
            trees.push(&nodes, &values);
        }
        for row in [[0.0, 30.0, 5.5, 9.0], [17.5, 3.0, 100.0, -2.0]] {
            assert_eq!(trees.sum(&row), trees.sums(&row)[0]);
        }
        let sizes = trees.sizes();
        let again = BinaryTrees::from_parts(vec![0.5], &sizes, trees.nodes.clone(), trees.values.clone(), 4);
        assert_eq!(again.unwrap(), trees);
    }

    #[test]
    fn nodes_that_are_no_tree_are_refused() {
        let read = |nodes: Vec<Node>, size| {
            let values = vec![0.0; nodes.len()];
            BinaryTrees::from_parts(vec![0.0], &[size], nodes, values, 4)
        };
        assert!(read(stump(0, 1.0), 3).is_some());
        assert!(read(stump(9, 1.0), 3).is_none(), "a column beyond the last");
        assert!(read(stump(0, f32::NAN), 3).is_none(), "no threshold");
        assert!(read(stump(0, 1.0), 4).is_none(), "a node too few");
        let mut looped = stump(0, 1.0);
        looped[2] = Node {
            threshold: 1.0,
            feature: 0,
            left: 0,
        };
        assert!(read(looped, 3).is_none(), "a child before its parent");
    }
}

//! The groups of a linear's columns in the order in which they are rounded, loud ones first: what is rounded early is
//! compensated by what follows, so the columns that matter most go first.

use dualgrain_device::Gram;
use dualgrain_format::GroupSize;

/// Columns that are rounded one after the other.
#[derive(Debug, Clone)]
pub struct Block {
    /// Their group.
    pub group: usize,
    /// Whether its scale and zero point may change: they are all of it.
    pub new_grid: bool,
    /// The columns, in order.
    pub columns: Vec<usize>,
}

/// Most columns of a block: a group of a whole row comes in several.
const MAX_COLUMNS: usize = 128;

/// The blocks of a linear with inputs of these statistics, the one with the loudest mean first, inside each the loudest
/// column first. Equally loud ones keep their order.
pub fn blocks_by_loudness(gram: &Gram, group_size: GroupSize) -> Vec<Block> {
    let k = gram.k();
    let loudness = |column: &usize| gram.values()[column * k + column];
    let mean = |columns: &[usize]| {
        let sum: f64 = columns.iter().map(|column| f64::from(loudness(column))).sum();
        sum / columns.len() as f64
    };
    let loudest_first =
        |columns: &mut Vec<usize>| columns.sort_by(|a, b| loudness(b).total_cmp(&loudness(a)));
    let mut blocks = blocks(k, group_size, loudest_first);
    blocks.sort_by(|a, b| mean(&b.columns).total_cmp(&mean(&a.columns)));
    blocks
}

/// The blocks of a linear `[N,K]` as they lie in its rows.
pub fn blocks_in_place(k: usize, group_size: GroupSize) -> Vec<Block> {
    blocks(k, group_size, |_| ())
}

/// The blocks of group after group, whose columns `order` brings into their order.
fn blocks(k: usize, group_size: GroupSize, order: impl Fn(&mut Vec<usize>)) -> Vec<Block> {
    let of_group = |group| {
        let mut columns: Vec<usize> = group_size.range(group, k).collect();
        order(&mut columns);
        let block = |part: &[usize]| Block {
            group,
            new_grid: columns.len() <= MAX_COLUMNS,
            columns: part.to_vec(),
        };
        columns.chunks(MAX_COLUMNS).map(block).collect::<Vec<_>>()
    };
    (0..group_size.num_groups(k)).flat_map(of_group).collect()
}

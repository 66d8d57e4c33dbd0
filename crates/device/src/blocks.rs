//! Runs of columns that are transformed together.

use dualgrain_format::MOST_HADAMARD_BLOCK;

/// What every device asks before it transforms runs of `block` columns.
///
/// # Panics
/// When `block` is no power of two, is too long or does not divide `columns`.
pub fn check_blocks(columns: usize, block: usize) {
    let fits = block.is_power_of_two() && block <= MOST_HADAMARD_BLOCK && columns.is_multiple_of(block);
    assert!(fits, "{columns} columns in blocks of {block}");
}

//! How long the blocks of a Hadamard transform are.

use dualgrain_engine::ModelConfig;

/// Channels of a block at most. A folder may have longer ones, but up to here the transform is free on a card: it happens in the
/// registers of the kernel that gates and quantizes.
const LONGEST_BLOCK: usize = 128;

/// The longest block that divides `channels`; `None` where that would be a channel alone.
pub fn hadamard_block(channels: usize) -> Option<usize> {
    let largest = 1 << channels.trailing_zeros().min(LONGEST_BLOCK.ilog2());
    (channels > 0 && largest > 1).then_some(largest)
}

/// The longest block that divides the widths of all kinds of feed-forward that a model has.
pub fn hadamard_block_of(config: &ModelConfig) -> Option<usize> {
    let blocks = config.ffn_widths().into_iter().map(hadamard_block);
    blocks.collect::<Option<Vec<_>>>()?.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_longest_that_fit() {
        let blocks = [14_336, 11_008, 768, 56, 6, 7, 0].map(hadamard_block);
        assert_eq!(
            blocks,
            [Some(128), Some(128), Some(128), Some(8), Some(2), None, None]
        );
    }
}

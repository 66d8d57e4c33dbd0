//! How many weights along K share a group scale.

use std::fmt;
use std::ops::Range;

use crate::error::FormatError;

/// How many consecutive weights along K share a group scale and zero point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupSize {
    /// 32, 64 or 128 weights; the last group of a row may be shorter.
    Along(usize),
    /// One group as long as the row (per-channel quantization, the coarse ablation).
    WholeRow,
}

impl GroupSize {
    /// All of them, the finest first.
    pub const ALL: [Self; 4] = [Self::Along(32), Self::Along(64), Self::Along(128), Self::WholeRow];

    /// A group size from a number a user gave.
    ///
    /// # Errors
    /// [`FormatError::Dimension`] unless it is 32, 64 or 128.
    pub fn new(size: usize) -> Result<Self, FormatError> {
        match size {
            32 | 64 | 128 => Ok(Self::Along(size)),
            got => Err(FormatError::Dimension {
                what: "group size",
                expected: "32, 64, 128",
                got,
            }),
        }
    }

    /// Elements of a full group in a row of `k` weights.
    pub fn len(self, k: usize) -> usize {
        match self {
            Self::Along(size) => size,
            Self::WholeRow => k,
        }
    }

    /// Groups in a row of `k` weights.
    pub fn num_groups(self, k: usize) -> usize {
        k.div_ceil(self.len(k).max(1))
    }

    /// Columns of group `group` in a row of `k` weights.
    pub fn range(self, group: usize, k: usize) -> Range<usize> {
        let len = self.len(k);
        group * len..((group + 1) * len).min(k)
    }
}

impl fmt::Display for GroupSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Along(size) => write!(f, "{size}"),
            Self::WholeRow => write!(f, "channel"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_group_is_shorter_when_the_size_does_not_divide_k() {
        let size = GroupSize::new(128).unwrap();
        assert_eq!(size.num_groups(130), 2);
        assert_eq!(size.range(1, 130), 128..130);
        assert_eq!(GroupSize::WholeRow.num_groups(130), 1);
        assert_eq!(GroupSize::WholeRow.range(0, 130), 0..130);
    }

    #[test]
    fn other_group_sizes_are_refused() {
        assert!(GroupSize::new(0).is_err());
        assert!(GroupSize::new(48).is_err());
    }
}

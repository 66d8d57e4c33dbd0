//! The number that stands for a group size in measured sets, model files, features and on the command line: the columns that
//! share a group scale, and 0 for the whole row.
//!
//! Kernels without group scales have the number 0 too, so their group size is read as [`GroupSize::WholeRow`].

use dualgrain_format::GroupSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The number of a group size.
pub fn of(size: GroupSize) -> usize {
    match size {
        GroupSize::WholeRow => 0,
        GroupSize::Along(columns) => columns,
    }
}

/// The group size that a number stands for. A number that no kernel knows stays as it is: rows are checked for it later.
pub fn group_size(number: usize) -> GroupSize {
    match number {
        0 => GroupSize::WholeRow,
        columns => GroupSize::Along(columns),
    }
}

/// For `#[serde(with = "group_number")]`.
pub(crate) fn serialize<S: Serializer>(size: &GroupSize, serializer: S) -> Result<S::Ok, S::Error> {
    of(*size).serialize(serializer)
}

/// For `#[serde(with = "group_number")]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GroupSize, D::Error> {
    usize::deserialize(deserializer).map(group_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_group_sizes_stand_for_each_other() {
        for number in [0, 32, 64, 128, 48] {
            assert_eq!(of(group_size(number)), number);
        }
        assert_eq!(group_size(0), GroupSize::WholeRow);
    }
}

//! How many weights along K share a group scale.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::error::FormatError;

/// How many consecutive weights along K share a group scale and zero point.
///
/// As text it is `32`, `64`, `128` or `channel`; in JSON a number or `"channel"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupSize {
    /// 32, 64 or 128 weights; the last group of a row may be shorter.
    Along(usize),
    /// One group as long as the row (per-channel quantization, the coarse ablation).
    WholeRow,
}

/// [`GroupSize::WholeRow`] as text.
const CHANNEL: &str = "channel";

impl GroupSize {
    /// Every group size there is, the finest first.
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
            Self::WholeRow => f.write_str(CHANNEL),
        }
    }
}

impl FromStr for GroupSize {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let found = Self::ALL.into_iter().find(|size| size.to_string() == text);
        found.ok_or_else(|| FormatError::GroupSize { got: text.to_owned() })
    }
}

impl Serialize for GroupSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Along(size) => serializer.serialize_u64(size as u64),
            Self::WholeRow => serializer.serialize_str(CHANNEL),
        }
    }
}

impl<'de> Deserialize<'de> for GroupSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrChannel)
    }
}

/// Reads [`GroupSize`] as JSON spells it.
struct NumberOrChannel;

impl Visitor<'_> for NumberOrChannel {
    type Value = GroupSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a group size: 32, 64, 128 or \"channel\"")
    }

    fn visit_u64<E: de::Error>(self, size: u64) -> Result<GroupSize, E> {
        GroupSize::new(usize::try_from(size).unwrap_or(usize::MAX)).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<GroupSize, E> {
        match word {
            CHANNEL => Ok(GroupSize::WholeRow),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
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
        for text in ["0", "48", "", "Channel", "row", "-32", "+32", "032", "128 "] {
            assert!(text.parse::<GroupSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_size_is_spelled_as_in_options_and_configurations() {
        for (text, json) in [
            ("32", "32"),
            ("64", "64"),
            ("128", "128"),
            ("channel", "\"channel\""),
        ] {
            let size: GroupSize = text.parse().unwrap();
            assert_eq!(size.to_string(), text);
            assert_eq!(serde_json::to_string(&size).unwrap(), json);
            assert_eq!(serde_json::from_str::<GroupSize>(json).unwrap(), size);
        }
    }

    #[test]
    fn json_that_is_no_group_size_is_refused_with_what_is_expected() {
        for json in ["48", "0", "-32", "\"128\"", "\"row\"", "null", "32.5", "[32]"] {
            let error = serde_json::from_str::<GroupSize>(json).unwrap_err().to_string();
            assert!(error.contains("32, 64, 128"), "{json}: {error}");
        }
    }
}

//! How one linear is stored.

use std::fmt;
use std::str::FromStr;

use crate::error::FormatError;
use crate::group_size::GroupSize;

/// How one linear is stored.
///
/// As text it is `float`, `w8` or `w4/` and a group size: `w4/32`, `w4/channel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinearScheme {
    /// `X.weight` in a float type.
    Float,
    /// `X.w8` I8 `[N,K]` and `X.s1` F32 `[N]`.
    W8,
    /// `X.q`, `X.zero`, `X.s2`, `X.s1`: the dual-grained layer.
    W4 {
        /// Weights along K that share a group scale.
        group_size: GroupSize,
    },
}

/// The word for four bits; a slash and the group size follow it.
const W4: &str = "w4";

impl LinearScheme {
    /// Four bits in groups of `group_size`.
    pub const fn w4(group_size: GroupSize) -> Self {
        Self::W4 { group_size }
    }

    /// Reads a scheme in a folder whose usual group size is `usual`: `w4` alone stands for that one. `None` for any other
    /// text.
    pub fn parse(text: &str, usual: GroupSize) -> Option<Self> {
        match text {
            W4 => Some(Self::w4(usual)),
            _ => text.parse().ok(),
        }
    }

    /// As [`Self::parse`] reads it, in as few words as it takes.
    pub fn spelled(self, usual: GroupSize) -> String {
        match self {
            Self::W4 { group_size } if group_size == usual => W4.to_owned(),
            _ => self.to_string(),
        }
    }

    /// The group size of a linear in four bits.
    pub fn group_size(self) -> Option<GroupSize> {
        match self {
            Self::W4 { group_size } => Some(group_size),
            Self::Float | Self::W8 => None,
        }
    }
}

impl FromStr for LinearScheme {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let size = text.strip_prefix(W4).and_then(|rest| rest.strip_prefix('/'));
        let known = match (text, size) {
            ("float", _) => Some(Self::Float),
            ("w8", _) => Some(Self::W8),
            (_, Some(size)) => size.parse().ok().map(Self::w4),
            _ => None,
        };
        known.ok_or_else(|| FormatError::LinearScheme { got: text.to_owned() })
    }
}

impl fmt::Display for LinearScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float => f.write_str("float"),
            Self::W8 => f.write_str("w8"),
            Self::W4 { group_size } => write!(f, "{W4}/{group_size}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_is_read_back_whatever_the_usual_group_size_is() {
        let schemes = GroupSize::ALL.map(LinearScheme::w4);
        for scheme in schemes.into_iter().chain([LinearScheme::Float, LinearScheme::W8]) {
            for usual in GroupSize::ALL {
                assert_eq!(LinearScheme::parse(&scheme.spelled(usual), usual), Some(scheme));
                assert_eq!(LinearScheme::parse(&scheme.to_string(), usual), Some(scheme));
            }
        }
    }

    #[test]
    fn four_bits_in_the_usual_groups_are_one_word() {
        let usual = GroupSize::Along(128);
        assert_eq!(LinearScheme::w4(usual).spelled(usual), "w4");
        assert_eq!(LinearScheme::w4(GroupSize::WholeRow).spelled(usual), "w4/channel");
    }

    #[test]
    fn other_words_are_no_scheme() {
        for text in [
            "", "w4/", "w4/48", "w4 /32", "W4", "w8/128", "w5", "w432", "w4/032",
        ] {
            assert_eq!(LinearScheme::parse(text, GroupSize::Along(32)), None, "{text}");
        }
    }
}

//! Which scheme each linear of the blocks gets.

use std::fmt;
use std::str::FromStr;

use dualgrain_engine::{LinearId, Role};
use dualgrain_format::{FormatError, LinearScheme};
use thiserror::Error;

/// A scheme for the linears of one role, in all blocks or in one.
///
/// As text it is `down=w8`, or `3.down=w4/32` for block 3 alone; `w4` means the run's usual groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemeRule {
    /// The block; `None` for all of them.
    pub layer: Option<usize>,
    /// The part that the linears play in their blocks.
    pub role: Role,
    /// What they become; `None` for four bits in the run's usual groups.
    pub scheme: Option<LinearScheme>,
}

/// How a rule spells the usual four bits.
const USUAL: &str = "w4";

impl SchemeRule {
    /// Whether the rule speaks of linear `id`.
    pub fn covers(&self, id: LinearId) -> bool {
        id.role == self.role && self.layer.is_none_or(|layer| layer == id.layer)
    }
}

/// Why a text is no [`SchemeRule`].
#[derive(Debug, Error)]
pub enum SchemeRuleError {
    /// There is no `=` in it.
    #[error("`{got}` has no `=`: expected ROLE=SCHEME, such as down=w8 or 3.down=w4/32")]
    NoScheme {
        /// The text.
        got: String,
    },
    /// What stands before a dot is no number.
    #[error("`{got}` is no block: expected a number, counted from 0")]
    Block {
        /// What stands there.
        got: String,
    },
    /// What stands before `=` is no role.
    #[error("`{got}` is no part of a block: expected qkv, out, up or down")]
    Role {
        /// What stands there.
        got: String,
    },
    /// What follows `=` is no scheme.
    #[error("{0}, or {USUAL} for the usual groups")]
    Scheme(#[from] FormatError),
}

impl FromStr for SchemeRule {
    type Err = SchemeRuleError;

    fn from_str(text: &str) -> Result<Self, SchemeRuleError> {
        let got = text.to_owned();
        let (linears, scheme) = text.split_once('=').ok_or(SchemeRuleError::NoScheme { got })?;
        let (layer, role) = match linears.split_once('.') {
            Some((layer, role)) => (Some(block(layer)?), role),
            None => (None, linears),
        };
        let named = Role::ALL.into_iter().find(|known| known.name() == role);
        Ok(Self {
            layer,
            role: named.ok_or_else(|| SchemeRuleError::Role { got: role.to_owned() })?,
            scheme: match scheme {
                USUAL => None,
                scheme => Some(scheme.parse()?),
            },
        })
    }
}

fn block(text: &str) -> Result<usize, SchemeRuleError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| SchemeRuleError::Block { got: text.to_owned() })
}

impl fmt::Display for SchemeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            write!(f, "{layer}.")?;
        }
        match self.scheme {
            Some(scheme) => write!(f, "{}={scheme}", self.role.name()),
            None => write!(f, "{}={USUAL}", self.role.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use dualgrain_format::GroupSize;

    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for text in [
            "down=w8",
            "5.down=w4",
            "0.qkv=w4/32",
            "17.out=float",
            "up=w4/channel",
        ] {
            assert_eq!(text.parse::<SchemeRule>().unwrap().to_string(), text);
        }
        let rule: SchemeRule = "3.up=w4/64".parse().unwrap();
        assert_eq!(rule.scheme, Some(LinearScheme::w4(GroupSize::Along(64))));
        assert!(rule.covers(LinearId::dense(3, Role::Up)));
        assert!(!rule.covers(LinearId::dense(2, Role::Up)) && !rule.covers(LinearId::dense(3, Role::Down)));
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_named() {
        for (text, words) in [
            ("down", "has no `=`"),
            ("down=", "`` is no scheme"),
            ("down=w4/48", "`w4/48` is no scheme"),
            ("head=w8", "`head` is no part"),
            ("+3.down=w8", "`+3` is no block"),
            (".down=w8", "`` is no block"),
            ("99999999999999999999999.down=w8", "is no block"),
        ] {
            let error = text.parse::<SchemeRule>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}

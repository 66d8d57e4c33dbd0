//! The methods a user can choose.

use dualgrain_device::Device;
use serde::{Deserialize, Serialize};

use crate::methods::compensate::method::Compensate;
use crate::methods::dgq::two_phase::{Dgq, Shortlist};
use crate::methods::method::Method;
use crate::methods::rtn::Rtn;

/// How the scales of a linear are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Search {
    /// Both phases of DGQ, then codes that make up for each other's rounding.
    Compensate,
    /// Both phases of DGQ; phase 2 judges exactly only the candidates that an approximation ranks best.
    TwoPhase,
    /// Both phases; phase 2 judges all eighty candidates exactly.
    Exhaustive,
    /// The whole range of every group and row, without looking at activations.
    Rtn,
}

impl Search {
    /// The method that searches so.
    pub fn method<D: Device>(self) -> Box<dyn Method<D>> {
        match self {
            Self::Compensate => Box::new(Compensate),
            Self::TwoPhase => Box::new(Dgq {
                shortlist: Shortlist::Approximate,
            }),
            Self::Exhaustive => Box::new(Dgq {
                shortlist: Shortlist::All,
            }),
            Self::Rtn => Box::new(Rtn),
        }
    }
}

impl std::fmt::Display for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Compensate => "compensate",
            Self::TwoPhase => "two-phase",
            Self::Exhaustive => "exhaustive",
            Self::Rtn => "rtn",
        })
    }
}

//! The methods a user can choose.

use dualgrain_device::Statistics;
use serde::{Deserialize, Serialize};

use crate::methods::ablation::Ablation;
use crate::methods::compensate::method::Compensate;
use crate::methods::dgq::two_phase::{Dgq, Shortlist};
use crate::methods::method::Method;
use crate::methods::rtn::Rtn;

/// Windows below which [`Search::Compensate`] corrects no weights for what was quantized before them: a correction learned
/// from 32 windows does harm on other text.
pub const LEAST_CORRECTED_WINDOWS: usize = 128;

/// How the scales of a linear are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Search {
    /// The default: both phases of DGQ, then codes that make up for each other's rounding.
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
    pub fn method<D: Statistics>(self) -> Box<dyn Method<D>> {
        self.method_without(Ablation::default())
    }

    /// As [`Self::method`], without the steps that `ablation` names; only [`Self::Compensate`] has any.
    pub fn method_without<D: Statistics>(self, ablation: Ablation) -> Box<dyn Method<D>> {
        match self {
            Self::Compensate => Box::new(Compensate { ablation }),
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

impl Search {
    /// Calibration windows unless a user says otherwise. More than [`Self::TwoPhase`] takes gain it little; of those
    /// that [`Self::Compensate`] takes, its correction of weights needs all.
    pub fn default_windows(self) -> usize {
        match self {
            Self::Compensate => LEAST_CORRECTED_WINDOWS,
            Self::TwoPhase | Self::Exhaustive | Self::Rtn => 32,
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

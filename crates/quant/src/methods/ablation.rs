//! Parts of compensation that a run can leave out, to see what each is worth.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use thiserror::Error;

/// A part of compensation that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Rounding column after column; without it the codes of DGQ's search are the only beginning.
    OrderedRounding,
    /// Choosing a group's scale and zero point again.
    Regrouping,
    /// Loud groups and columns first; without it they come as they lie.
    LoudnessOrder,
    /// Coordinate descent over single codes.
    Descent,
    /// Fitting the channel scales to the codes.
    ScaleFits,
    /// Choosing the damping by measured errors; without it a hundredth of the mean diagonal.
    DampingChoice,
    /// Moving weights to where they make up for what was quantized before them.
    Correction,
    /// Making up for what the residual stream lacks; without it only for what a linear's own input lacks.
    StreamCorrection,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::OrderedRounding,
        Self::Regrouping,
        Self::LoudnessOrder,
        Self::Descent,
        Self::ScaleFits,
        Self::DampingChoice,
        Self::Correction,
        Self::StreamCorrection,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::OrderedRounding => "ordered-rounding",
            Self::Regrouping => "regrouping",
            Self::LoudnessOrder => "loudness-order",
            Self::Descent => "descent",
            Self::ScaleFits => "scale-fits",
            Self::DampingChoice => "damping-choice",
            Self::Correction => "correction",
            Self::StreamCorrection => "stream-correction",
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no step.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected one of {}, got {got}", Step::ALL.map(Step::name).join(", "))]
pub struct StepError {
    /// The word.
    got: String,
}

impl FromStr for Step {
    type Err = StepError;

    fn from_str(text: &str) -> Result<Self, StepError> {
        let step = Self::ALL.into_iter().find(|step| step.name() == text);
        step.ok_or_else(|| StepError { got: text.to_owned() })
    }
}

/// The steps that a run leaves out; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ablation {
    left_out: [bool; Step::ALL.len()],
}

impl Ablation {
    /// Whether `step` is taken.
    pub fn has(self, step: Step) -> bool {
        !self.left_out[step as usize]
    }

    /// Whether every step is taken.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl FromIterator<Step> for Ablation {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        let mut ablation = Self::default();
        steps
            .into_iter()
            .for_each(|step| ablation.left_out[step as usize] = true);
        ablation
    }
}

impl Display for Ablation {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let left_out = Step::ALL.into_iter().filter(|&step| !self.has(step));
        f.write_str(&left_out.map(Step::name).collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_named_and_sets_know_what_they_leave_out() {
        for (index, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!((step as usize, step.to_string().parse()), (index, Ok(step)));
        }
        let message = "luck".parse::<Step>().unwrap_err().to_string();
        assert!(
            message.contains("descent") && message.ends_with("got luck"),
            "{message}"
        );
        let ablation: Ablation = [Step::Descent, Step::Regrouping].into_iter().collect();
        assert!(!ablation.has(Step::Descent) && ablation.has(Step::Correction) && !ablation.is_empty());
        assert_eq!(ablation.to_string(), "regrouping descent");
    }
}

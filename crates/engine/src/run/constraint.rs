//! What an answer must look like, as far as the scheduler knows: which tokens may come next, and when it is complete.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use dualgrain_device::sampling::TokenMask;
use thiserror::Error;

/// A rule that answers must follow, shared by all requests that ask for it.
pub trait Constraint: Debug + Send + Sync {
    /// The state before the first token of an answer.
    ///
    /// # Errors
    /// The rule can not be followed.
    fn begin(&self) -> Result<Box<dyn ConstraintState>, ConstraintError>;
}

/// How far an answer has followed its rule. It is asked and told in turn: what may come next, then what came.
pub trait ConstraintState: Send {
    /// Allows in `mask`, which forbids all tokens, those that may come next. End tokens are not its affair.
    ///
    /// # Errors
    /// The next tokens can not be found, e.g. within a limit on the work for them: the sequence fails.
    fn allow_next(&mut self, mask: &mut TokenMask) -> Result<Next, ConstraintError>;

    /// Takes the token that came.
    ///
    /// # Errors
    /// The rule has no place for it: the sequence fails.
    fn accept(&mut self, token: u32) -> Result<Progress, ConstraintError>;
}

/// Whether an answer may end where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// More must come.
    MustGoOn,
    /// It may end, or go on with what the mask allows.
    MayEnd,
}

/// Where an answer stands after a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More may come.
    Open,
    /// Nothing can follow: the answer is complete, and ends without an end token.
    Complete,
}

/// Why a constraint can not be followed further.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("the constraint on the answer failed: {what}")]
pub struct ConstraintError {
    /// What happened.
    pub what: String,
}

/// A constraint that a request carries; two are equal where they are the same one.
#[derive(Debug, Clone)]
pub struct SharedConstraint(pub Arc<dyn Constraint>);

impl PartialEq for SharedConstraint {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The constraint of one sequence. A panic inside is an error of that sequence alone.
pub(super) struct Constrained {
    state: Result<Box<dyn ConstraintState>, ConstraintError>,
}

impl Constrained {
    pub(super) fn new(constraint: &SharedConstraint) -> Self {
        Self {
            state: caught(|| constraint.0.begin()),
        }
    }

    /// As [`ConstraintState::allow_next`], with `end_tokens` allowed where the answer may end and forbidden elsewhere.
    pub(super) fn allow_next(
        &mut self,
        mask: &mut TokenMask,
        end_tokens: &[u32],
    ) -> Result<(), ConstraintError> {
        mask.clear();
        let next = self.try_with(|state| state.allow_next(mask))?;
        for &token in end_tokens {
            match next {
                Next::MayEnd => mask.allow(token),
                Next::MustGoOn => mask.forbid(token),
            }
        }
        Ok(())
    }

    /// As [`ConstraintState::accept`].
    pub(super) fn accept(&mut self, token: u32) -> Result<Progress, ConstraintError> {
        self.try_with(|state| state.accept(token))
    }

    /// After an error nothing is asked of the state again: it may have broken off anywhere.
    fn try_with<T>(
        &mut self,
        work: impl FnOnce(&mut dyn ConstraintState) -> Result<T, ConstraintError>,
    ) -> Result<T, ConstraintError> {
        let state = self.state.as_mut().map_err(|error| error.clone())?;
        let done = caught(|| work(state.as_mut()));
        if let Err(error) = &done {
            self.state = Err(error.clone());
        }
        done
    }
}

impl Debug for Constrained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let failed = self.state.as_ref().err();
        f.debug_struct("Constrained").field("failed", &failed).finish()
    }
}

/// What `work` gives; its panic as an error.
fn caught<T>(work: impl FnOnce() -> Result<T, ConstraintError>) -> Result<T, ConstraintError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        let what = format!("it panicked: {}", words.unwrap_or("without a message"));
        Err(ConstraintError { what })
    })
}

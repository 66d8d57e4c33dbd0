//! A compiled grammar as the engine's constraint.

use std::fmt::{Debug, Formatter};

use dualgrain::engine::{Constraint, ConstraintError, ConstraintState, Next, Progress, TokenMask};
use llguidance::Matcher;
use llguidance::api::StopReason;

/// A grammar before the first token.
pub struct Compiled {
    /// Not begun: every answer begins with a copy.
    matcher: Matcher,
    end_token: u32,
}

/// An answer under way.
struct Following {
    matcher: Matcher,
    end_token: u32,
}

impl Compiled {
    /// `end_token` is the one that stands for the end in the grammar's masks.
    pub fn new(matcher: Matcher, end_token: u32) -> Self {
        Self { matcher, end_token }
    }
}

impl Debug for Compiled {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compiled")
    }
}

impl Constraint for Compiled {
    fn begin(&self) -> Result<Box<dyn ConstraintState>, ConstraintError> {
        Ok(Box::new(Following {
            // Copies of the lexer too: nobody waits for another answer's lock.
            matcher: self.matcher.deep_clone(),
            end_token: self.end_token,
        }))
    }
}

impl ConstraintState for Following {
    fn allow_next(&mut self, mask: &mut TokenMask) -> Result<Next, ConstraintError> {
        let allowed = self.matcher.compute_mask().map_err(failed)?;
        mask.copy_from(allowed.as_slice());
        mask.forbid(self.end_token);
        match self.matcher.is_accepting().map_err(failed)? {
            true => Ok(Next::MayEnd),
            false => Ok(Next::MustGoOn),
        }
    }

    fn accept(&mut self, token: u32) -> Result<Progress, ConstraintError> {
        self.matcher.consume_token(token).map_err(failed)?;
        match self.matcher.stop_reason() {
            StopReason::NotStopped => Ok(Progress::Open),
            StopReason::NoExtension | StopReason::EndOfSentence => Ok(Progress::Complete),
            other => Err(ConstraintError {
                what: format!("the grammar stopped: {other:?}"),
            }),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> ConstraintError {
    let what = error.to_string();
    ConstraintError { what }
}

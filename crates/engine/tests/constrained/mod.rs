//! A constraint that tells what it was told wrongly: tokens go round through the classes of a modulus.

use dualgrain_device::sampling::TokenMask;
use dualgrain_engine::{Constraint, ConstraintError, ConstraintState, Next, Progress};

/// Token i of an answer is i modulo `modulus`; the answer may end after half of `len` tokens and is complete after all.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub modulus: u32,
    pub len: usize,
    /// A token that never comes.
    pub never: Option<u32>,
    /// After so many tokens it fails.
    pub fails_after: Option<usize>,
    /// It fails by a panic.
    pub panics: bool,
}

struct State {
    rule: Round,
    count: usize,
}

impl Round {
    pub fn allows(&self, place: usize, token: u32) -> bool {
        token % self.modulus == place as u32 % self.modulus && Some(token) != self.never
    }
}

impl Constraint for Round {
    fn begin(&self) -> Result<Box<dyn ConstraintState>, ConstraintError> {
        Ok(Box::new(State {
            rule: *self,
            count: 0,
        }))
    }
}

impl ConstraintState for State {
    fn allow_next(&mut self, mask: &mut TokenMask) -> Result<Next, ConstraintError> {
        if self.rule.fails_after == Some(self.count) {
            assert!(!self.rule.panics, "a constraint that panics");
            let what = "a constraint that fails".to_owned();
            return Err(ConstraintError { what });
        }
        let tokens = 0..mask.vocab_size() as u32;
        tokens
            .filter(|&token| self.rule.allows(self.count, token))
            .for_each(|token| mask.allow(token));
        Ok(match 2 * self.count >= self.rule.len {
            true => Next::MayEnd,
            false => Next::MustGoOn,
        })
    }

    fn accept(&mut self, token: u32) -> Result<Progress, ConstraintError> {
        assert!(
            self.rule.allows(self.count, token),
            "token {token} at place {}",
            self.count
        );
        self.count += 1;
        Ok(match self.count >= self.rule.len {
            true => Progress::Complete,
            false => Progress::Open,
        })
    }
}

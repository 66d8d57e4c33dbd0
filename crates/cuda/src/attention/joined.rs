//! Attention of steps that decode, in one kernel with what stands around it: the rotation of queries and keys, the keys and values into the
//! cache, and the codes that the next product takes.

use dualgrain_device::{ActivationScale, Columns};

use super::arguments::AttentionArgs;
use super::attend::{Attention, Joined};
use super::paged_cache::PagedCache;
use super::step_tokens::StepTokens;
use super::workspace::AttentionWorkspace;
use crate::driver::Buffer;
use crate::error::CudaError;
use crate::fit::at_least;
use crate::gemm::QuantizedTokens;

/// Where outputs of attention go.
pub enum Attended<'a> {
    /// `[tokens, num_heads * head_dim]` f32.
    Floats(&'a Buffer),
    /// Codes of as many tokens and elements, with their sums and scales.
    Codes(&'a mut QuantizedTokens, ActivationScale),
}

impl Attention {
    /// Whether [`Self::launch_joined`] takes a step: there is a kernel that rotates heads of this length over such a cache, and no two
    /// tokens are of one sequence.
    pub fn joins(&self, step: &StepTokens) -> bool {
        self.joined.is_some() && step.is_single()
    }

    /// Whether [`Self::launch_joined`] makes codes of a step that it takes: of few tokens.
    pub fn makes_codes(&self, step: &StepTokens) -> bool {
        self.joins(step) && !step.may_be_whole()
    }

    /// As [`CacheWrite::launch_rotated`](super::CacheWrite::launch_rotated) and [`Self::launch`] in one kernel, or these and
    /// [`Quantize`](crate::Quantize). Angles are read as early; `x` keeps its queries as they were.
    ///
    /// # Errors
    /// As [`Self::launch`]; angles that are not the step's.
    ///
    /// # Panics
    /// As [`Self::launch`]; codes that are not the step's; where [`Self::joins`], or for codes [`Self::makes_codes`], says no.
    pub fn launch_joined(
        &self,
        out: Attended<'_>,
        (x, x_columns): (&Buffer, usize),
        [queries, keys, values]: [Columns; 3],
        angles: &Buffer,
        (cache, layer): (&mut PagedCache, usize),
        (step, workspace): (&StepTokens, &AttentionWorkspace),
    ) -> Result<(), CudaError> {
        let Some(Joined { codes, floats }) = self.joined.as_ref().filter(|_| step.is_single()) else {
            panic!("a step or heads of {} elements that nothing joins", self.head_dim)
        };
        let tokens = step.num_tokens();
        at_least("queries, keys and values", 4 * tokens * x_columns, x)?;
        at_least("angles", 4 * tokens * self.head_dim, angles)?;
        for (columns, heads) in [
            (&queries, self.params.num_heads),
            (&keys, self.kv_heads),
            (&values, self.kv_heads),
        ] {
            assert!(
                columns.len() == heads * self.head_dim && columns.end <= x_columns,
                "columns {columns:?} of {x_columns} for {heads} heads of {}",
                self.head_dim
            );
        }
        self.check_fit(cache, step, workspace);
        let first_of = |columns: &Columns| columns.start as i32 - queries.start as i32;
        let query_x = x.address() + 4 * queries.start as u64;
        let mut args = self.arguments((query_x, x_columns), (cache, layer), step, workspace);
        args.keys_first = first_of(&keys);
        args.values_first = first_of(&values);
        args.angles = angles.address();
        let ready = match out {
            Attended::Floats(_) => floats,
            Attended::Codes(..) => codes,
        };
        self.name_outputs(&mut args, out, step, workspace)?;
        match tokens {
            0 => Ok(()),
            _ => self.start(ready, ready.resident, args),
        }
    }

    fn name_outputs(
        &self,
        args: &mut AttentionArgs,
        out: Attended<'_>,
        step: &StepTokens,
        workspace: &AttentionWorkspace,
    ) -> Result<(), CudaError> {
        let (tokens, width) = (step.num_tokens(), self.params.num_heads * self.head_dim);
        match out {
            Attended::Floats(out) => {
                at_least("output of attention", 4 * tokens * width, out)?;
                args.out = out.address();
            }
            Attended::Codes(out, scale) => {
                assert!(
                    self.makes_codes(step),
                    "codes of {tokens} tokens that may go whole"
                );
                assert_eq!(out.shape(), (tokens, width), "codes of attention");
                args.rows = workspace.rows.address();
                args.finished = workspace.finished.address();
                (args.codes, args.code_sums, args.code_scales) = out.addresses();
                args.code_row = out.row_bytes() as i32;
                args.code_scale = match scale {
                    ActivationScale::PerToken => 0.0,
                    ActivationScale::Static(scale) => scale,
                };
            }
        }
        Ok(())
    }
}

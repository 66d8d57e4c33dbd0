//! Attention of steps that decode, in one kernel with what stands around it: the rotation of queries and keys, the keys and values into the
//! cache, and the codes that the next product takes.

use dualgrain_device::{ActivationScale, Columns};

use super::attend::{Attention, AttentionArgs, AttentionWorkspace, Joined};
use super::paged_cache::PagedCache;
use super::step_tokens::StepTokens;
use crate::driver::Buffer;
use crate::error::CudaError;
use crate::fit::at_least;
use crate::gemm::QuantizedTokens;

impl Attention {
    /// Whether [`Self::launch_joined`] takes a step: there is a kernel that rotates heads of this length over such a cache, and no two
    /// tokens are of one sequence.
    pub fn joins(&self, step: &StepTokens) -> bool {
        self.joined.is_some() && step.is_single()
    }

    /// As [`CacheWrite::launch_rotated`](super::CacheWrite::launch_rotated), [`Self::launch`] and [`Quantize`](crate::Quantize) in one
    /// kernel: `out` gets as many tokens as the step has, of `num_heads * head_dim` codes. Angles are read as early; `x` keeps its queries as
    /// they were.
    ///
    /// # Errors
    /// As [`Self::launch`]; angles that are not the step's.
    ///
    /// # Panics
    /// As [`Self::launch`]; codes that are not the step's; where [`Self::joins`] says no.
    pub fn launch_joined(
        &self,
        (out, scale): (&mut QuantizedTokens, ActivationScale),
        (x, x_columns): (&Buffer, usize),
        [queries, keys, values]: [Columns; 3],
        angles: &Buffer,
        (cache, layer): (&mut PagedCache, usize),
        (step, workspace): (&StepTokens, &AttentionWorkspace),
    ) -> Result<(), CudaError> {
        let Some(Joined { few, many }) = self.joined.as_ref().filter(|_| step.is_single()) else {
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
        self.name_outputs(&mut args, (out, scale), tokens, workspace);
        let ready = if step.may_be_whole() { many } else { few };
        match tokens {
            0 => Ok(()),
            _ => self.start(ready, ready.resident, args),
        }
    }

    fn name_outputs(
        &self,
        args: &mut AttentionArgs,
        (out, scale): (&mut QuantizedTokens, ActivationScale),
        tokens: usize,
        workspace: &AttentionWorkspace,
    ) {
        let shape = (tokens, self.params.num_heads * self.head_dim);
        assert_eq!(out.shape(), shape, "codes of attention");
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

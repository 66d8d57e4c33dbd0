//! Rows of activations sorted for the experts of a mixture: those of one expert lie as if they were all there are.

use std::ops::Range;

use dualgrain_device::{ExpertInput, HostRouting, RoutingShape};
use dualgrain_threads::{Pool, SharedSlice};

use super::quantized::{AMX_TILE_CODES, AMX_TILE_ROWS, CodeRows, Layout, SUM_BLOCK, layout};
use crate::isa::Isa;

/// Buffers for the sorted rows of a step.
#[derive(Debug)]
pub(crate) struct SortedRows {
    quads: Vec<[i8; 4]>,
    /// `[rows]`
    scales: Vec<f32>,
    /// `[rows, blocks]`
    block_sums: Vec<i32>,
    /// `[rows, columns]`; grows when floats are sorted first, which experts in integers never do.
    floats: Vec<f32>,
}

/// The rows of one expert among the sorted ones.
pub(crate) struct ExpertRows {
    pub(crate) expert: usize,
    pub(crate) rows: Range<usize>,
    first_quad: usize,
}

impl SortedRows {
    /// Room for the rows of `shape`.
    pub(crate) fn new(shape: RoutingShape) -> Self {
        let rows = shape.tokens.saturating_mul(shape.num_chosen);
        // What fills up the tiles of each expert is less than a tile, and less than its rows.
        let padded = rows.saturating_add(rows.min(shape.num_experts * AMX_TILE_ROWS));
        let row_quads = shape.columns.next_multiple_of(AMX_TILE_CODES) / 4;
        Self {
            quads: Vec::with_capacity(padded * row_quads),
            scales: Vec::with_capacity(rows),
            block_sums: Vec::with_capacity(rows * shape.columns.div_ceil(SUM_BLOCK)),
            floats: Vec::new(),
        }
    }

    /// Copies the rows that experts read of `a`, and says where those of each expert lie.
    pub(crate) fn sort_codes(
        &mut self,
        pool: &Pool,
        (a, input): (CodeRows<'_>, ExpertInput),
        routing: &HostRouting,
    ) -> Vec<ExpertRows> {
        let (experts, num_quads) = places(a.isa, a.columns, routing);
        let blocks = a.columns.div_ceil(SUM_BLOCK);
        self.quads.resize(num_quads, [0; 4]);
        self.scales.resize(routing.num_rows(), 0.0);
        self.block_sums.resize(routing.num_rows() * blocks, 0);
        let quads = SharedSlice::new(&mut self.quads);
        let (scales, sums) = (
            SharedSlice::new(&mut self.scales),
            SharedSlice::new(&mut self.block_sums),
        );
        let operations = routing.num_rows() * a.columns;
        pool.run_if_worth(operations, experts.len(), |place| {
            let ExpertRows { rows, first_quad, .. } = &experts[place];
            let to = layout(a.isa, a.columns, rows.len());
            let all = rows.len().next_multiple_of(to.tile_rows) * to.row_quads;
            // SAFETY: each expert's rows belong to one task.
            let (quads, scales, sums) = unsafe {
                (
                    quads.range(*first_quad..first_quad + all),
                    scales.range(rows.clone()),
                    sums.range(rows.start * blocks..rows.end * blocks),
                )
            };
            for (local, row) in rows.clone().enumerate() {
                let source = input.row(row, routing);
                copy_codes(a, source, (to, local), quads);
                scales[local] = a.scales[source];
                sums[local * blocks..(local + 1) * blocks].copy_from_slice(a.block_sums(source));
            }
        });
        experts
    }

    /// What [`Self::sort_codes`] put there of `a` for one expert.
    pub(crate) fn codes(&self, a: CodeRows<'_>, of: &ExpertRows) -> CodeRows<'_> {
        let CodeRows { columns, isa, .. } = a;
        let blocks = columns.div_ceil(SUM_BLOCK);
        CodeRows {
            rows: of.rows.len(),
            columns,
            isa,
            quads: &self.quads[of.first_quad..],
            scales: &self.scales[of.rows.clone()],
            block_sums: &self.block_sums[of.rows.start * blocks..of.rows.end * blocks],
        }
    }

    /// The rows that experts read of `a` `[_, columns]`.
    pub(crate) fn sort_floats(&mut self, a: &[f32], columns: usize, routing: &HostRouting) -> &[f32] {
        self.floats.clear();
        self.floats.reserve_exact(routing.num_rows() * columns);
        for &token in routing.tokens() {
            let start = token as usize * columns;
            self.floats.extend_from_slice(&a[start..start + columns]);
        }
        &self.floats
    }
}

/// Where the rows of each expert that has some begin, and how many quads all of them take.
fn places(isa: Isa, columns: usize, routing: &HostRouting) -> (Vec<ExpertRows>, usize) {
    let (mut experts, mut first_quad) = (Vec::new(), 0);
    for expert in 0..routing.shape().num_experts {
        let rows = routing.rows_of(expert);
        if rows.is_empty() {
            continue;
        }
        let layout = layout(isa, columns, rows.len());
        let quads = rows.len().next_multiple_of(layout.tile_rows) * layout.row_quads;
        experts.push(ExpertRows {
            expert,
            rows,
            first_quad,
        });
        first_quad += quads;
    }
    (experts, first_quad)
}

/// Copies the codes of a row to another layout; what pads a row stays or becomes zero.
fn copy_codes(a: CodeRows<'_>, source: usize, (to, row): (Layout, usize), quads: &mut [[i8; 4]]) {
    let from = a.layout();
    let (source, target) = (&a.quads[from.row(source)..], &mut quads[to.row(row)..]);
    let num_quads = a.columns.div_ceil(SUM_BLOCK) * SUM_BLOCK / 4;
    for quad in 0..num_quads {
        target[to.quad(quad)] = source[from.quad(quad)];
    }
    for quad in num_quads..to.row_quads {
        target[to.quad(quad)] = [0; 4];
    }
}

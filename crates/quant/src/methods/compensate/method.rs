//! The method: DGQ's search, then several beginnings, each refined; a row keeps the one with the least exact error, and
//! DGQ's own codes where nothing is better.

use dualgrain_device::{Gram, Statistics};
use dualgrain_format::{GroupSize, LinearWeights, QuantizedLinear, QuantizedParts, int4};

use crate::error::QuantError;
use crate::methods::ablation::{Ablation, Step};
use crate::methods::buffers::{ROW_BUFFER_BYTES, rows_per_buffer};
use crate::methods::compensate::block::{Block, blocks_by_loudness, blocks_in_place};
use crate::methods::compensate::damping::{DAMPINGS, SAMPLE_ROWS, USUAL_DAMPING, best_factor};
use crate::methods::compensate::factor::{OrderedFactor, scaled_matrix};
use crate::methods::compensate::ordered::round_in_order;
use crate::methods::compensate::refine::{PASSES, refine};
use crate::methods::compensate::rows::bundle::Bundle;
use crate::methods::compensate::rows::lanes::LANES;
use crate::methods::compensate::rows::tile::Tile;
use crate::methods::dgq::two_phase::{Dgq, Shortlist};
use crate::methods::method::{LinearTask, Method, MethodReport, Resources};

/// Rounding with compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compensate {
    /// What it leaves out.
    pub ablation: Ablation,
}

/// Its beginning.
const DGQ: Dgq = Dgq {
    shortlist: Shortlist::Approximate,
};

/// Beginnings that are refined: DGQ's codes, and codes rounded in order.
const BEGINNINGS: usize = 2;

impl<D: Statistics> Method<D> for Compensate {
    fn quantize(
        &self,
        resources: &Resources<'_, D>,
        task: &LinearTask<'_>,
    ) -> Result<(LinearWeights, MethodReport), QuantError> {
        let (start, mut report) = DGQ.quantize(resources, task)?;
        let LinearWeights::W4(start) = start else {
            return Ok((start, report));
        };
        let (k, group_size) = (task.rows.k, task.group_size);
        let compensation = Compensation::new((self.ablation, resources), task, &start)?;
        let rows_at_once = rows_per_buffer(ROW_BUFFER_BYTES, k).next_multiple_of(LANES);
        let mut parts = QuantizedParts {
            q: Vec::with_capacity(start.parts().q.len()),
            zero: Vec::with_capacity(start.parts().zero.len()),
            s2: Vec::with_capacity(start.parts().s2.len()),
            s1: Vec::with_capacity(start.n()),
            ..start.parts().clone()
        };
        report.error = 0.0;
        for (idx, weights) in task.rows.weights.chunks(k * rows_at_once).enumerate() {
            let (tile, objectives) = compensation.best_of_beginnings(weights, &start, idx * rows_at_once)?;
            report.error += objectives.iter().sum::<f64>();
            encode_tile(&tile, &mut parts);
            let rows = weights.len() / k;
            resources
                .meter
                .advance(rows as u64 * row_multiply_adds(k, group_size))?;
        }
        let linear = QuantizedLinear::new((start.n(), k), group_size, parts)?;
        Ok((LinearWeights::W4(linear), report))
    }

    fn multiply_adds(&self, (n, k): (usize, usize), group_size: GroupSize) -> u64 {
        let search = Method::<D>::multiply_adds(&DGQ, (n, k), group_size);
        search + n as u64 * row_multiply_adds(k, group_size) + sample_multiply_adds(k, group_size)
    }
}

/// What all rows of a linear share.
struct Compensation<'a, D: Statistics> {
    ablation: Ablation,
    resources: &'a Resources<'a, D>,
    gram: &'a Gram,
    /// The whole Gram matrix, its diagonal 1 in the mean.
    matrix: Vec<f32>,
    blocks: Vec<Block>,
    factor: OrderedFactor,
}

impl<'a, D: Statistics> Compensation<'a, D> {
    fn new(
        (ablation, resources): (Ablation, &'a Resources<'a, D>),
        task: &LinearTask<'a>,
        start: &QuantizedLinear,
    ) -> Result<Self, QuantError> {
        let gram = &task.statistics.gram;
        let blocks = blocks(gram, task.group_size, ablation);
        let (matrix, _) = scaled_matrix(gram);
        let machine = (resources.device, resources.pool);
        let rows = (task.rows.weights, start);
        let dampings = match ablation.has(Step::DampingChoice) {
            true => &DAMPINGS[..],
            false => &[USUAL_DAMPING],
        };
        let factor = best_factor(machine, (gram, &matrix), &blocks, rows, dampings)?;
        resources
            .meter
            .advance(sample_multiply_adds(task.rows.k, task.group_size))?;
        Ok(Self {
            ablation,
            resources,
            gram,
            matrix,
            blocks,
            factor,
        })
    }

    /// The rows `weights` with the best codes found, and the exact objective of each; `start` has them from row `first`
    /// on.
    fn best_of_beginnings(
        &self,
        weights: &[f32],
        start: &QuantizedLinear,
        first: usize,
    ) -> Result<(Tile, Vec<f64>), QuantError> {
        let machine = (self.resources.device, self.resources.pool);
        let mut best = Tile::new(self.resources.pool, weights, start, first);
        let mut objectives = best.objectives(machine, self.gram)?;
        let mut beginnings = vec![best.clone()];
        if self.ablation.has(Step::OrderedRounding) {
            let mut ordered = best.clone();
            round_in_order(machine, &self.factor, &self.blocks, &mut ordered)?;
            beginnings.push(ordered);
        }
        for mut tile in beginnings {
            refine(machine, &self.matrix, &self.blocks, &mut tile, self.ablation)?;
            let others = tile.objectives(machine, self.gram)?;
            best.take_better(&mut objectives, &tile, &others);
            self.resources.meter.check()?;
        }
        Ok((best, objectives))
    }
}

/// The columns in the order in which they are rounded.
fn blocks(gram: &Gram, group_size: GroupSize, ablation: Ablation) -> Vec<Block> {
    let mut blocks = match ablation.has(Step::LoudnessOrder) {
        true => blocks_by_loudness(gram, group_size),
        false => blocks_in_place(gram.k(), group_size),
    };
    for block in &mut blocks {
        block.new_grid &= ablation.has(Step::Regrouping);
    }
    blocks
}

fn encode_tile(tile: &Tile, parts: &mut QuantizedParts) {
    for row in 0..tile.num_rows {
        encode_row(&tile.bundles[row / LANES], row % LANES, tile.group_size, parts);
    }
}

fn encode_row(bundle: &Bundle, lane: usize, group_size: GroupSize, parts: &mut QuantizedParts) {
    let k = bundle.weights.len();
    let zeros: Vec<u8> = bundle.zero.iter().map(|zero| zero[lane]).collect();
    let mut codes = vec![0; k];
    for (group, &zero) in zeros.iter().enumerate() {
        for column in group_size.range(group, k) {
            codes[column] = (f32::from(zero) + bundle.steps[column][lane]) as u8;
        }
    }
    int4::pack_row(&codes, zeros.last().copied().unwrap_or(0), &mut parts.q);
    int4::pack_row(&zeros, 0, &mut parts.zero);
    parts.s2.extend(bundle.s2.iter().map(|s2| s2[lane]));
    parts.s1.push(bundle.s1[lane]);
}

/// Multiply-adds on one row after DGQ's search.
fn row_multiply_adds(k: usize, group_size: GroupSize) -> u64 {
    let (k, group) = (k as u64, group_size.len(k).min(k) as u64);
    let passes = BEGINNINGS as u64 * (PASSES as u64 + 1) + 1;
    // Loops over lanes run at about a fourth of the speed of a product.
    passes * k * k + 4 * BEGINNINGS as u64 * k * group * 15
}

/// Multiply-adds of the factors and of the sample that chooses one.
fn sample_multiply_adds(k: usize, group_size: GroupSize) -> u64 {
    let factor = (k as u64).pow(3) / 6;
    DAMPINGS.len() as u64 * (factor + SAMPLE_ROWS as u64 * row_multiply_adds(k, group_size) / 8)
}

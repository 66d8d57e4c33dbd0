//! The two phases one after the other, over buffers of bounded size.

use dualgrain_device::{Gram, Statistics};
use dualgrain_format::{GroupSize, LinearWeights};

use crate::error::QuantError;
use crate::methods::buffers::{GROUP_BUFFER_BYTES, ROW_BUFFER_BYTES, rows_per_buffer};
use crate::methods::dgq::approximate_gram::{ApproximateGram, diagonal_blocks};
use crate::methods::dgq::candidates::{NUM_CHANNEL_RATIOS, NUM_GROUP_RATIOS, SHORTLIST, channel_ratio};
use crate::methods::dgq::channel_search::{ChannelChoice, best_of, shortlist};
use crate::methods::dgq::group_search::search_groups;
use crate::methods::dgq::multiply_adds::RowMultiplyAdds;
use crate::methods::encode::encode;
use crate::methods::group_scale::GroupScale;
use crate::methods::grouped_row::GroupedRow;
use crate::methods::method::{LinearTask, Method, MethodReport, Resources};
use crate::methods::output_error::{output_energy, output_error};

/// Which candidates of phase 2 are judged with the full Gram matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortlist {
    /// Those that an approximation of the Gram matrix ranks best.
    Approximate,
    /// All.
    All,
}

/// DGQ's search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dgq {
    /// How phase 2 chooses whom to judge.
    pub shortlist: Shortlist,
}

impl<D: Statistics> Method<D> for Dgq {
    fn quantize(
        &self,
        resources: &Resources<'_, D>,
        task: &LinearTask<'_>,
    ) -> Result<(LinearWeights, MethodReport), QuantError> {
        let (weights, k) = (task.rows.weights, task.rows.k);
        let (device, gram) = (resources.device, &task.statistics.gram);
        let groups = self.search_all_groups(resources, task)?;
        let rows = GroupedRow::all(weights, k, &groups, task.group_size);
        let energy = || output_energy(device, gram, weights);
        if task.group_size == GroupSize::WholeRow {
            let s1: Vec<f32> = rows.iter().map(GroupedRow::whole_s1).collect();
            let linear = encode(task, &rows, &s1)?;
            let report = MethodReport {
                error: output_error(device, gram, weights, &linear)?,
                energy: energy()?,
                ratio_histogram: Vec::new(),
            };
            return Ok((LinearWeights::W4(linear), report));
        }
        let choices = self.search_all_channels(resources, &rows, gram)?;
        let chosen = rows.iter().zip(&choices);
        let s1: Vec<f32> = chosen
            .map(|(row, choice)| row.s1(channel_ratio(choice.ratio_idx)))
            .collect();
        let linear = encode(task, &rows, &s1)?;
        let report = MethodReport {
            error: choices.iter().map(|choice| choice.objective).sum(),
            energy: energy()?,
            ratio_histogram: histogram(&choices),
        };
        Ok((LinearWeights::W4(linear), report))
    }

    fn multiply_adds(&self, (n, k): (usize, usize), group_size: GroupSize) -> u64 {
        n as u64 * self.row_multiply_adds(k, group_size).total()
    }
}

impl Dgq {
    /// Phase 1 over all rows; [N, groups].
    fn search_all_groups<D: Statistics>(
        &self,
        resources: &Resources<'_, D>,
        task: &LinearTask<'_>,
    ) -> Result<Vec<GroupScale>, QuantError> {
        let (k, group_size) = (task.rows.k, task.group_size);
        let gram = &task.statistics.gram;
        let cut = match group_size {
            GroupSize::Along(_) => diagonal_blocks(gram, group_size),
            GroupSize::WholeRow => Vec::new(),
        };
        let blocks: Vec<&Gram> = match group_size {
            GroupSize::Along(_) => cut.iter().collect(),
            GroupSize::WholeRow => vec![gram],
        };
        let blocks = blocks.into_iter().map(|block| resources.device.view_gram(block));
        let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        let per_row = self.row_multiply_adds(k, group_size).groups;
        let rows_at_once = rows_per_buffer(GROUP_BUFFER_BYTES, NUM_GROUP_RATIOS * group_size.len(k));
        let num_groups = task.rows.weights.len() / k * group_size.num_groups(k);
        let mut scales = Vec::with_capacity(num_groups);
        for weights in task.rows.weights.chunks(k * rows_at_once) {
            let machine = (resources.device, resources.pool);
            scales.extend(search_groups(machine, weights, k, group_size, &blocks)?);
            resources.meter.advance(per_row * (weights.len() / k) as u64)?;
        }
        Ok(scales)
    }

    /// Phase 2 over all rows; [N].
    fn search_all_channels<D: Statistics>(
        &self,
        resources: &Resources<'_, D>,
        rows: &[GroupedRow<'_>],
        gram: &Gram,
    ) -> Result<Vec<ChannelChoice>, QuantError> {
        let Some(first) = rows.first() else {
            return Ok(Vec::new());
        };
        let (k, group_size) = (gram.k(), first.group_size());
        let approximate = self.shortlist == Shortlist::Approximate && group_size.num_groups(k) > 1;
        let (per_row, candidates) = if approximate {
            (SHORTLIST, self.shortlists(resources, rows, gram)?)
        } else {
            let all: Vec<u8> = (0..NUM_CHANNEL_RATIOS as u8).collect();
            (NUM_CHANNEL_RATIOS, all.repeat(rows.len()))
        };
        let view = resources.device.view_gram(gram)?;
        let exact = self.row_multiply_adds(k, group_size).exact;
        let rows_at_once = rows_per_buffer(ROW_BUFFER_BYTES, per_row * k);
        let mut choices = Vec::with_capacity(rows.len());
        let tiles = rows
            .chunks(rows_at_once)
            .zip(candidates.chunks(rows_at_once * per_row));
        for (rows, candidates) in tiles {
            let machine = (resources.device, resources.pool);
            choices.extend(best_of(machine, &view, rows, candidates)?);
            resources.meter.advance(exact * rows.len() as u64)?;
        }
        Ok(choices)
    }

    /// The candidates of every row that the approximation ranks best, [N, SHORTLIST].
    fn shortlists<D: Statistics>(
        &self,
        resources: &Resources<'_, D>,
        rows: &[GroupedRow<'_>],
        gram: &Gram,
    ) -> Result<Vec<u8>, QuantError> {
        let (k, group_size) = (gram.k(), rows[0].group_size());
        let approximate = ApproximateGram::new(gram, group_size);
        let per_row = self.row_multiply_adds(k, group_size).shortlist;
        let mut candidates = Vec::with_capacity(rows.len() * SHORTLIST);
        let rows_at_once = rows_per_buffer(GROUP_BUFFER_BYTES, NUM_CHANNEL_RATIOS * group_size.len(k));
        for rows in rows.chunks(rows_at_once) {
            let machine = (resources.device, resources.pool);
            candidates.extend(shortlist(machine, &approximate, rows)?);
            resources.meter.advance(per_row * rows.len() as u64)?;
        }
        Ok(candidates)
    }

    fn row_multiply_adds(&self, k: usize, group_size: GroupSize) -> RowMultiplyAdds {
        RowMultiplyAdds::new(k, group_size, self.shortlist == Shortlist::Approximate)
    }
}

/// How many rows chose each ratio.
fn histogram(choices: &[ChannelChoice]) -> Vec<u32> {
    let mut counts = vec![0; NUM_CHANNEL_RATIOS];
    choices.iter().for_each(|choice| counts[choice.ratio_idx] += 1);
    counts
}

//! One linear layer from float to dual-grained 4 bits: both phases over bounded buffers, then the codes.

use dualgrain_device::{Device, Gram};
use dualgrain_format::{FormatError, GroupSize, QuantizedLinear, QuantizedParts, int4};

use crate::error::QuantError;
use crate::methods::dgq::approximate_gram::{Screen, diagonal_blocks};
use crate::methods::dgq::channel_search::{
    ChannelChoice, NUM_CHANNEL_RATIOS, RowGroups, SHORTLIST, best_of, channel_ratio, shortlist,
};
use crate::methods::dgq::group_search::{GroupChoice, NUM_GROUP_RATIOS, search_groups, whole_ranges};
use crate::methods::quantization_grid::Grid;
use crate::monitor::Meter;
use crate::run::multiply_adds::RowWork;
use crate::transform::smoothing::{divide, multiply_columns};

/// Bytes of candidate errors written before they are judged: about a second-level cache, so they are read back
/// from there.
pub(crate) const GROUP_BUFFER_BYTES: usize = 2 << 20;

/// The same for whole rows: large enough that a pass over the Gram matrix serves many candidates.
pub(crate) const ROW_BUFFER_BYTES: usize = 16 << 20;

/// How the scales of a layer are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Search {
    /// Both phases; phase 2 judges exactly only the candidates a screen ranks best.
    TwoPhase,
    /// Both phases; phase 2 judges all eighty candidates exactly.
    Exhaustive,
    /// The whole range of every group and row, without looking at activations.
    Rtn,
}

impl std::fmt::Display for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TwoPhase => "two-phase",
            Self::Exhaustive => "exhaustive",
            Self::Rtn => "rtn",
        })
    }
}

/// How well a layer was met.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinearFit {
    /// Squared error of the layer's output over the calibration tokens, weights only.
    pub error: f64,
    /// Squared output of the original layer.
    pub energy: f64,
    /// How many rows chose each ratio of phase 2; empty where there was no phase 2.
    pub ratio_histogram: Vec<u32>,
}

impl LinearFit {
    /// Adds the fit of further rows of the same layer.
    pub fn add(&mut self, rows: &Self) {
        self.error += rows.error;
        self.energy += rows.energy;
        let len = self.ratio_histogram.len().max(rows.ratio_histogram.len());
        self.ratio_histogram.resize(len, 0);
        for (sum, count) in self.ratio_histogram.iter_mut().zip(&rows.ratio_histogram) {
            *sum += count;
        }
    }

    /// Normalized mean squared error; 0 for a layer that puts nothing out.
    pub fn nmse(&self) -> f64 {
        if self.energy > 0.0 {
            self.error / self.energy
        } else {
            0.0
        }
    }
}

/// A float layer as the search sees it.
#[derive(Debug, Clone, Copy)]
pub struct FloatRows<'a> {
    /// Weights `[N,K]`.
    pub weights: &'a [f32],
    /// K.
    pub k: usize,
    /// Bias `[N]`.
    pub bias: Option<&'a [f32]>,
}

/// Quantizes a layer whose calibration inputs have Gram matrix `gram` (lower triangle).
///
/// # Errors
/// [`QuantError::Cancelled`]; a number-format error would be a bug here and is passed on.
pub fn quantize_linear<D: Device>(
    device: &D,
    layer: FloatRows<'_>,
    gram: &Gram,
    group_size: GroupSize,
    search: Search,
    meter: &Meter<'_>,
) -> Result<(QuantizedLinear, LinearFit), QuantError> {
    let groups = search_layer_groups(device, layer, gram, group_size, search, meter)?;
    let num_groups = group_size.num_groups(layer.k);
    let rows: Vec<RowGroups<'_>> = layer
        .weights
        .chunks_exact(layer.k)
        .zip(groups.chunks_exact(num_groups))
        .map(|(weights, groups)| RowGroups::new(weights, groups, group_size))
        .collect();
    let searched = search != Search::Rtn && group_size != GroupSize::WholeRow;
    let choices = if searched {
        search_channels(device, &rows, gram, group_size, search, meter)?
    } else {
        Vec::new()
    };
    let linear = encode(layer, &rows, &choices, group_size)?;
    let mut fit = LinearFit {
        error: choices.iter().map(|choice| choice.objective).sum(),
        energy: quadratic_sum(device, gram, layer.weights),
        ratio_histogram: histogram(&choices),
    };
    if !searched {
        fit.error = output_error(device, gram, layer.weights, &linear);
    }
    Ok((linear, fit))
}

/// Phase 1 over all rows; [N, groups].
fn search_layer_groups<D: Device>(
    device: &D,
    layer: FloatRows<'_>,
    gram: &Gram,
    group_size: GroupSize,
    search: Search,
    meter: &Meter<'_>,
) -> Result<Vec<GroupChoice>, QuantError> {
    let FloatRows { weights, k, .. } = layer;
    if search == Search::Rtn {
        return Ok(whole_ranges(weights, k, group_size));
    }
    let owned = if group_size == GroupSize::WholeRow {
        Vec::new()
    } else {
        diagonal_blocks(gram, group_size)
    };
    let blocks: Vec<&Gram> = if owned.is_empty() {
        vec![gram]
    } else {
        owned.iter().collect()
    };
    let work = RowWork::new(k, group_size, search);
    let mut choices = Vec::with_capacity(weights.len() / group_size.len(k));
    for tile in weights.chunks(k * rows_per_tile(GROUP_BUFFER_BYTES, NUM_GROUP_RATIOS * group_size.len(k))) {
        choices.extend(search_groups(device, tile, k, group_size, &blocks));
        meter.advance(work.groups * (tile.len() / k) as u64)?;
    }
    Ok(choices)
}

/// Phase 2 over all rows; [N].
fn search_channels<D: Device>(
    device: &D,
    rows: &[RowGroups<'_>],
    gram: &Gram,
    group_size: GroupSize,
    search: Search,
    meter: &Meter<'_>,
) -> Result<Vec<ChannelChoice>, QuantError> {
    let k = gram.k();
    let work = RowWork::new(k, group_size, search);
    let screened = search == Search::TwoPhase && group_size.num_groups(k) > 1;
    let (per_row, mut candidates) = if screened {
        (SHORTLIST, Vec::with_capacity(rows.len() * SHORTLIST))
    } else {
        let all = (0..NUM_CHANNEL_RATIOS as u8).collect::<Vec<_>>();
        (NUM_CHANNEL_RATIOS, all.repeat(rows.len()))
    };
    if screened {
        let screen = Screen::new(gram, group_size);
        for tile in rows.chunks(rows_per_tile(
            GROUP_BUFFER_BYTES,
            NUM_CHANNEL_RATIOS * group_size.len(k),
        )) {
            candidates.extend(shortlist(device, &screen, tile));
            meter.advance(work.screen * tile.len() as u64)?;
        }
    }
    let tile_rows = rows_per_tile(ROW_BUFFER_BYTES, per_row * k);
    let mut choices = Vec::with_capacity(rows.len());
    for (tile, candidates) in rows.chunks(tile_rows).zip(candidates.chunks(tile_rows * per_row)) {
        choices.extend(best_of(device, gram, tile, candidates));
        meter.advance(work.exact * tile.len() as u64)?;
    }
    Ok(choices)
}

/// Rows whose candidates (`per_row` floats each) fit a buffer; at least one.
fn rows_per_tile(buffer_bytes: usize, per_row: usize) -> usize {
    (buffer_bytes / size_of::<f32>() / per_row.max(1)).max(1)
}

fn histogram(choices: &[ChannelChoice]) -> Vec<u32> {
    if choices.is_empty() {
        return Vec::new();
    }
    let mut counts = vec![0; NUM_CHANNEL_RATIOS];
    choices.iter().for_each(|choice| counts[choice.ratio_idx] += 1);
    counts
}

/// Writes codes and scales; rows without a choice take their whole range.
fn encode(
    layer: FloatRows<'_>,
    rows: &[RowGroups<'_>],
    choices: &[ChannelChoice],
    group_size: GroupSize,
) -> Result<QuantizedLinear, FormatError> {
    let mut parts = QuantizedParts {
        q: Vec::with_capacity(rows.len() * int4::row_bytes(layer.k)),
        zero: Vec::new(),
        s2: Vec::new(),
        s1: Vec::with_capacity(rows.len()),
        bias: layer.bias.map(<[f32]>::to_vec),
        ta: None,
    };
    for (index, row) in rows.iter().enumerate() {
        let s1 = match choices.get(index) {
            Some(choice) => row.s1(channel_ratio(choice.ratio_idx)),
            None if group_size == GroupSize::WholeRow => row.scale(0),
            None => row.s1(1.0),
        };
        encode_row(row, s1, group_size.num_groups(layer.k), &mut parts);
    }
    QuantizedLinear::new((rows.len(), layer.k), group_size, parts)
}

fn encode_row(row: &RowGroups<'_>, s1: f32, num_groups: usize, parts: &mut QuantizedParts) {
    let (mut codes, mut zeros) = (Vec::new(), Vec::with_capacity(num_groups));
    for group in 0..num_groups {
        let (weights, zero, s2) = (row.slice(group), row.zero(group), row.s2(group, s1));
        let start = codes.len();
        codes.resize(start + weights.len(), 0);
        Grid::new(f32::from(s2) * s1, zero, 127 / s2).codes(zero, weights, &mut codes[start..]);
        zeros.push(zero);
        parts.s2.push(s2);
    }
    let padding = zeros.last().copied().unwrap_or(0);
    int4::pack_row(&codes, padding, &mut parts.q);
    int4::pack_row(&zeros, 0, &mut parts.zero);
    parts.s1.push(s1);
}

fn quadratic_sum<D: Device>(device: &D, gram: &Gram, rows: &[f32]) -> f64 {
    let mut objectives = vec![0.0; rows.len() / gram.k()];
    device.quadratic_rows(gram, rows, &mut objectives);
    objectives.iter().sum()
}

/// Squared error of the layer's output over the calibration tokens, from the stored codes.
pub fn output_error<D: Device>(device: &D, gram: &Gram, weights: &[f32], linear: &QuantizedLinear) -> f64 {
    let k = gram.k();
    let tile = k * rows_per_tile(ROW_BUFFER_BYTES, k);
    let mut w8 = vec![0; k];
    let mut error = 0.0;
    let mut first_row = 0;
    for weights in weights.chunks(tile) {
        let mut errors = weights.to_vec();
        for (row, errors) in errors.chunks_exact_mut(k).enumerate() {
            linear.w8_row(first_row + row, &mut w8);
            let s1 = linear.s1()[first_row + row];
            errors
                .iter_mut()
                .zip(&w8)
                .for_each(|(e, &w)| *e -= s1 * f32::from(w));
        }
        first_row += weights.len() / k;
        error += quadratic_sum(device, gram, &errors);
    }
    error
}

/// Normalized squared error of the output when the layer is smoothed by `scales` and rounded to nearest. `layer` and
/// `gram` are not smoothed: the errors are brought back instead, which spares a copy of the Gram matrix.
pub fn round_to_nearest_error<D: Device>(
    device: &D,
    layer: FloatRows<'_>,
    gram: &Gram,
    scales: &[f32],
    group_size: GroupSize,
) -> f64 {
    let (k, num_groups) = (layer.k, group_size.num_groups(layer.k));
    let mut smoothed = layer.weights.to_vec();
    multiply_columns(&mut smoothed, scales);
    let groups = whole_ranges(&smoothed, k, group_size);
    let mut errors = vec![0.0; smoothed.len()];
    let rows = smoothed.chunks_exact(k).zip(groups.chunks_exact(num_groups));
    for ((weights, groups), errors) in rows.zip(errors.chunks_exact_mut(k)) {
        let row = RowGroups::new(weights, groups, group_size);
        let s1 = if group_size == GroupSize::WholeRow {
            row.scale(0)
        } else {
            row.s1(1.0)
        };
        row.errors(s1, errors);
        divide(errors, scales);
    }
    let energy = quadratic_sum(device, gram, layer.weights);
    if energy > 0.0 {
        quadratic_sum(device, gram, &errors) / energy
    } else {
        0.0
    }
}

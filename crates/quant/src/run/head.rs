//! The output layer in integers, when the options ask for it: INT8 row by row, or by the method of the blocks on what
//! the last norm puts out.

use dualgrain_device::Statistics;
use dualgrain_format::{GroupSize, Int8Linear, LinearScheme, LinearWeights};

use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::passes;
use crate::calibrate::statistics::InputStatistics;
use crate::error::QuantError;
use crate::methods::int8::round_to_int8;
use crate::methods::method::{FloatRows, LinearTask, MethodReport};
use crate::report::json::{LinearReport, ReportedLinear};
use crate::run::context::RunContext;
use crate::transform::float_head::{FloatHead, float_head};
use crate::transform::linear_smoothing::LinearSmoothing;
use crate::transform::sample::LinearSample;

/// A quantized head, with its report if calibration had a part in it.
pub type QuantizedHead = (LinearWeights, Option<LinearReport>);

/// The head in the scheme that the options ask for; `None` when it stays as it is. `states` stand after the last block.
///
/// # Errors
/// See [`QuantError`].
pub fn quantize_head<D: Statistics>(
    run: &RunContext<'_, D>,
    states: &mut HiddenStates<'_, D>,
) -> Result<Option<QuantizedHead>, QuantError> {
    match run.options.lm_head {
        LinearScheme::Float if !run.original.is_rotated() => Ok(None),
        LinearScheme::Float => {
            let linear = float_head(run.config, run.original)?;
            Ok(Some((LinearWeights::Float(linear), None)))
        }
        LinearScheme::W8 => {
            let linear = int8(&FloatHead::new(run.config, run.original)?)?;
            Ok(Some((LinearWeights::W8(linear), None)))
        }
        LinearScheme::W4 { group_size } => {
            run.meter.start("head".into());
            let norm = run.original.norm(run.device, &run.config.final_norm())?;
            let statistics = passes::head_input(states, &norm, run.config.num_layers, run.meter)?;
            let head = FloatHead::new(run.config, run.original)?;
            let (linear, report) = by_method(run, &head, (&statistics, group_size))?;
            Ok(Some((linear, Some(report))))
        }
    }
}

fn int8(head: &FloatHead<'_>) -> Result<Int8Linear, QuantError> {
    let (n, k) = (head.n, head.k);
    let (mut w8, mut s1) = (Vec::with_capacity(n * k), Vec::with_capacity(n));
    for rows in head.slices() {
        let (codes, scales) = round_to_int8(&rows?, k);
        w8.extend(codes);
        s1.extend(scales);
    }
    Ok(Int8Linear::new((n, k), w8, s1, None, None)?)
}

/// Slice by slice: a row depends on that row and the statistics alone. The report looks at a sample of the first slice.
fn by_method<D: Statistics>(
    run: &RunContext<'_, D>,
    head: &FloatHead<'_>,
    (statistics, group_size): (&InputStatistics, GroupSize),
) -> Result<(LinearWeights, LinearReport), QuantError> {
    let mut report = None;
    let (mut slices, mut method_report) = (Vec::new(), MethodReport::default());
    for weights in head.slices() {
        let weights = weights?;
        report.get_or_insert_with(|| first_report(run, head, (statistics, group_size), &weights));
        let task = LinearTask {
            rows: FloatRows {
                weights: &weights,
                k: head.k,
                bias: None,
            },
            statistics,
            group_size,
            activations: run.activations(statistics),
        };
        let (slice, of_slice) = run.method.quantize(&run.resources(), &task)?;
        slices.push(slice);
        method_report.add(&of_slice);
    }
    let linear = LinearWeights::join(slices)?;
    let mut report = report.unwrap_or_default();
    report.finish(&linear, &method_report);
    Ok((linear, report))
}

fn first_report<D: Statistics>(
    run: &RunContext<'_, D>,
    head: &FloatHead<'_>,
    (statistics, group_size): (&InputStatistics, GroupSize),
    weights: &[f32],
) -> LinearReport {
    let activations = run.options.activations;
    let scheme = LinearScheme::w4(group_size);
    let sample = LinearSample::new(run.device, (scheme, activations), statistics, weights);
    let smoothing = LinearSmoothing::none(head.k);
    let linear = ReportedLinear {
        layer: run.config.num_layers,
        role: "head",
        expert: None,
        n: head.n,
        scheme,
        usual: LinearScheme::w4(run.options.group_size),
    };
    LinearReport::new(
        linear,
        statistics,
        &smoothing,
        sample.activation_nmse(&smoothing.scales),
    )
}

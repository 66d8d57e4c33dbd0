//! The experts of a mixture, each quantized by the tokens that went to it in calibration.
//!
//! An expert that saw fewer tokens than its input has channels says too little: its Gram matrix is singular, and rounding that fits it
//! fits those tokens alone. Such an expert is quantized by the inputs of all experts together, or rounded to nearest, whichever errs
//! less on the tokens it saw; the report names it.

use dualgrain_device::Statistics;
use dualgrain_engine::{LinearId, LinearSpec, Role};
use dualgrain_format::LinearWeights;

use crate::calibrate::experts::{ExpertStatistics, expert_inputs, pooled_expert_inputs};
use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::multiply_adds::experts_at_once;
use crate::calibrate::statistics::InputStatistics;
use crate::error::QuantError;
use crate::methods::method::{FloatRows, LinearTask, Method, MethodReport, Resources};
use crate::methods::output_error::output_error;
use crate::methods::rtn::Rtn;
use crate::report::json::LinearReport;
use crate::run::block::partial_block::PartialBlock;
use crate::transform::linear_smoothing::LinearSmoothing;
use crate::transform::sample::LinearSample;

/// Quantizes the linears of `role` of all experts; `pooled` are the inputs of all of them together, where they are known already.
///
/// # Errors
/// See [`QuantError`].
pub fn quantize_experts<D: Statistics>(
    partial: &mut PartialBlock<'_, D>,
    (role, mut pooled): (Role, Option<InputStatistics>),
    states: &mut HiddenStates<'_, D>,
) -> Result<(), QuantError> {
    let run = partial.run();
    let specs = experts_of(partial, role);
    let Some(k) = specs.first().map(|spec| spec.k) else {
        return Ok(());
    };
    let Some((method, _)) = run.method_of(run.options.scheme(specs[0].id)) else {
        return specs.iter().try_for_each(|spec| partial.keep_float(spec));
    };
    let fits_inputs = method.fits_inputs();
    pooled = pooled.filter(|_| fits_inputs);
    for specs in specs.chunks(experts_at_once(k, specs.len())) {
        partial.announce(specs[0].id);
        let first = specs[0].id.expert.unwrap_or_default();
        let experts = (role, first..first + specs.len());
        let seen = expert_inputs(states, partial.block(), experts, run.meter)?;
        for (spec, seen) in specs.iter().zip(seen) {
            if fits_inputs && saw_few(&seen, k) && pooled.is_none() {
                pooled = Some(pooled_expert_inputs(states, partial.block(), role, run.meter)?);
            }
            partial.announce(spec.id);
            quantize_expert(partial, spec, &seen, pooled.as_ref())?;
        }
    }
    run.original.weights().release_pages();
    Ok(())
}

fn experts_of<D: Statistics>(partial: &PartialBlock<'_, D>, role: Role) -> Vec<LinearSpec> {
    let linears = partial.block().spec().linears.values();
    let of_role = |id: LinearId| id.role == role && id.expert.is_some();
    linears.filter(|spec| of_role(spec.id)).cloned().collect()
}

fn saw_few(seen: &ExpertStatistics, k: usize) -> bool {
    seen.num_tokens < k
}

fn quantize_expert<D: Statistics>(
    partial: &mut PartialBlock<'_, D>,
    spec: &LinearSpec,
    seen: &ExpertStatistics,
    pooled: Option<&InputStatistics>,
) -> Result<(), QuantError> {
    let run = partial.run();
    let scheme = run.options.scheme(spec.id);
    let Some((method, group_size)) = run.method_of(scheme) else {
        return partial.keep_float(spec);
    };
    let (weights, bias) = run.original.linear(spec)?;
    let sample = LinearSample::new(
        run.device,
        (scheme, run.options.activations),
        &seen.statistics,
        &weights,
    );
    let smoothing = LinearSmoothing::none(spec.k);
    let activation_nmse = sample.activation_nmse(&smoothing.scales);
    let mut report = LinearReport::new(
        partial.reported(spec),
        &seen.statistics,
        &smoothing,
        activation_nmse,
    );
    report.num_tokens = Some(seen.num_tokens);
    let task = |statistics| LinearTask {
        rows: FloatRows {
            weights: &weights,
            k: spec.k,
            bias: bias.as_deref(),
        },
        statistics,
        group_size,
        activations: run.activations(statistics),
    };
    let own = task(&seen.statistics);
    let (linear, method_report) = match pooled.filter(|_| saw_few(seen, spec.k)) {
        None => method.quantize(&run.resources(), &own)?,
        Some(pooled) => {
            let by_pooled = method.quantize(&run.resources(), &task(pooled))?;
            let (quantized, took) = better_on_own(run.resources(), (&own, seen.num_tokens), by_pooled)?;
            report.took = Some(took.to_owned());
            quantized
        }
    };
    report.finish(&linear, &method_report);
    partial.add_report(report);
    partial.place(spec.id, linear)
}

/// What was quantized by the inputs of all experts, or the weights rounded to nearest: whichever errs less on the expert's own tokens.
fn better_on_own<D: Statistics>(
    resources: Resources<'_, D>,
    (own, seen_tokens): (&LinearTask<'_>, usize),
    (by_pooled, pooled_report): (LinearWeights, MethodReport),
) -> Result<((LinearWeights, MethodReport), &'static str), QuantError> {
    const POOLED: &str = "the inputs of all experts";
    let LinearWeights::W4(quantized) = &by_pooled else {
        return Ok(((by_pooled, pooled_report), POOLED));
    };
    // Without a token there is nothing to judge by.
    if seen_tokens == 0 {
        return Ok(((by_pooled, MethodReport::default()), POOLED));
    }
    let (gram, weights) = (&own.statistics.gram, own.rows.weights);
    let error = output_error(resources.device, gram, weights, quantized)?;
    let nearest = Rtn.quantize(&resources, own)?;
    if nearest.1.error < error {
        return Ok((nearest, "round to nearest"));
    }
    let report = MethodReport {
        error,
        energy: nearest.1.energy,
        ..pooled_report
    };
    Ok(((by_pooled, report), POOLED))
}

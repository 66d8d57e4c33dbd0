//! The answer of `cost` in tables.

use dualgrain_perf::Interval;
use dualgrain_perf::cost::{BatchCost, CostItem, NetworkCost};
use dualgrain_perf::report::plot::quantity;

use crate::cli::table::{or_dash, table};

/// The answer as a person reads it.
pub fn text(cost: &NetworkCost) -> String {
    let mut text = format!(
        "{} on {}: {} linears, {} output layer, prompts of {} tokens, {} generated\n\n",
        cost.model,
        cost.machine_words(),
        cost.scheme,
        cost.head_scheme,
        cost.prompt_tokens,
        cost.generate_tokens
    );
    text += &batches_table(&cost.batches);
    for batch in &cost.batches {
        text += &format!("\nThe most expensive products at batch {}:\n\n", batch.batch);
        text += &products_table(batch);
        text += &estimates(batch);
    }
    if cost.batches.iter().any(|batch| batch.extrapolated_share > 0.0) {
        text += "\nExtrapolated products lie outside what was measured: as far as they reach, the intervals of the totals promise nothing.\n";
    }
    text += "\n";
    for assumption in &cost.assumptions {
        text += &format!("{assumption}\n");
    }
    text
}

fn batches_table(batches: &[BatchCost]) -> String {
    let header = [
        "batch",
        "first token",
        "90 %",
        "tok/s",
        "90 %",
        "J/token",
        "90 %",
        "J/prompt token",
        "memory",
        "fits",
        "estimated",
        "extrapolated",
    ];
    let rows: Vec<_> = batches.iter().map(batch_cells).collect();
    table(&header, &rows)
}

fn batch_cells(batch: &BatchCost) -> Vec<String> {
    let memory = &batch.memory;
    let prompt = batch.prompt_joules_per_token;
    let mut row = vec![batch.batch.to_string()];
    row.extend(interval_cells(Some(batch.time_to_first_token_s), "s"));
    row.extend(interval_cells(batch.decode_tokens_per_s, ""));
    row.extend(interval_cells(batch.joules_per_token, "J"));
    row.extend([
        or_dash(prompt.map(|energy| quantity(energy.value, "J"))),
        quantity(memory.total_bytes as f64, "B"),
        if memory.fits { "yes" } else { "no" }.to_owned(),
        format!("{:.0} %", 100.0 * batch.estimated_share),
        format!("{:.0} %", 100.0 * batch.extrapolated_share),
    ]);
    row
}

/// The value, and from where to where it may be.
fn interval_cells(interval: Option<Interval>, unit: &str) -> [String; 2] {
    [
        or_dash(interval.map(|interval| quantity(interval.value, unit))),
        or_dash(interval.map(|interval| range(interval, unit))),
    ]
}

fn range(interval: Interval, unit: &str) -> String {
    format!(
        "{}..{}",
        quantity(interval.low, unit),
        quantity(interval.high, unit)
    )
}

fn products_table(batch: &BatchCost) -> String {
    let header = [
        "product",
        "phase",
        "M x N x K",
        "times",
        "kernel",
        "config",
        "time",
        "90 %",
        "share",
        "",
    ];
    let rows: Vec<_> = batch.products.iter().map(product_cells).collect();
    table(&header, &rows)
}

fn product_cells(line: &CostItem) -> Vec<String> {
    let [m, n, k] = line.shape.unwrap_or_default();
    let extrapolated = if line.extrapolated { "extrapolated" } else { "" };
    vec![
        line.name.clone(),
        line.phase.name().to_owned(),
        format!("{m}x{n}x{k}"),
        line.count.to_string(),
        line.kernel.clone(),
        line.config.clone(),
        quantity(line.time_s.value, "s"),
        range(line.time_s, "s"),
        format!("{:.1} %", 100.0 * line.share),
        extrapolated.to_owned(),
    ]
}

fn estimates(batch: &BatchCost) -> String {
    let lines = batch.estimates.iter().map(|line| {
        let phase = line.phase.name();
        format!("{} ({phase}) {}", line.name, quantity(line.time_s.value, "s"))
    });
    format!(
        "\nnot measured, estimated ({:.0} % of the time): {}\n",
        100.0 * batch.estimated_share,
        lines.collect::<Vec<_>>().join(", ")
    )
}

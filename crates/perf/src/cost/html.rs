//! The answer as one HTML document with pictures.

use super::answer::{BatchCost, CostItem, NetworkCost};
use crate::predict::Interval;
use crate::report::plot::{
    Axis, Bar, Chart, Document, Series, bars, figure, legend, note, quantity, side_by_side, table,
};

const SIZE: (f64, f64) = (420.0, 260.0);

/// The page's HTML: figures over batch sizes, the most expensive products of the first and the last batch size, all numbers.
pub fn html(cost: &NetworkCost) -> String {
    let mut document =
        Document::new(&format!("What {} costs on {}", cost.model, cost.machine)).facts(&facts(cost));
    document = document.section(
        "batches",
        "Over batch sizes",
        "Lines are predictions, bands their 90 % intervals (sums as said at the end). They promise nothing for the share of the time that the \
         table says lies outside what was measured.",
        &side_by_side(&pictures(cost)),
    );
    // Intervals go below their figures where the page is too narrow for both.
    let figures = format!("<div class=\"broken\">{}</div>", figures_table(cost));
    document = document.section("table", "All figures", "", &figures);
    for batch in first_and_last(&cost.batches) {
        let heading = format!("Where the time of {} goes", sequences(batch.batch));
        let explanation = "Products as predicted by the fitted model, lines: 90 % intervals. Everything else is an estimate; its lines are bounds. A star marks products outside of what was \
                           measured: their intervals promise nothing.";
        document = document.section(
            &format!("batch{}", batch.batch),
            &heading,
            explanation,
            &spent(batch),
        );
    }
    document = document.section("assumptions", "Assumptions", "", "");
    for assumption in &cost.assumptions {
        document = document.paragraph(assumption);
    }
    document.html()
}

fn facts(cost: &NetworkCost) -> [(&'static str, String); 3] {
    [
        ("machine", cost.machine_words()),
        (
            "scheme",
            format!("{}, output layer {}", cost.scheme, cost.head_scheme),
        ),
        (
            "asked",
            format!(
                "{} tokens of prompt, {} generated, {} sequences",
                cost.prompt_tokens,
                cost.generate_tokens,
                batch_list(cost)
            ),
        ),
    ]
}

/// Time, speed, energy and memory over batch sizes.
fn pictures(cost: &NetworkCost) -> [String; 4] {
    [
        over_batches(cost, "Time to first token", "time", "s", &|b| {
            Some(b.time_to_first_token_s)
        }),
        over_batches(
            cost,
            "Generation",
            "tokens a second, all sequences",
            "tok/s",
            &|b| b.decode_tokens_per_s,
        ),
        over_batches(
            cost,
            "Energy of a generated token",
            "energy a token, without the prompts",
            "J",
            &|b| b.joules_per_token,
        ),
        memory(cost),
    ]
}

fn batch_list(cost: &NetworkCost) -> String {
    let sizes = cost.batches.iter().map(|batch| batch.batch.to_string());
    sizes.collect::<Vec<_>>().join(", ")
}

fn sequences(batch: usize) -> String {
    match batch {
        1 => "one sequence".to_owned(),
        _ => format!("{batch} sequences"),
    }
}

fn first_and_last(batches: &[BatchCost]) -> Vec<&BatchCost> {
    match batches {
        [first, .., last] => vec![first, last],
        _ => batches.iter().collect(),
    }
}

/// A figure over batch sizes with its band.
fn over_batches(
    cost: &NetworkCost,
    caption: &str,
    title: &str,
    unit: &'static str,
    of: &dyn Fn(&BatchCost) -> Option<Interval>,
) -> String {
    let points: Vec<_> = cost
        .batches
        .iter()
        .filter_map(|batch| Some((batch.batch, of(batch)?)))
        .collect();
    let x = Axis::log(
        "sequences at once",
        "",
        cost.batches.iter().map(|b| b.batch as f64),
    );
    let y = Axis::log(
        title,
        unit,
        points
            .iter()
            .flat_map(|(_, i)| [i.low.max(i.value / 10.0), i.high]),
    );
    let (Some(x), Some(y)) = (x, y) else {
        return figure(caption, "", &note("The fitted model has no data for this."));
    };
    let band: Vec<_> = points
        .iter()
        .map(|&(batch, i)| (batch as f64, i.low, i.high))
        .collect();
    let line = points.iter().map(|&(batch, i)| (batch as f64, i.value));
    let mut chart = Chart::new(caption, SIZE, x, y)
        .band(Series(0), &band)
        .line(Series(0), line);
    for (batch, interval) in &points {
        let title = format!("{}: {}", sequences(*batch), with_interval(interval, unit));
        chart = chart.marker(Series(0), (*batch as f64, interval.value), &title);
    }
    figure(caption, "", &chart.svg_named(&batch_names(cost)))
}

fn batch_names(cost: &NetworkCost) -> Vec<(f64, String)> {
    let sizes = cost.batches.iter().map(|batch| batch.batch);
    sizes.map(|batch| (batch as f64, batch.to_string())).collect()
}

/// Weights, cache and the rest, one on the other, under the machine's memory.
fn memory(cost: &NetworkCost) -> String {
    let caption = "Memory";
    let batches = &cost.batches;
    let machine = batches.first().map_or(0, |b| b.memory.machine_bytes) as f64;
    let tops = batches.iter().map(|b| b.memory.total_bytes as f64);
    let Some(y) = Axis::linear("memory", "B", tops.chain([0.0, machine])) else {
        return String::new();
    };
    let names = ["weights", "cache", "workspace"];
    let (first, last) = (0.0, batches.len() as f64);
    let x = Axis::between("sequences at once", "", first, last);
    let mut chart = Chart::new(caption, SIZE, x, y)
        .rule((first, machine), (last, machine))
        .words(
            (last, machine),
            "end",
            &format!("the machine: {}", quantity(machine, "B")),
        );
    let mut places = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        let place = index as f64 + 0.5;
        places.push((place, batch.batch.to_string()));
        let memory = &batch.memory;
        let parts = [
            memory.weights_bytes,
            memory.kv_cache_bytes,
            memory.workspace_bytes,
        ];
        let mut low = 0.0;
        for (part_idx, part) in parts.into_iter().enumerate() {
            let high = low + part as f64;
            let title = format!(
                "{}, {}: {}",
                sequences(batch.batch),
                names[part_idx],
                quantity(part as f64, "B")
            );
            chart = chart.span(Series(part_idx), place, (low, high), 26.0, &title);
            low = high;
        }
    }
    let names: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(index, name)| (Series(index), *name))
        .collect();
    figure(caption, &legend(&names), &chart.svg_named(&places))
}

fn bar(item: &CostItem) -> Bar {
    Bar {
        name: format!("{} {}", item.phase.name(), short(&item.name)),
        value: item.time_s.value,
        interval: Some((item.time_s.low, item.time_s.high)),
        title: format!(
            "{} {}: {}, {:.1} % of the time",
            item.phase.name(),
            item.name,
            with_interval(&item.time_s, "s"),
            100.0 * item.share
        ),
    }
}

/// Bars of products, bars of estimates, and the products' table.
fn spent(batch: &BatchCost) -> String {
    let all = |items: &[CostItem]| items.iter().map(bar).collect::<Vec<_>>();
    let pictures = [
        figure(
            "The most expensive products",
            "",
            &bars("time of products", Series(0), "s", &all(&batch.products)),
        ),
        figure(
            "Everything else, estimated",
            "",
            &bars("time of the rest", Series(1), "s", &all(&batch.estimates)),
        ),
    ];
    side_by_side(&pictures) + &table(&HEADER, &product_rows(batch))
}

/// Names of estimates are too long for a bar's room.
fn short(name: &str) -> &str {
    match name {
        "attention over the cache" => "attention",
        "norms, activations, quantization" => "elementwise",
        "embedding and sampling" => "sampling",
        "starting small kernels" => "launches",
        name => name,
    }
}

const HEADER: [&str; 9] = [
    "product",
    "phase",
    "M x N x K",
    "times",
    "time in all",
    "90 % interval",
    "share",
    "kernel",
    "size",
];

fn product_rows(batch: &BatchCost) -> Vec<Vec<String>> {
    let rows = batch.products.iter().map(|item| {
        let [m, n, k] = item.shape.unwrap_or_default();
        let star = if item.extrapolated { " *" } else { "" };
        vec![
            item.name.clone() + star,
            item.phase.name().to_owned(),
            format!("{m} x {n} x {k}"),
            item.count.to_string(),
            quantity(item.time_s.value, "s"),
            ends(&item.time_s, "s"),
            format!("{:.1} %", 100.0 * item.share),
            item.kernel.clone(),
            item.config.clone(),
        ]
    });
    rows.collect()
}

fn figures_table(cost: &NetworkCost) -> String {
    let optional = |interval: &Option<Interval>, unit: &str| {
        interval
            .as_ref()
            .map_or("-".to_owned(), |interval| with_interval(interval, unit))
    };
    let rows = cost.batches.iter().map(|b| {
        vec![
            b.batch.to_string(),
            with_interval(&b.time_to_first_token_s, "s"),
            optional(&b.decode_tokens_per_s, "tok/s"),
            optional(&b.joules_per_token, "J"),
            optional(&b.prompt_joules_per_token, "J"),
            optional(&b.total_joules_per_token, "J"),
            quantity(b.memory.total_bytes as f64, "B"),
            if b.memory.fits { "yes" } else { "no" }.to_owned(),
            format!("{:.0} %", 100.0 * b.estimated_share),
            format!("{:.0} %", 100.0 * b.extrapolated_share),
        ]
    });
    let header = [
        "sequences",
        "time to first token",
        "generation",
        "energy a token",
        "a token of the prompts",
        "a token, prompts included",
        "memory",
        "fits",
        "time estimated",
        "time outside what was measured",
    ];
    table(&header, &rows.collect::<Vec<_>>())
}

fn with_interval(interval: &Interval, unit: &str) -> String {
    format!("{} ({})", quantity(interval.value, unit), ends(interval, unit))
}

/// Both ends; the unit once where it is the same.
fn ends(interval: &Interval, unit: &str) -> String {
    let [low, high] = [interval.low, interval.high].map(|end| quantity(end, unit));
    match (low.split_once(' '), high.split_once(' ')) {
        (Some((number, left)), Some((_, right))) if left == right => format!("{number} to {high}"),
        _ => format!("{low} to {high}"),
    }
}

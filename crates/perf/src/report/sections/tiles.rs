//! The tile study in words and pictures.

use std::collections::BTreeMap;

use crate::data::Row;
use crate::report::plot::{Axis, Chart, Series, escaped, figure, quantity, side_by_side};
use crate::report::section::Section;
use crate::report::statistics::{quantile, sorted};
use crate::report::tile_study::{KERNEL, TileRows, TileStudy, least_side, products};

const SIZE: (f64, f64) = (420.0, 300.0);
/// Products that a point over the tile needs.
const LEAST_BAND: usize = 2;
/// Tiles that are named as the best of most products.
const NAMED: usize = 4;
/// Tiles that get a number at the axis.
const NUMBERED: [usize; 9] = [1, 4, 8, 12, 16, 20, 24, 28, 32];

/// Time and power over the tile, and the answers in words.
pub(crate) fn section(rows: &[&Row], study: Option<&TileStudy>) -> Section {
    Section {
        anchor: "tiles",
        heading: "The tile of the naive kernel",
        explanation: format!(
            "{KERNEL} computes one 32-bit float a thread in square tiles of 1 to 32: the paper's kernel. Each product is compared with \
             itself at tile 16; line: the median over products, band: nine of ten."
        ),
        body: match study {
            Some(study) => Ok(answers(study) + &pictures(&products(rows))),
            None => Err(format!(
                "No product was measured with {KERNEL} in more than one tile."
            )),
        },
    }
}

fn answers(study: &TileStudy) -> String {
    let mut sentences = Vec::new();
    sentences.push(match study.speedup_16_over_8 {
        Some(answer) => format!(
            "Is tile 16 up to 3.2 times as fast as tile 8 (the paper: 1.83 times on average over large products, 3.29 at most)? Here, over {}: {:.2} times \
             on average, {:.2} at most; over all sizes {:.2} at most.",
            answer.on(),
            answer.mean,
            answer.most,
            answer.most_of_all
        ),
        None => "Tiles 8 and 16 were not both measured on a product.".to_owned(),
    });
    sentences.extend(study.speedup_best_over_worst.map(|answer| {
        format!(
            "The best tile of 8 and more against the worst, over {}: {:.2} times as fast on average, {:.2} at most; over all sizes {:.2} at most.",
            answer.on(),
            answer.mean,
            answer.most,
            answer.most_of_all
        )
    }));
    sentences.push(match study.power_saved_32_over_8_percent {
        Some(answer) => format!(
            "Does tile 32 take 22 % less power than tile 8? Here, over {}, it takes {} on average ({} at the most favourable).",
            answer.on(),
            less(answer.mean),
            less(answer.most)
        ),
        None => "Power of tiles 8 and 32 was not both measured on a product.".to_owned(),
    });
    sentences.push(format!(
        "Fastest tile by number of products: {}.",
        counted(&study.fastest)
    ));
    if !study.most_frugal.is_empty() {
        sentences.push(format!("Least energy: {}.", counted(&study.most_frugal)));
    }
    format!("<p class=\"answer\">{}</p>", escaped(&sentences.join(" ")))
}

fn less(percent: f64) -> String {
    match percent {
        p if p < 0.0 => format!("{:.1} % more", -p),
        p => format!("{p:.1} % less"),
    }
}

fn counted(winners: &BTreeMap<usize, usize>) -> String {
    let mut winners: Vec<_> = winners.iter().collect();
    winners.sort_by(|a, b| b.1.cmp(a.1));
    let words = winners
        .iter()
        .take(NAMED)
        .map(|(tile, count)| format!("tile {tile} of {count}"));
    words.collect::<Vec<_>>().join(", ")
}

fn pictures(products: &[TileRows<'_>]) -> String {
    let largest = products.iter().max_by(|a, b| {
        let ops = |p: &TileRows<'_>| p.values().next().map_or(0.0, |row| row.ops());
        (least_side(a), a.len())
            .cmp(&(least_side(b), b.len()))
            .then(ops(a).total_cmp(&ops(b)))
    });
    let pictures: Vec<_> = [
        over_tile(
            "Time against tile 16",
            "time by that of tile 16",
            "x",
            products,
            |row, at_16| Some(row.time_s? / at_16.time_s?),
        ),
        over_tile(
            "Power against tile 16",
            "power by that of tile 16",
            "x",
            products,
            |row, at_16| Some(row.power_w? / at_16.power_w?),
        ),
        largest.and_then(|product| of_one("time", "s", product, |row| row.time_s)),
        largest_with_power(products).and_then(|product| of_one("power", "W", product, |row| row.power_w)),
    ]
    .into_iter()
    .flatten()
    .collect();
    side_by_side(&pictures)
}

/// The largest product whose power was measured in two tiles.
fn largest_with_power<'p, 'a>(products: &'p [TileRows<'a>]) -> Option<&'p TileRows<'a>> {
    let powered = |product: &TileRows<'_>| product.values().filter(|row| row.power_w.is_some()).count();
    let largest = products
        .iter()
        .max_by_key(|product| (powered(product).min(6), least_side(product)))?;
    (powered(largest) > 1).then_some(largest)
}

fn over_tile(
    caption: &str,
    title: &str,
    unit: &'static str,
    products: &[TileRows<'_>],
    of: fn(&Row, &Row) -> Option<f64>,
) -> Option<String> {
    let mut by_tile = BTreeMap::<usize, Vec<f64>>::new();
    for product in products {
        let Some(at_16) = product.get(&16) else { continue };
        for (tile, row) in product {
            by_tile.entry(*tile).or_default().extend(of(row, at_16));
        }
    }
    let bands: Vec<_> = by_tile
        .into_iter()
        .map(|(tile, values)| (tile as f64, sorted(values)))
        .filter(|(_, values)| values.len() >= LEAST_BAND)
        .map(|(tile, values)| {
            let [low, middle, high] = [0.05, 0.5, 0.95].map(|fraction| quantile(&values, fraction));
            (tile, low, middle, high, values.len())
        })
        .collect();
    let y = Axis::log(title, unit, bands.iter().flat_map(|band| [band.1, band.3]))?;
    let band: Vec<_> = bands.iter().map(|&(x, low, _, high, _)| (x, low, high)).collect();
    let mut chart = Chart::new(caption, SIZE, tile_axis(), y)
        .rule((0.0, 1.0), (33.0, 1.0))
        .band(Series(0), &band)
        .line(Series(0), bands.iter().map(|band| (band.0, band.2)));
    for (tile, low, middle, high, count) in &bands {
        let title =
            format!("tile {tile}: {middle:.2} times, nine of ten {low:.2} to {high:.2}; {count} products");
        chart = chart.marker(Series(0), (*tile, *middle), &title);
    }
    Some(figure(caption, "", &chart.svg_named(&tile_numbers())))
}

fn of_one(
    name: &str,
    unit: &'static str,
    product: &TileRows<'_>,
    of: fn(&Row) -> Option<f64>,
) -> Option<String> {
    let points: Vec<_> = product
        .iter()
        .filter_map(|(tile, row)| Some((*tile as f64, of(row)?)))
        .collect();
    let row = product.values().next()?;
    let y = match unit {
        "W" => Axis::linear(name, unit, points.iter().map(|point| point.1).chain([0.0]))?,
        _ => Axis::log(name, unit, points.iter().map(|point| point.1))?,
    };
    let caption = format!(
        "{} of {} x {} x {} ({})",
        if unit == "W" { "Power" } else { "Time" },
        row.m,
        row.n,
        row.k,
        row.layout
    );
    let mut chart = Chart::new(caption.clone(), SIZE, tile_axis(), y).line(Series(1), points.iter().copied());
    for (tile, value) in points {
        let title = format!("tile {tile}: {}", quantity(value, unit));
        chart = chart.marker(Series(1), (tile, value), &title);
    }
    Some(figure(&caption, "", &chart.svg_named(&tile_numbers())))
}

fn tile_axis() -> Axis {
    Axis::between("tile, elements a side", "", 0.0, 33.0)
}

fn tile_numbers() -> Vec<(f64, String)> {
    NUMBERED.map(|tile| (tile as f64, tile.to_string())).to_vec()
}

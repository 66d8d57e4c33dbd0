//! The paper's questions about tiles, answered for this machine: what the tile of the tiled kernel does to time and
//! power.

use std::collections::BTreeMap;

use serde::Serialize;

use super::statistics::sorted;
use crate::data::Row;

/// The kernel with a tile of 1 to 32 elements a side, one thread an element.
pub(crate) const KERNEL: &str = "sgemm_tiled";

/// The paper's large products have no side below the first; where too few of those were measured the next counts as large.
const LARGE: [usize; 6] = [8192, 4096, 2048, 1024, 512, 1];

/// Products that a mean is taken over at least, where there are so many.
const LEAST_PRODUCTS: usize = 3;

/// Answers to the paper's questions, for this machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TileStudy {
    /// Products (with their layout and factors) measured in more than one tile.
    pub products: usize,
    /// Tile 16 against 8: time over time.
    pub speedup_16_over_8: Option<TileEffect>,
    /// Best against worst tile of 8 and more: time over time.
    pub speedup_best_over_worst: Option<TileEffect>,
    /// Tile 32 against 8: percent of the power less.
    pub power_saved_32_over_8_percent: Option<TileEffect>,
    /// Which tile was the fastest of how many products.
    pub fastest: BTreeMap<usize, usize>,
    /// Which tile took the least energy of how many products.
    pub most_frugal: BTreeMap<usize, usize>,
}

/// A figure over the large products, and over all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TileEffect {
    /// Mean over large products.
    pub mean: f64,
    /// The most of large products.
    pub most: f64,
    /// Large products it was measured on.
    pub products: usize,
    /// No side of theirs is below this.
    pub least_side: usize,
    /// The most of all products, whatever their size.
    pub most_of_all: f64,
}

impl TileEffect {
    /// Of (least side, figure) pairs.
    fn new(figures: &[(usize, f64)]) -> Option<Self> {
        let wanted = figures.len().clamp(1, LEAST_PRODUCTS);
        let of_side = |side: usize| figures.iter().filter(move |(least, _)| *least >= side);
        let least_side = LARGE.into_iter().find(|side| of_side(*side).count() >= wanted)?;
        let most = |figures: &mut dyn Iterator<Item = &(usize, f64)>| {
            figures
                .map(|(_, figure)| *figure)
                .fold(f64::NEG_INFINITY, f64::max)
        };
        let products = of_side(least_side).count();
        Some(Self {
            mean: of_side(least_side).map(|(_, figure)| figure).sum::<f64>() / products as f64,
            most: most(&mut of_side(least_side)),
            products,
            least_side,
            most_of_all: most(&mut figures.iter()),
        })
    }

    pub(crate) fn on(&self) -> String {
        format!(
            "{} products with no side below {}",
            self.products, self.least_side
        )
    }
}

/// Rows of one product by tile.
pub(crate) type TileRows<'a> = BTreeMap<usize, &'a Row>;

pub(crate) fn products<'a>(rows: &[&'a Row]) -> Vec<TileRows<'a>> {
    let mut products = BTreeMap::<String, TileRows<'a>>::new();
    for row in rows.iter().filter(|row| row.kernel == KERNEL && row.tile_n > 0) {
        let key = format!(
            "{} {} {} {:?} {} {} {}",
            row.m, row.n, row.k, row.layout, row.alpha, row.beta, row.output
        );
        products.entry(key).or_default().insert(row.tile_n, row);
    }
    products.into_values().filter(|tiles| tiles.len() > 1).collect()
}

pub(crate) fn least_side(product: &TileRows<'_>) -> usize {
    product
        .values()
        .next()
        .map_or(0, |row| row.m.min(row.n).min(row.k))
}

/// The answers; `None` where no product was measured in two tiles.
pub(crate) fn study(rows: &[&Row]) -> Option<TileStudy> {
    let products = products(rows);
    let answer = |of: &dyn Fn(&TileRows<'_>) -> Option<f64>| {
        let figures = products
            .iter()
            .filter_map(|product| Some((least_side(product), of(product)?)));
        TileEffect::new(&figures.collect::<Vec<_>>())
    };
    (!products.is_empty()).then(|| TileStudy {
        products: products.len(),
        speedup_16_over_8: answer(&|p| Some(p.get(&8)?.time_s? / p.get(&16)?.time_s?)),
        speedup_best_over_worst: answer(&best_over_worst),
        power_saved_32_over_8_percent: answer(&|p| {
            Some(100.0 * (1.0 - p.get(&32)?.power_w? / p.get(&8)?.power_w?))
        }),
        fastest: winners(&products, |row| row.time_s),
        most_frugal: winners(&products, |row| row.energy_j),
    })
}

fn best_over_worst(product: &TileRows<'_>) -> Option<f64> {
    let times = sorted(product.range(8..).filter_map(|(_, row)| row.time_s));
    (times.len() > 1).then(|| times[times.len() - 1] / times[0])
}

/// How often each tile is least, over products where two tiles were measured.
fn winners(products: &[TileRows<'_>], of: fn(&Row) -> Option<f64>) -> BTreeMap<usize, usize> {
    let mut winners = BTreeMap::new();
    for product in products {
        let measured: Vec<_> = product
            .iter()
            .filter_map(|(tile, row)| Some((*tile, of(row)?)))
            .collect();
        let least = measured.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        if let (Some((tile, _)), true) = (least, measured.len() > 1) {
            *winners.entry(*tile).or_default() += 1;
        }
    }
    winners
}

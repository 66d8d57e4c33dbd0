//! The channel scale that fits the codes of a row best: a parabola's lowest point.

use dualgrain_device::Statistics;
use dualgrain_threads::Pool;

use crate::error::QuantError;
use crate::methods::compensate::block::Block;
use crate::methods::compensate::product::product;
use crate::methods::compensate::rows::lanes::LANES;
use crate::methods::compensate::rows::tile::Tile;
use crate::methods::compensate::sweep::rows_of;

/// A fit that moves a scale further than by this factor is not taken.
const LARGEST_CHANGE: f64 = 2.0;

/// Gives every row the `s1` that leaves the least error: `w H w8 / w8 H w8`.
///
/// # Errors
/// The device failed.
pub fn fit_channel_scales<D: Statistics>(
    (device, pool): (&D, &Pool),
    gram: &[f32],
    blocks: &[Block],
    tile: &mut Tile,
) -> Result<(), QuantError> {
    let k = tile.k;
    let w8 = tile.w8(pool);
    let mut fits = vec![(0.0_f64, 0.0_f64); tile.num_rows];
    for block in blocks {
        let columns = &block.columns;
        let products = product(device, &w8, rows_of(gram, columns, k), k)?;
        let bundles = &tile.bundles;
        pool.for_each_chunk(&mut fits, 1, |row, fit| {
            let (bundle, lane) = (&bundles[row / LANES], row % LANES);
            let products = &products[row * columns.len()..][..columns.len()];
            for (&column, &product) in columns.iter().zip(products) {
                let product = f64::from(product);
                fit[0].0 += f64::from(bundle.weights[column][lane]) * product;
                fit[0].1 += f64::from(w8[row * k + column]) * product;
            }
        });
    }
    for (row, (with_weights, with_itself)) in fits.into_iter().enumerate() {
        let s1 = &mut tile.bundles[row / LANES].s1[row % LANES];
        let fitted = with_weights / with_itself;
        let bounds = f64::from(*s1) / LARGEST_CHANGE..f64::from(*s1) * LARGEST_CHANGE;
        if with_itself > 0.0 && bounds.contains(&fitted) {
            *s1 = fitted as f32;
        }
    }
    Ok(())
}

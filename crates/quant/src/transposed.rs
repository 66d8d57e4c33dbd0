//! Rows and columns exchanged.

use dualgrain_threads::Pool;

/// Columns that are transposed together: a cache line.
const TRANSPOSED_COLUMNS: usize = 16;

/// `rows` [count, columns] as [columns, count].
pub fn transposed(pool: &Pool, rows: &[f32], count: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows.len()];
    transpose(pool, rows, count, &mut out);
    out
}

/// As [`transposed`], into `out`, which is as long.
pub fn transpose(pool: &Pool, rows: &[f32], count: usize, out: &mut [f32]) {
    let columns = rows.len() / count;
    pool.for_each_chunk(out, TRANSPOSED_COLUMNS * count, |idx, out| {
        let first = idx * TRANSPOSED_COLUMNS;
        for (row, values) in rows.chunks_exact(columns).enumerate() {
            for (out, &value) in out.chunks_exact_mut(count).zip(&values[first..]) {
                out[row] = value;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows() {
        let rows: Vec<f32> = (0..3 * 17).map(|i| i as f32).collect();
        let columns = transposed(&Pool::new(2), &rows, 3);
        assert_eq!(columns[..6], [0.0, 17.0, 34.0, 1.0, 18.0, 35.0]);
        assert_eq!(transposed(&Pool::new(1), &columns, 17), rows);
    }
}

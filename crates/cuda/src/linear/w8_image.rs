//! How INT8 weights lie in a card's memory, as cu/linear/w8_image.cuh says.

/// Rows of a strip.
pub(crate) const STRIP_ROWS: usize = 16;
/// Columns of a chunk.
pub(crate) const CHUNK_K: usize = 64;
/// Bytes of a strip's chunk.
const CHUNK_BYTES: usize = STRIP_ROWS * CHUNK_K;
/// A lane's bytes of a step.
const LANE_BYTES: usize = 16;

/// Bytes of `rows` rows of `k` codes; all slices of a layer but its last are whole strips.
pub(crate) fn w8_image_bytes(rows: usize, k: usize) -> usize {
    rows.div_ceil(STRIP_ROWS) * k.div_ceil(CHUNK_K) * CHUNK_BYTES
}

/// The image of rows of `k` codes; zeros stand behind the last row and the last column.
pub(crate) fn pack_w8(codes: &[i8], k: usize) -> Vec<u8> {
    let mut image = vec![0; w8_image_bytes(codes.len() / k, k)];
    let strip_bytes = k.div_ceil(CHUNK_K) * CHUNK_BYTES;
    for (codes, strip) in codes
        .chunks(STRIP_ROWS * k)
        .zip(image.chunks_exact_mut(strip_bytes))
    {
        for (index, lane) in strip.chunks_exact_mut(LANE_BYTES).enumerate() {
            pack_lane(codes, k, index, lane);
        }
    }
    image
}

/// Bytes `index * 16` and on of a strip: of two rows, four columns and the next four.
fn pack_lane(codes: &[i8], k: usize, index: usize, out: &mut [u8]) {
    let (chunk, step, lane) = (index / 64, index / 32 % 2, index % 32);
    let column = chunk * CHUNK_K + lane % 4 * 16 + step * 8;
    for (part, out) in out.chunks_exact_mut(4).enumerate() {
        let (row, column) = (lane / 4 + part % 2 * 8, column + part / 2 * 4);
        let width = k.saturating_sub(column).min(4);
        let start = row * k + column;
        if let Some(codes) = codes.get(start..start + width) {
            out[..width].copy_from_slice(bytemuck::cast_slice(codes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_lies_where_its_lane_and_step_look_for_it() {
        let (n, k) = (21, 131);
        let code = |row: usize, column: usize| ((7 * row + 3 * column) % 255) as i32 - 127;
        let codes: Vec<i8> = (0..n * k).map(|i| code(i / k, i % k) as i8).collect();
        let image = pack_w8(&codes, k);
        let chunks = k.div_ceil(CHUNK_K);
        assert_eq!(image.len(), 2 * chunks * CHUNK_BYTES);
        for row in 0..n {
            for column in 0..k {
                let (in_strip, in_lane) = (row % 16, column % 16);
                let lane = in_strip % 8 * 4 + column % CHUNK_K / 16;
                let byte = (in_lane % 8 / 4 * 2 + in_strip / 8) * 4 + in_lane % 4;
                let step = (row / 16 * chunks + column / CHUNK_K) * 2 + in_lane / 8;
                let at = (step * 32 + lane) * LANE_BYTES + byte;
                assert_eq!(i32::from(image[at] as i8), code(row, column), "{row} {column}");
            }
        }
        let sum = |codes: &[i8]| codes.iter().map(|&code| i64::from(code)).sum::<i64>();
        assert_eq!(sum(bytemuck::cast_slice(&image)), sum(&codes));
    }
}

//! How many rows are searched at a time: buffers of errors are written and judged in parts that caches hold.

/// Bytes of candidate errors of groups written before they are judged: about a second-level cache, so they are read
/// back from there.
pub const GROUP_BUFFER_BYTES: usize = 2 << 20;

/// The same for whole rows: large enough that a pass over the Gram matrix serves many candidates.
pub const ROW_BUFFER_BYTES: usize = 16 << 20;

/// Rows whose candidates (`floats_per_row` floats for a row) fit a buffer; at least one.
pub fn rows_per_buffer(buffer_bytes: usize, floats_per_row: usize) -> usize {
    (buffer_bytes / size_of::<f32>() / floats_per_row.max(1)).max(1)
}

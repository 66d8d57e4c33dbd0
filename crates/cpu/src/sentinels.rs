//! For tests of what an operation writes: a buffer of marks around its outputs.

/// What `write` puts into `len` floats in the middle of a buffer of marks.
///
/// # Panics
/// When it writes beside them, or leaves some unwritten.
pub(crate) fn between_marks(len: usize, what: &str, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let (margin, mark) = (97, -12_345.5);
    let mut buffer = vec![mark; len + 2 * margin];
    write(&mut buffer[margin..margin + len]);
    let (before, rest) = buffer.split_at(margin);
    let (outputs, after) = rest.split_at(len);
    assert!(
        before.iter().chain(after).all(|v| *v == mark),
        "wrote beside {what}"
    );
    assert!(outputs.iter().all(|v| *v != mark), "left holes in {what}");
    outputs.to_vec()
}

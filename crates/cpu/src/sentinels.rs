//! For tests of what an operation writes: a buffer of sentinels around its outputs.

/// What `write` puts into `len` floats in the middle of a buffer of sentinels.
///
/// # Panics
/// When it writes beside them, or leaves some unwritten.
pub(crate) fn between_sentinels(len: usize, what: &str, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let (margin, sentinel) = (97, -12_345.5);
    let mut buffer = vec![sentinel; len + 2 * margin];
    write(&mut buffer[margin..margin + len]);
    let (before, rest) = buffer.split_at(margin);
    let (outputs, after) = rest.split_at(len);
    assert!(
        before.iter().chain(after).all(|v| *v == sentinel),
        "wrote beside {what}"
    );
    assert!(outputs.iter().all(|v| *v != sentinel), "left holes in {what}");
    outputs.to_vec()
}

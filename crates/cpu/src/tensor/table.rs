//! Embedding tables.

use dualgrain_device::DeviceError;
use dualgrain_format::FloatValues;

/// An embedding table `[entries, columns]` in the precision it came in.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) values: FloatValues,
    pub(crate) columns: usize,
}

impl Table {
    /// # Errors
    /// [`DeviceError::Length`] when `values` are no whole entries.
    pub(crate) fn new(
        device: impl FnOnce() -> String,
        values: FloatValues,
        columns: usize,
    ) -> Result<Self, DeviceError> {
        let len = values.len();
        if columns == 0 || !len.is_multiple_of(columns) {
            let expected = if columns == 0 {
                0
            } else {
                len.next_multiple_of(columns)
            };
            return Err(DeviceError::Length {
                what: "embedding table",
                device: device(),
                expected,
                got: len,
            });
        }
        Ok(Self { values, columns })
    }
}

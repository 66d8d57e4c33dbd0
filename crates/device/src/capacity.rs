//! How much a matrix holds.

use crate::{DeviceError, Done};

/// Replaces the contents of a buffer in the host's memory, which never grows, by what `operation` on the device `device`
/// uploads.
///
/// # Errors
/// [`DeviceError::Operation`] where that is more than there is room for.
pub fn refill<T: Copy>(
    buffer: &mut Vec<T>,
    operation: &'static str,
    device: impl FnOnce() -> String,
    values: &[T],
) -> Done {
    Capacity::new(buffer.capacity(), 1).check(operation, device, (values.len(), 1))?;
    buffer.clear();
    buffer.extend_from_slice(values);
    Ok(())
}

/// The room of a matrix: the rows and columns that it was made for. It may hold rows of another length where they take no
/// more elements, and it never grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    rows: usize,
    columns: usize,
}

impl Capacity {
    /// Room for `rows` rows of `columns` elements.
    pub fn new(rows: usize, columns: usize) -> Self {
        Self { rows, columns }
    }

    /// What `operation` on the device `device` asks before it writes `[rows, columns]`.
    ///
    /// # Errors
    /// [`DeviceError::Operation`] where that is more than there is room for.
    pub fn check(
        self,
        operation: &'static str,
        device: impl FnOnce() -> String,
        (rows, columns): (usize, usize),
    ) -> Done {
        let room = self.rows.saturating_mul(self.columns);
        if rows <= self.rows && rows.checked_mul(columns).is_some_and(|len| len <= room) {
            return Ok(());
        }
        Err(DeviceError::Operation {
            operation,
            device: device(),
            sizes: format!("{rows} x {columns}"),
            problem: format!("its output has room for {} x {}", self.rows, self.columns),
        })
    }
}

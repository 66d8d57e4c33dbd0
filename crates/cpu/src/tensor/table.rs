//! Embedding tables.

use dualgrain_format::FloatValues;

/// An embedding table `[entries, columns]` in the precision it came in.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) values: FloatValues,
    pub(crate) columns: usize,
}

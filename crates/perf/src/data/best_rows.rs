//! Of each configuration the best row that was measured of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::row::Row;

/// Rows in the order their configurations were first met, of each configuration the best.
#[derive(Debug, Default)]
pub(crate) struct BestRows {
    pub rows: Vec<Row>,
    places: HashMap<String, usize>,
}

impl BestRows {
    /// Takes a row of a new configuration, or one that is better than what is there.
    pub fn take(&mut self, row: Row) {
        match self.places.entry(row.key()) {
            Entry::Vacant(place) => {
                place.insert(self.rows.len());
                self.rows.push(row);
            }
            Entry::Occupied(place) => {
                let held = &mut self.rows[*place.get()];
                if row.is_better_than(held) {
                    *held = row;
                }
            }
        }
    }

    /// The row of a configuration.
    pub fn get(&self, key: &str) -> Option<&Row> {
        self.rows.get(*self.places.get(key)?)
    }
}

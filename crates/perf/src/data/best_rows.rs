//! Of each configuration the best row that was measured of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::row::Row;

/// The best row of each configuration, in the order in which the configurations were first met.
#[derive(Debug, Default)]
pub(crate) struct BestRows {
    pub rows: Vec<Row>,
    places: HashMap<String, usize>,
}

impl BestRows {
    /// Takes a row if its configuration is new, or if the row is better than the one that is held.
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

    /// The row of a configuration, by [`Row::key`].
    pub fn get(&self, key: &str) -> Option<&Row> {
        self.rows.get(*self.places.get(key)?)
    }
}

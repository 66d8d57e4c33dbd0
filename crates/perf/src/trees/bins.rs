//! A table of features, and its columns cut into bins that hold about as many rows each.

/// Features of rows, one row after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    width: usize,
    values: Vec<f32>,
}

impl Table {
    /// An empty table of `width` columns.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            values: Vec::new(),
        }
    }

    /// Appends a row. A value that is not finite becomes 0, so that it cannot fall between two bins.
    ///
    /// # Panics
    /// If the row has another width.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.width, "width of a row");
        let finite = |&value: &f32| if value.is_finite() { value } else { 0.0 };
        self.values.extend(row.iter().map(finite));
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// A row.
    pub fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.width..(at + 1) * self.width]
    }

    /// The rows named, in their order.
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut selected = Self::new(self.width);
        rows.iter()
            .for_each(|&row| selected.values.extend_from_slice(self.row(row)));
        selected
    }
}

/// A table whose values are replaced by the numbers of their bins.
#[derive(Debug, Clone)]
pub struct Bins {
    width: usize,
    /// `[rows][columns]`.
    codes: Vec<u8>,
    /// Of each column, the increasing values between its bins. Code `c` means above `borders[c - 1]` and at most `borders[c]`.
    borders: Vec<Vec<f32>>,
}

impl Bins {
    /// Cuts each column at up to `most - 1` borders, 255 at most.
    pub fn new(table: &Table, most: usize) -> Self {
        let borders: Vec<Vec<f32>> = (0..table.width())
            .map(|column| {
                let values = (0..table.len()).map(|row| table.row(row)[column]);
                borders(values.collect(), most.clamp(2, 256))
            })
            .collect();
        let mut codes = Vec::with_capacity(table.values.len());
        for row in 0..table.len() {
            let coded = table.row(row).iter().zip(&borders);
            codes
                .extend(coded.map(|(value, borders)| borders.partition_point(|border| border < value) as u8));
        }
        Self {
            width: table.width(),
            codes,
            borders,
        }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The bins of a row.
    pub fn row(&self, at: usize) -> &[u8] {
        &self.codes[at * self.width..(at + 1) * self.width]
    }

    /// Bins of a column.
    pub fn num_bins(&self, column: usize) -> usize {
        self.borders[column].len() + 1
    }

    /// The value that splits a column behind a bin: a value that is not above it lies in that bin or in an earlier one.
    pub fn border(&self, column: usize, bin: usize) -> f32 {
        self.borders[column][bin]
    }
}

/// The values that occur, increasing, and how often each does.
fn distinct(mut values: Vec<f32>) -> Vec<(f32, usize)> {
    values.sort_unstable_by(f32::total_cmp);
    let mut distinct: Vec<(f32, usize)> = Vec::new();
    for value in values {
        match distinct.last_mut() {
            Some((last, count)) if *last == value => *count += 1,
            _ => distinct.push((value, 1)),
        }
    }
    distinct
}

/// Borders between which about as many values lie. Each lies midway between two values that occur.
fn borders(values: Vec<f32>, most: usize) -> Vec<f32> {
    let num_rows = values.len();
    let distinct = distinct(values);
    let mut borders = Vec::new();
    let (mut filled, mut seen) = (0usize, 0usize);
    for pair in distinct.windows(2) {
        filled += pair[0].1;
        seen += pair[0].1;
        // The rows that are left are divided among the bins that are left.
        let wanted = (num_rows - seen + filled) / (most - borders.len()).max(1);
        if distinct.len() <= most || filled >= wanted.max(1) {
            borders.push(pair[0].0 + (pair[1].0 - pair[0].0) / 2.0);
            filled = 0;
        }
        if borders.len() == most - 1 {
            break;
        }
    }
    borders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_get_a_bin_each_and_many_share_evenly() {
        let mut table = Table::new(2);
        for row in 0..1000 {
            table.push(&[(row % 3) as f32, row as f32]);
        }
        let bins = Bins::new(&table, 64);
        assert_eq!((bins.num_bins(0), bins.num_bins(1)), (3, 64));
        assert_eq!(bins.row(5), &[2, bins.row(5)[1]]);
        let largest = (0..64).map(|bin| (0..1000).filter(|&row| bins.row(row)[1] == bin).count());
        assert!(largest.max().unwrap() <= 17);
    }

    #[test]
    fn border_puts_the_same_rows_on_a_side_as_the_bin_does() {
        let mut table = Table::new(1);
        for row in 0..500u32 {
            table.push(&[((row * row) % 97) as f32 / 7.0]);
        }
        let bins = Bins::new(&table, 16);
        for row in 0..table.len() {
            for bin in 0..bins.num_bins(0) - 1 {
                let above = table.row(row)[0] > bins.border(0, bin);
                assert_eq!(above, usize::from(bins.row(row)[0]) > bin);
            }
        }
    }

    #[test]
    fn values_that_are_no_numbers_do_not_get_in() {
        let mut table = Table::new(2);
        table.push(&[f32::NAN, f32::INFINITY]);
        assert_eq!(table.row(0), &[0.0, 0.0]);
    }
}

//! Records as rows.

use std::collections::BTreeMap;

use crate::committed::read;

/// A row by the names of its columns.
pub type Row = BTreeMap<String, String>;

/// The rows of a file in bench/record.
pub fn rows(record: &str) -> Vec<Row> {
    parsed(&read(&format!("bench/record/{record}")))
}

/// The rows of a CSV whose first lines may be comments.
pub fn parsed(text: &str) -> Vec<Row> {
    let mut lines = text.lines().filter(|line| !line.starts_with('#')).map(fields);
    let names = lines.next().unwrap_or_default();
    lines
        .map(|fields| names.iter().cloned().zip(fields).collect())
        .collect()
}

/// The fields of a line; commas between double quotes belong to the field.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            letter => fields.last_mut().expect("begins with one").push(letter),
        }
    }
    fields
}

/// A number of a row; none where the field is empty.
pub fn number(row: &Row, name: &str) -> Option<f64> {
    row.get(name)?.parse().ok()
}

/// Whether a row has these values.
pub fn has(row: &Row, wanted: &[(&str, &str)]) -> bool {
    wanted
        .iter()
        .all(|(name, value)| row.get(*name).is_some_and(|found| found == value))
}

/// The largest `name` of the rows with these values.
#[track_caller]
pub fn best(rows: &[Row], wanted: &[(&str, &str)], name: &str) -> f64 {
    let values = rows
        .iter()
        .filter(|row| has(row, wanted))
        .filter_map(|row| number(row, name));
    values
        .reduce(f64::max)
        .unwrap_or_else(|| panic!("no row has {wanted:?} with {name}"))
}

#[test]
fn commas_in_quotes_part_nothing() {
    assert_eq!(fields("a,\"b, c\",,1"), ["a", "b, c", "", "1"]);
    let rows = parsed("# of a machine\nname,value\n\"x, y\",2.5\n");
    assert!(has(&rows[0], &[("name", "x, y")]));
    assert_eq!(number(&rows[0], "value"), Some(2.5));
}

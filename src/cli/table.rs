//! Tables of text.

/// A table with a header row; columns of numbers are aligned to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widths = cells.chain([&header[column]]).map(|cell| cell.chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    let lines = [&header, &rule].into_iter().chain(rows);
    lines.map(|cells| line(cells, &widths)).collect()
}

/// The first cell to the left, the others to the right.
fn line(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).enumerate();
    let padded = padded.map(|(column, (cell, &width))| match column {
        0 => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    });
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
}

/// A cell, or a dash where there is nothing to show.
pub fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = table(
            &["name", "x"],
            &[
                vec!["a".into(), "10".into()],
                vec!["long name".into(), "1".into()],
            ],
        );
        assert_eq!(
            text,
            "name        x\n---------  --\na          10\nlong name   1\n"
        );
    }
}

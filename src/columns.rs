//! Named columns of a CSV file, as `bench gemm --csv` and others' times have them: lines beginning with # are words for people,
//! then a header, then plain fields.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The fields of `names` in each line of a file.
pub fn read<const N: usize>(path: &Path, names: [&str; N]) -> Result<Vec<[String; N]>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text, names).with_context(|| path.display().to_string())
}

fn parse<const N: usize>(text: &str, names: [&str; N]) -> Result<Vec<[String; N]>> {
    let mut lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let header: Vec<&str> = lines.next().context("the file is empty")?.split(',').collect();
    let mut places = [0; N];
    for (place, name) in places.iter_mut().zip(names) {
        let found = header.iter().position(|column| *column == name);
        *place = found.with_context(|| format!("there is no column {name}"))?;
    }
    let mut rows = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        ensure!(
            fields.len() == header.len(),
            "{line}: expected {} fields",
            header.len()
        );
        rows.push(places.map(|place| fields[place].to_owned()));
    }
    ensure!(!rows.is_empty(), "there are no lines behind the header");
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_what_is_missing_is_said() {
        let text = "# words\nb,a,c\n1,2,3\n\n4,5,6\n";
        let rows = parse(text, ["a", "b"]).unwrap();
        assert_eq!(
            rows,
            [["2".to_owned(), "1".to_owned()], ["5".to_owned(), "4".to_owned()]]
        );
        let said = |text: &str| parse(text, ["a", "b"]).unwrap_err().to_string();
        assert!(said("").contains("empty"));
        assert!(said("a,c\n1,2\n").contains("no column b"));
        assert!(said("a,b\n").contains("no lines"));
        assert!(said("a,b\n1\n").contains("expected 2 fields"));
    }
}

//! Named columns of a CSV file, as `bench gemm --csv` and others' times have them: lines beginning with # are words for people,
//! then a header, then plain fields.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use dualgrain::format::text::read_text;

/// A file's header and the fields of its lines.
pub struct Columns<'t> {
    /// What the columns are called.
    pub header: Vec<&'t str>,
    /// Of each line as many fields as there are columns.
    pub rows: Vec<Vec<&'t str>>,
}

impl<'t> Columns<'t> {
    /// Cuts a text into fields.
    pub fn parse(text: &'t str) -> Result<Self> {
        let mut lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let header: Vec<&str> = lines.next().context("the file is empty")?.split(',').collect();
        let fields = |line: &'t str| {
            let fields: Vec<&str> = line.split(',').collect();
            ensure!(
                fields.len() == header.len(),
                "{line}: expected {} fields",
                header.len()
            );
            Ok(fields)
        };
        let rows = lines.map(fields).collect::<Result<_>>()?;
        Ok(Self { header, rows })
    }

    /// Which column a name is.
    pub fn place(&self, name: &str) -> Result<usize> {
        let found = self.header.iter().position(|column| *column == name);
        found.with_context(|| format!("there is no column {name}"))
    }
}

/// The fields of `names` in each line of a file.
pub fn read<const N: usize>(path: &Path, names: [&str; N]) -> Result<Vec<[String; N]>> {
    let text = read_text(path)?;
    named(&text, names).with_context(|| path.display().to_string())
}

fn named<const N: usize>(text: &str, names: [&str; N]) -> Result<Vec<[String; N]>> {
    let columns = Columns::parse(text)?;
    let mut places = [0; N];
    for (place, name) in places.iter_mut().zip(names) {
        *place = columns.place(name)?;
    }
    ensure!(!columns.rows.is_empty(), "there are no lines behind the header");
    let rows = columns.rows.iter();
    Ok(rows
        .map(|fields| places.map(|place| fields[place].to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_what_is_missing_is_said() {
        let text = "# words\nb,a,c\n1,2,3\n\n4,5,6\n";
        let rows = named(text, ["a", "b"]).unwrap();
        assert_eq!(
            rows,
            [["2".to_owned(), "1".to_owned()], ["5".to_owned(), "4".to_owned()]]
        );
        let said = |text: &str| named(text, ["a", "b"]).unwrap_err().to_string();
        assert!(said("").contains("empty"));
        assert!(said("a,c\n1,2\n").contains("no column b"));
        assert!(said("a,b\n").contains("no lines"));
        assert!(said("a,b\n1\n").contains("expected 2 fields"));
    }
}

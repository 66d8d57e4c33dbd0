//! A section of the report, and what several sections need: names of configurations, colours of kernels, rooflines of
//! rows.

use crate::data::Row;
use crate::machine::Machine;
use crate::operands::OperandTypes;
use crate::report::plot::Series;
use crate::roofline::Roofline;

/// Why what comes from a model is not there.
pub(crate) const NO_MODEL: &str = "No model could be fitted to this set, and none was named.";

/// A part of the page.
pub(crate) struct Section {
    pub(crate) anchor: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) explanation: String,
    /// The HTML, or why there is none.
    pub(crate) body: Result<String, String>,
}

/// How a row's configuration is called when it is pointed at.
pub(crate) fn row_title(row: &Row) -> String {
    let mut name = row.kernel.clone();
    if !row.config.is_empty() {
        name += &format!(" {}", row.config);
    }
    format!("{name}, {} x {} x {} {}", row.m, row.n, row.k, row.layout)
}

/// Kernels in the order of their first letters with a series for each; those beyond the last series share it.
pub(crate) fn kernel_series(rows: &[&Row]) -> Vec<(Series, String)> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.kernel.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| (Series(index), name.to_owned()))
        .collect()
}

/// Bytes and operations of a row; `None` for a kernel whose types its name does not tell.
pub(crate) fn roofline_of_row(row: &Row, machine: Option<&Machine>) -> Option<Roofline> {
    let operand_types = OperandTypes::of_kernel(&row.kernel).ok()?;
    Some(Roofline::new(
        &operand_types,
        &row.product(),
        &row.output,
        machine?,
    ))
}

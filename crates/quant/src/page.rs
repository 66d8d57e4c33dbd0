//! The report as one self-contained page.

use crate::report::QuantReport;

/// The page's HTML.
pub fn html(report: &QuantReport) -> String {
    format!(
        "<!doctype html><title>Quantization report</title><p>{} linears",
        report.linears.len()
    )
}

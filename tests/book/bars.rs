//! Pictures of the book as files of their own: their style, and bars in which this program stands out.

use std::fmt::Write;

use dualgrain_perf::report::plot::escaped;

const STYLE: &str = "text{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif;font-size:13px;fill:#1f2328}\
    .title,.quiet{fill:#59636e}.strong{font-weight:600}.sheet{fill:#fff;stroke:#d1d9e0}.grid{stroke:#e4e8ec;stroke-width:1}.axis{stroke:#818b98;fill:none}\
    .s0{color:#0b63ce}.s1{color:#b3541e}.s2{color:#1b7f4d}.s3{color:#8a3fb0}.s4{color:#a8790a}\
    polyline{fill:none;stroke:currentColor;stroke-width:2}circle,rect.bar,g rect,.mark{fill:currentColor}.cross{stroke:currentColor;stroke-width:2;fill:none}\
    .words{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}\
    @media(prefers-color-scheme:dark){text{fill:#f0f6fc}.title,.quiet{fill:#9198a1}.sheet{fill:#0d1117;stroke:#3d444d}.grid{stroke:#262c33}\
    .s0{color:#6fb1ff}.s1{color:#ffa36b}.s2{color:#5fd39a}.s3{color:#d59bf2}.s4{color:#e8c25a}.words{stroke:#0d1117}}";

const WIDTH: f64 = 460.0;
const MARGIN: f64 = 14.0;
const ROW: f64 = 24.0;
/// Room for a value behind its bar.
const VALUE: f64 = 60.0;
/// Above the first bar: a title and what is measured.
const TOP: f64 = 58.0;

/// A picture of `size` as a file: a sheet with a title, a line below it, and what `inside` draws.
pub fn picture(title: &str, below: &str, (width, height): (f64, f64), inside: &str) -> String {
    let (title, below) = (escaped(title), escaped(below));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n<rect class=\"sheet\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n\
         <text class=\"strong\" x=\"{MARGIN}\" y=\"24\">{title}</text>\n<text class=\"quiet\" x=\"{MARGIN}\" y=\"43\">{below}</text>\n{inside}</svg>\n",
        width - 1.0,
        height - 1.0,
    )
}

/// Bars from zero, one below the other; those of this program have its colour.
pub fn bars(title: &str, below: &str, values: &[(&str, f64)]) -> String {
    let most = values
        .iter()
        .map(|(_, value)| *value)
        .fold(f64::MIN_POSITIVE, f64::max);
    let names = values
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let left = MARGIN + 7.6 * names as f64;
    let mut inside = String::new();
    for (index, (name, value)) in values.iter().enumerate() {
        let top = TOP + ROW * index as f64;
        let length = (WIDTH - MARGIN - VALUE - left) * value / most;
        let class = if name.starts_with("dualgrain") { "s0" } else { "s1" };
        let _ = writeln!(
            inside,
            "<g class=\"{class}\"><text x=\"{MARGIN}\" y=\"{:.0}\">{}</text>\
             <rect x=\"{left:.1}\" y=\"{top:.0}\" width=\"{length:.1}\" height=\"{:.0}\"/><text x=\"{:.1}\" y=\"{:.0}\">{}</text></g>",
            top + 14.0,
            escaped(name),
            ROW - 6.0,
            left + length + 6.0,
            top + 14.0,
            written(*value)
        );
    }
    picture(
        title,
        below,
        (WIDTH, TOP + ROW * values.len() as f64 + 8.0),
        &inside,
    )
}

/// A number as the pages write it: thousands parted by commas, small ones with a decimal.
pub fn written(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let parts: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|part| std::str::from_utf8(part).unwrap())
        .collect();
    parts.join(",")
}

#[test]
fn numbers_read_as_on_the_pages() {
    let read = [9.96, 52.44, 100.0, 1301.6, 26_234.8].map(written);
    assert_eq!(read, ["10.0", "52.4", "100", "1,302", "26,235"]);
}

//! The report as one self-contained page: no script, no network, readable in light and dark.

use std::fmt::Write;

use dualgrain_engine::Role;

use crate::budget::choice::Choice;
use crate::budget::level::LEVELS;
use crate::budget::sensitivity::Sensitivity;
use crate::report::json::{LinearReport, QuantReport};
use crate::transform::smoothing::CANDIDATE_PERCENTILES;

/// Size of the picture in its own units.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 384.0;
/// The plot inside the picture: left, top, right, bottom.
const PLOT: [f64; 4] = [74.0, 16.0, 846.0, 306.0];

/// Errors below this are drawn at it: the axis is logarithmic.
const SMALLEST_ERROR: f64 = 1e-9;

const STYLE: &str = "
:root{--page:#fff;--ink:#1d2127;--soft:#5c6570;--line:#d9dde2;--qkv:#0b63ce;--out:#b3541e;--up:#1b7f4d;--down:#8a3fb0}
@media(prefers-color-scheme:dark){:root{--page:#14171b;--ink:#e6e9ed;--soft:#9aa4b0;--line:#343b44;--qkv:#6fb1ff;\
--out:#ffa36b;--up:#5fd39a;--down:#d59bf2}}
body{background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.15rem;margin-top:2.2rem}
p.note{color:var(--soft)}svg{width:100%;height:auto;display:block}
svg text{fill:var(--ink);font-size:13px}svg .grid{stroke:var(--line)}svg .axis{stroke:var(--soft)}
.qkv{color:var(--qkv)}.out{color:var(--out)}.up{color:var(--up)}.down{color:var(--down)}
svg polyline{fill:none;stroke:currentColor;stroke-width:2}svg circle,svg rect,svg path.mark{fill:currentColor}
.scroll{overflow-x:auto;width:max-content;min-width:100%;max-width:calc(100vw - 3rem);position:relative;left:50%;transform:translateX(-50%)}.scroll svg{min-width:36rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem;width:100%}
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600;white-space:normal;vertical-align:bottom}th:first-child,td:first-child{text-align:left}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1.2rem}dt{color:var(--soft)}dd{margin:0}";

/// The page's HTML.
pub fn html(report: &QuantReport) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Quantization report: {model}</title><style>{STYLE}</style></head><body>\
         <h1>Quantization report: {model}</h1>",
        model = escaped(&report.model)
    );
    page += &summary(report);
    page += "<h2>Weight error of every linear</h2><p class=\"note\">Squared error of the layer's output on the calibration \
             tokens by the squared output, 4-bit weights alone. Lower is better; the axis is logarithmic.</p>";
    let linears = joined(&report.linears);
    page += &chart(&linears);
    page += "<h2>Smoothing percentile</h2><p class=\"note\">Mean over the linears whose input can be smoothed, on a sample of rows \
             rounded to nearest: what another percentile would have given. 100 is no smoothing.</p>";
    page += &sweep_table(&report.linears);
    page += &report.choice.as_ref().map_or_else(String::new, choice_section);
    page += "<h2>All linears</h2>";
    page += &linear_table(&linears);
    page += &few_tokens(&report.linears);
    page += "</body></html>\n";
    page
}

fn summary(report: &QuantReport) -> String {
    let mut list = String::from("<dl>");
    let calibration = format!(
        "{} windows of {} tokens",
        report.num_windows, report.window_tokens
    );
    let calibration = ("calibration".to_owned(), calibration);
    for (name, value) in report.options.iter().chain([&calibration]) {
        let _ = write!(list, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value));
    }
    list += "</dl>";
    if let Some(notice) = &report.notice {
        let _ = write!(list, "<p><strong>Note:</strong> {}</p>", escaped(notice));
    }
    list
}

/// The picture: one line a role over the blocks.
fn chart(linears: &[LinearReport]) -> String {
    let errors = || linears.iter().map(|l| l.weight_nmse.max(SMALLEST_ERROR));
    let low = errors().fold(f64::INFINITY, f64::min).log10().floor();
    let high = errors()
        .fold(SMALLEST_ERROR, f64::max)
        .log10()
        .ceil()
        .max(low + 1.0);
    let last_layer = linears.iter().map(|l| l.layer).max().unwrap_or(0);
    let [left, top, right, bottom] = PLOT;
    let x = |layer: usize| left + 20.0 + (right - left - 40.0) * layer as f64 / last_layer.max(1) as f64;
    let y = |error: f64| bottom - (bottom - top) * (error.max(SMALLEST_ERROR).log10() - low) / (high - low);
    let mut svg = format!(
        "<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Weight error of every linear by block\">"
    );
    for tick in log_ticks(low, high) {
        let at = y(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            left - 8.0,
            at + 4.0,
        );
    }
    let step = (last_layer + 1).div_ceil(20);
    for layer in (0..=last_layer).step_by(step.max(1)) {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{layer}</text>",
            x(layer),
            bottom + 18.0
        );
    }
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"{left}\" x2=\"{left}\" y1=\"{top}\" y2=\"{bottom}\"/>\
         <line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">block</text>\
         <text transform=\"rotate(-90)\" x=\"{:.1}\" y=\"16\" text-anchor=\"middle\">normalized squared error</text>",
        (left + right) / 2.0,
        bottom + 36.0,
        -(top + bottom) / 2.0,
    );
    for (index, role) in Role::ALL.map(Role::name).into_iter().enumerate() {
        svg += &series(index, role, linears, &x, &y);
    }
    svg + "</svg></div>"
}

/// Ticks at 1, 2, 5 of every decade when there are few decades, at 1 otherwise.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let steps: &[f64] = if high - low <= 2.0 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let decades = low as i32..=high as i32;
    decades
        .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
        .filter(|tick| tick.log10() <= high + 1e-9)
        .collect()
}

/// One role: line, marks, its entry in the legend.
fn series(
    index: usize,
    role: &str,
    linears: &[LinearReport],
    x: &dyn Fn(usize) -> f64,
    y: &dyn Fn(f64) -> f64,
) -> String {
    let mut points = String::new();
    let mut marks = String::new();
    for linear in linears.iter().filter(|linear| linear.role == role) {
        let (px, py) = (x(linear.layer), y(linear.weight_nmse));
        let _ = write!(points, "{px:.1},{py:.1} ");
        let _ = write!(
            marks,
            "<g><title>block {} {role}: {}</title>{}</g>",
            linear.layer,
            rounded(linear.weight_nmse),
            mark(index, px, py)
        );
    }
    let legend_x = PLOT[0] + 20.0 + index as f64 * 92.0;
    format!(
        "<g class=\"{role}\"><polyline points=\"{}\"/>{marks}<line x1=\"{legend_x}\" x2=\"{}\" y1=\"370\" y2=\"370\" \
         stroke=\"currentColor\" stroke-width=\"2\"/>{}</g><text x=\"{}\" y=\"374\">{role}</text>",
        points.trim_end(),
        legend_x + 28.0,
        mark(index, legend_x + 14.0, 370.0),
        legend_x + 36.0,
    )
}

/// A shape of its own for every role, so that colours are not the only difference.
fn mark(index: usize, x: f64, y: f64) -> String {
    match index {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"),
        1 => format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\"/>",
            x - 4.0,
            y - 4.0
        ),
        2 => format!("<path class=\"mark\" d=\"M{x:.1} {:.1}l5 9h-10z\"/>", y - 5.5),
        _ => format!(
            "<path class=\"mark\" d=\"M{x:.1} {:.1}l5.5 5.5l-5.5 5.5l-5.5 -5.5z\"/>",
            y - 5.5
        ),
    }
}

fn sweep_table(linears: &[LinearReport]) -> String {
    let mut table = String::from(
        "<div class=\"scroll\"><table><thead><tr><th>percentile</th><th>weight error</th><th>activation error</th>\
         <th>sum</th><th>channels smoothed</th></tr></thead><tbody>",
    );
    for percentile in CANDIDATE_PERCENTILES {
        let points = || {
            let all = linears.iter().flat_map(|linear| &linear.sweep);
            all.filter(|point| point.percentile == percentile)
        };
        let count = points().count().max(1) as f64;
        let weight = points().map(|point| point.weight_nmse).sum::<f64>() / count;
        let activation = points().map(|point| point.activation_nmse).sum::<f64>() / count;
        let smoothed: usize = points().map(|point| point.num_smoothed).sum();
        let _ = write!(
            table,
            "<tr><td>{percentile}</td><td>{}</td><td>{}</td><td>{}</td><td>{smoothed}</td></tr>",
            rounded(weight),
            rounded(activation),
            rounded(weight + activation),
        );
    }
    table + "</tbody></table></div>"
}

/// What a budget of bits was spent on.
fn choice_section(choice: &Choice) -> String {
    let mut section = format!(
        "<h2>How the budget was spent</h2><p class=\"note\">{} of {} allowed. Divergence is the model's from the original when this linear alone \
         is rounded to nearest, measured on text that calibration did not touch; of all linears together {} is expected where the fewest bits \
         would leave {}.</p><div class=\"scroll\"><table><thead><tr><th>block</th><th>linear</th>",
        escaped(&choice.summary()),
        choice.budget_bits,
        rounded(choice.expected_divergence),
        rounded(choice.divergence_of_fewest_bits),
    );
    for scheme in LEVELS {
        let _ = write!(section, "<th>{scheme}</th>");
    }
    section += "<th>chosen</th></tr></thead><tbody>";
    for linear in &choice.linears {
        let Sensitivity { layer, role, .. } = &linear.sensitivity;
        let _ = write!(section, "<tr><td>{layer}</td><td class=\"{role}\">{role}</td>");
        for level in 0..LEVELS.len() {
            let divergence = rounded(linear.sensitivity.divergence_at(level));
            let _ = write!(section, "<td>{divergence}</td>");
        }
        let _ = write!(section, "<td>{}</td></tr>", escaped(&linear.scheme));
    }
    section + "</tbody></table></div>"
}

/// The experts of a block in one line for each role, as means and largest values.
fn joined(linears: &[LinearReport]) -> Vec<LinearReport> {
    let mut lines: Vec<(usize, LinearReport)> = Vec::new();
    for linear in linears {
        let is_alike = |(_, line): &&mut (usize, LinearReport)| {
            line.expert.is_some() && (line.layer, &line.role) == (linear.layer, &linear.role)
        };
        match lines
            .iter_mut()
            .find(is_alike)
            .filter(|_| linear.expert.is_some())
        {
            None => {
                let count = linear.expert.map(|_| 1);
                lines.push((
                    1,
                    LinearReport {
                        expert: count,
                        ..linear.clone()
                    },
                ));
            }
            Some((count, line)) => {
                *count += 1;
                let part = 1.0 / *count as f64;
                line.weight_nmse += (linear.weight_nmse - line.weight_nmse) * part;
                line.activation_nmse += (linear.activation_nmse - line.activation_nmse) * part;
                line.num_outliers = line.num_outliers.max(linear.num_outliers);
                line.outlier_ratio = line.outlier_ratio.max(linear.outlier_ratio);
                line.num_dead = line.num_dead.max(linear.num_dead);
                line.num_scales_outside_f16 += linear.num_scales_outside_f16;
                // Now the number of experts in the line.
                line.expert = Some(*count);
            }
        }
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Experts that were not quantized by statistics of their own.
fn few_tokens(linears: &[LinearReport]) -> String {
    let mut table = String::new();
    for linear in linears {
        if let (Some(took), Some(expert)) = (&linear.took, linear.expert) {
            let _ = write!(
                table,
                "<tr><td>{}</td><td>{expert}</td><td class=\"{role}\">{role}</td><td>{}</td><td>{}</td></tr>",
                linear.layer,
                linear.num_tokens.unwrap_or_default(),
                escaped(took),
                role = linear.role,
            );
        }
    }
    if table.is_empty() {
        return table;
    }
    format!(
        "<h2>Experts that saw few tokens</h2><p class=\"note\">Fewer calibration tokens went to them than their inputs have channels. They were \
         quantized by the inputs of all experts of their block, or rounded to nearest, whichever erred less on the tokens they saw. A longer \
         calibration text (--windows) gives them more.</p><div class=\"scroll\"><table><thead><tr><th>block</th><th>expert</th><th>linear</th>\
         <th>tokens</th><th>quantized by</th></tr></thead><tbody>{table}</tbody></table></div>"
    )
}

/// What a line is about: a linear, or those of all experts.
fn named(linear: &LinearReport) -> String {
    match linear.expert {
        None => linear.role.clone(),
        Some(count) => format!("{} of {count} experts", linear.role),
    }
}

fn linear_table(linears: &[LinearReport]) -> String {
    let mut table = String::from(
        "<div class=\"scroll\"><table><thead><tr><th>block</th><th>linear</th><th>N x K</th><th>weight error</th>\
         <th>activation error</th><th>outlier channels</th><th>loudest / median</th><th>percentile</th><th>smoothed</th><th>largest scale</th>\
         <th>silent</th><th>s1 ratio</th><th>fits fp16</th></tr></thead><tbody>",
    );
    for l in linears {
        let _ = write!(
            table,
            "<tr><td>{}</td><td class=\"{role}\">{}</td><td>{} x {}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td>\
             <td>{}</td><td>{}</td><td>{:.2}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            l.layer,
            named(l),
            l.n,
            l.k,
            rounded(l.weight_nmse),
            rounded(l.activation_nmse),
            l.num_outliers,
            l.outlier_ratio,
            l.percentile
                .map_or("off".to_owned(), |percentile| percentile.to_string()),
            l.num_smoothed,
            l.largest_smoothing,
            l.num_dead,
            median_ratio(&l.ratio_histogram),
            if l.num_scales_outside_f16 == 0 && l.group_divides_k {
                "yes"
            } else {
                "no"
            },
            role = l.role,
        );
    }
    table + "</tbody></table></div>"
}

/// The ratio the middle row chose.
fn median_ratio(histogram: &[u32]) -> String {
    let rows: u32 = histogram.iter().sum();
    let mut seen = 0;
    for (index, count) in histogram.iter().enumerate() {
        seen += count;
        if rows > 0 && 2 * seen >= rows {
            return format!("{:.2}", crate::methods::dgq::candidates::channel_ratio(index));
        }
    }
    "1.00".to_owned()
}

/// Three digits.
fn rounded(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    format!("{value:.digits$}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(rounded(0.004_567), "0.00457");
        assert_eq!(rounded(12.34), "12.3");
        assert_eq!(rounded(0.0), "0");
    }

    #[test]
    fn ticks_stay_inside_the_axis() {
        assert_eq!(log_ticks(-3.0, -2.0), [0.001, 0.002, 0.005, 0.01]);
        assert_eq!(log_ticks(-6.0, -3.0).len(), 4);
    }

    #[test]
    fn text_from_outside_cannot_become_markup() {
        let report = QuantReport {
            model: "a <model>".into(),
            options: vec![("smoothing".into(), "<script>".into())],
            num_windows: 1,
            window_tokens: 2,
            notice: Some("a & b".into()),
            choice: None,
            linears: Vec::new(),
        };
        let page = html(&report);
        assert!(
            !page.contains("<model>")
                && !page.contains("<script>")
                && page.contains("&lt;script&gt;")
                && page.contains("a &amp; b")
        );
    }
}

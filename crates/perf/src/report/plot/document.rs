//! The HTML document around pictures: style, headings, tables, legends.

use std::fmt::Write;

use super::escape::escaped;
use super::series::Series;

const STYLE: &str = "
:root{color-scheme:light dark;--page:#fff;--ink:#1d2127;--soft:#5c6570;--line:#d9dde2;--over:#fff;\
--s0:#0b63ce;--s1:#b3541e;--s2:#1b7f4d;--s3:#8a3fb0;--s4:#a8790a;--s5:#c02d62;--s6:#0d7f8a;--s7:#6b5f55;\
--s8:#3f4fd6;--s9:#8c6239;--s10:#5c8f00;--s11:#d0489e;--s12:#e0662b;--s13:#7a1f3d;--s14:#00a3c4;--s15:#3c3c3c}
@media(prefers-color-scheme:dark){:root{--page:#14171b;--ink:#e6e9ed;--soft:#9aa4b0;--line:#343b44;--over:#14171b;\
--s0:#6fb1ff;--s1:#ffa36b;--s2:#5fd39a;--s3:#d59bf2;--s4:#e8c25a;--s5:#ff8bb0;--s6:#59cfda;--s7:#c4b5a5;\
--s8:#9aa6ff;--s9:#d9b38c;--s10:#b5e05a;--s11:#ff9ae0;--s12:#ffb380;--s13:#e88aa6;--s14:#7fe3ff;--s15:#e6e6e6}}
body{background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;line-height:1.2;margin-bottom:.4rem}h2{font-size:1.25rem;margin:2.6rem 0 .4rem}
p{max-width:46rem;margin:.5rem 0}p.note{color:var(--soft)}p.answer{border-left:3px solid var(--s0);padding-left:.8rem}
p.absent{color:var(--soft);border:1px dashed var(--line);border-radius:6px;padding:.6rem .9rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:1rem 1.6rem;align-items:start}
figure{margin:.8rem 0;min-width:0}figcaption{font-weight:600;font-size:.95rem}
.wide{overflow-x:auto}.wide svg{min-width:40rem}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;margin:.2rem 0;font-size:.85rem;color:var(--soft)}
.legend svg{display:inline-block;width:14px;height:14px;vertical-align:-2px;margin-right:.35rem}
svg{width:100%;height:auto;display:block;overflow:visible}svg text{fill:var(--ink);font-size:12px;font-variant-numeric:tabular-nums}
svg text.title{fill:var(--soft)}svg text.words{fill:var(--ink);paint-order:stroke;stroke:var(--page);stroke-width:4px;stroke-linejoin:round}svg text.over{fill:var(--over)}
.s0{color:var(--s0)}.s1{color:var(--s1)}.s2{color:var(--s2)}.s3{color:var(--s3)}.s4{color:var(--s4)}.s5{color:var(--s5)}.s6{color:var(--s6)}.s7{color:var(--s7)}
.s8{color:var(--s8)}.s9{color:var(--s9)}.s10{color:var(--s10)}.s11{color:var(--s11)}.s12{color:var(--s12)}.s13{color:var(--s13)}.s14{color:var(--s14)}.s15{color:var(--s15)}
.grid line,svg .grid{stroke:var(--line);stroke-width:1}svg .axis{stroke:var(--soft);fill:none}
svg .rule{stroke:var(--ink);stroke-width:1.2;stroke-dasharray:5 4;fill:none}
svg polyline{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
svg .dots{stroke:currentColor;stroke-width:2.2;stroke-linecap:round;stroke-opacity:.55;fill:none}
svg .few{stroke:currentColor;stroke-width:3.6;stroke-linecap:round;stroke-opacity:.7;fill:none}
svg .d0,svg .d1,svg .d2,svg .d3{fill:currentColor}svg .d0{fill-opacity:.4}svg .d1{fill-opacity:.6}svg .d2{fill-opacity:.8}
svg .band{fill:currentColor;fill-opacity:.18;stroke:none}svg circle,svg rect,svg .mark{fill:currentColor}
svg .cross{stroke:currentColor;stroke-width:2;fill:none}svg .span{fill-opacity:.4}svg .bar{fill-opacity:.8}
svg .whisker{stroke:var(--ink);stroke-width:1.6;fill:none}
.plus{color:var(--s0)}.minus{color:var(--s1)}
.scroll{overflow-x:auto;width:max-content;min-width:100%;max-width:calc(100vw - 3rem);position:relative;left:50%;transform:translateX(-50%)}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.85rem;width:100%}
th,td{text-align:right;padding:.25rem .45rem;border-bottom:1px solid var(--line);white-space:nowrap}
.broken td{white-space:normal;vertical-align:top}th{color:var(--soft);font-weight:600;white-space:normal;vertical-align:bottom}th:first-child,td:first-child{text-align:left}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1.2rem}dt{color:var(--soft)}dd{margin:0;min-width:0;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.9rem}a{color:var(--s0)}
@media(max-width:480px){svg text{font-size:13px}}
@media print{body{max-width:none}h2{break-after:avoid}figure{break-inside:avoid}}";

/// A page under construction. Every piece that is added is HTML already; texts from outside go through [`escaped`].
#[derive(Debug, Clone)]
pub struct Document {
    html: String,
}

impl Document {
    /// A page with its heading.
    pub fn new(title: &str) -> Self {
        let title = escaped(title);
        Self {
            html: format!(
                "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
                 <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
                 <meta name=\"generator\" content=\"dualgrain\">\
                 <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
            ),
        }
    }

    /// Names and values, in order.
    pub fn facts(mut self, facts: &[(&str, String)]) -> Self {
        self.html += "<dl>";
        for (name, value) in facts {
            let _ = write!(self.html, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value));
        }
        self.html += "</dl>\n";
        self
    }

    /// Links to the sections that follow: (anchor, heading).
    pub fn contents(mut self, sections: &[(&str, &str)]) -> Self {
        self.html += "<nav>";
        for (anchor, heading) in sections {
            let _ = write!(self.html, "<a href=\"#{anchor}\">{}</a>", escaped(heading));
        }
        self.html += "</nav>\n";
        self
    }

    /// A heading, what there is to know before looking, and the section's HTML.
    pub fn section(mut self, anchor: &str, heading: &str, explanation: &str, body: &str) -> Self {
        let _ = writeln!(
            self.html,
            "<h2 id=\"{anchor}\">{}</h2>{}{body}",
            escaped(heading),
            note(explanation)
        );
        self
    }

    /// A paragraph of plain text.
    pub fn paragraph(mut self, text: &str) -> Self {
        let _ = writeln!(self.html, "<p>{}</p>", escaped(text));
        self
    }

    /// The file's text.
    pub fn html(self) -> String {
        self.html + "</body></html>\n"
    }
}

/// A paragraph that explains; nothing when there is nothing to explain.
pub fn note(text: &str) -> String {
    match text {
        "" => String::new(),
        _ => format!("<p class=\"note\">{}</p>", escaped(text)),
    }
}

/// Says why a picture is not there.
pub fn absent(reason: &str) -> String {
    format!("<p class=\"absent\">{}</p>", escaped(reason))
}

/// Figures side by side where there is room.
pub fn side_by_side(figures: &[String]) -> String {
    format!("<div class=\"grid\">{}</div>", figures.concat())
}

/// A picture with its caption and legend.
pub fn figure(caption: &str, legend: &str, svg: &str) -> String {
    format!(
        "<figure><figcaption>{}</figcaption>{legend}{svg}</figure>",
        escaped(caption)
    )
}

/// The same for a picture that needs the whole width; narrow screens scroll it.
pub fn wide(caption: &str, legend: &str, svg: &str) -> String {
    figure(caption, legend, &format!("<div class=\"wide\">{svg}</div>"))
}

/// A line under a caption.
pub fn subcaption(text: &str) -> String {
    format!("<p class=\"legend\">{}</p>", escaped(text))
}

/// Marks and names of series.
pub fn legend<N: AsRef<str>>(names: &[(Series, N)]) -> String {
    let mut html = String::from("<p class=\"legend\">");
    for (series, name) in names {
        let _ = write!(
            html,
            "<span><svg class=\"{}\" viewBox=\"0 0 14 14\" aria-hidden=\"true\">{}</svg>{}</span>",
            series.class(),
            series.marker(7.0, 7.0),
            escaped(name.as_ref())
        );
    }
    html + "</p>"
}

/// A table; the first column holds names, the others numbers.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"scroll\"><table><thead><tr>");
    for name in header {
        let _ = write!(html, "<th>{}</th>", escaped(name));
    }
    html += "</tr></thead><tbody>";
    for row in rows {
        html += "<tr>";
        for value in row {
            let _ = write!(html, "<td>{}</td>", escaped(value));
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

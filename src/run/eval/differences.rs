//! How a model's divergence from its original is spread: by size, by position, and the tokens where it is largest.

use anyhow::Result;
use dualgrain::engine::evaluate::{DivergenceReport, Guess, Percentiles, PositionMean, WorstToken};
use dualgrain::engine::tokenizer::Tokenizer;
use serde::Serialize;

use crate::cli::table::table;

/// What `eval --reference` says beyond means.
#[derive(Debug, Serialize)]
pub struct Differences {
    /// Percentiles of KL(original || model), nats.
    kl_percentiles: Percentiles,
    /// Its mean by position in a window.
    kl_by_position: Vec<PositionMean>,
    /// Mean change of the probability of the text's own tokens.
    probability_change: f64,
    probability_change_stderr: f64,
    probability_change_rms: f64,
    /// Where the models differ most, the worst first.
    worst_tokens: Vec<WorstText>,
}

/// A position where the models differ, in words.
#[derive(Debug, Serialize)]
struct WorstText {
    window: usize,
    position: usize,
    kl_divergence: f64,
    /// The text that both models have read last.
    before: String,
    original: GuessText,
    model: GuessText,
    /// The text's own next token.
    next: Option<String>,
}

/// What a model finds likeliest.
#[derive(Debug, Serialize)]
struct GuessText {
    token: String,
    probability: f64,
}

impl Differences {
    /// Those of `report`, its tokens as `tokenizer` writes them.
    pub fn new(report: &DivergenceReport, tokenizer: &Tokenizer) -> Result<Self> {
        let worst = report.worst_tokens.iter();
        Ok(Self {
            kl_percentiles: report.kl_percentiles,
            kl_by_position: report.kl_by_position.clone(),
            probability_change: report.probability_change,
            probability_change_stderr: report.probability_change_stderr,
            probability_change_rms: report.probability_change_rms,
            worst_tokens: worst
                .map(|worst| WorstText::new(worst, tokenizer))
                .collect::<Result<_>>()?,
        })
    }

    /// One line on how KL divergence is spread.
    pub fn percentiles_text(&self) -> String {
        let Percentiles {
            median,
            p90,
            p95,
            p99,
            p99_9,
            max,
        } = self.kl_percentiles;
        format!(
            "  percentiles    50 %: {median:.5}, 90 %: {p90:.4}, 95 %: {p95:.4}, 99 %: {p99:.3}, 99.9 %: {p99_9:.3}, largest {max:.3}\n"
        )
    }

    /// One line on what the text's own tokens lose and gain.
    pub fn probability_text(&self) -> String {
        let percent = |share: f64| 100.0 * share;
        format!(
            "change of p      {:+.3} +- {:.3} % (probability of the text's own tokens), root mean square {:.2} %\n",
            percent(self.probability_change),
            percent(self.probability_change_stderr),
            percent(self.probability_change_rms),
        )
    }

    /// The worst tokens.
    pub fn worst_text(&self) -> String {
        let header = [
            "KL",
            "window",
            "position",
            "text before",
            "original says",
            "model says",
            "text says",
        ];
        let rows: Vec<_> = self.worst_tokens.iter().map(WorstText::cells).collect();
        format!("\nwhere the models differ most:\n{}", table(&header, &rows))
    }

    /// A section of a report page: the divergence by position.
    pub fn section(&self) -> String {
        let rows: String = self.kl_by_position.iter().map(row).collect();
        format!(
            "<h2>KL divergence by position</h2><p class=\"note\">Mean KL divergence from the original, in nats, on text that \
             neither the model nor its calibration has seen, by the position in the window.</p><div class=\"scroll\"><table>\
             <thead><tr><th>positions</th><th>KL divergence</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    }
}

impl WorstText {
    fn new(worst: &WorstToken, tokenizer: &Tokenizer) -> Result<Self> {
        let text = |tokens: &[u32]| tokenizer.decode(tokens, false);
        let guess = |guess: Guess| {
            Ok::<_, anyhow::Error>(GuessText {
                token: text(&[guess.token])?,
                probability: guess.probability,
            })
        };
        Ok(Self {
            window: worst.window,
            position: worst.position,
            kl_divergence: worst.kl_divergence,
            before: text(&worst.before)?,
            original: guess(worst.original)?,
            model: guess(worst.model)?,
            next: worst.next.map(|next| text(&[next])).transpose()?,
        })
    }

    fn cells(&self) -> Vec<String> {
        let guess = |guess: &GuessText| format!("{:?} {:.0} %", guess.token, 100.0 * guess.probability);
        vec![
            format!("{:.3}", self.kl_divergence),
            self.window.to_string(),
            self.position.to_string(),
            end_of(&self.before),
            guess(&self.original),
            guess(&self.model),
            self.next
                .as_ref()
                .map_or("-".to_owned(), |next| format!("{next:?}")),
        ]
    }
}

/// A row of the table by position.
fn row(span: &PositionMean) -> String {
    let positions = match span.first == span.last {
        true => span.first.to_string(),
        false => format!("{} to {}", span.first, span.last),
    };
    format!("<tr><td>{positions}</td><td>{:.4}</td></tr>", span.mean)
}

/// The last characters of a text, on one line.
fn end_of(text: &str) -> String {
    const SHOWN: usize = 32;
    let skipped = text.chars().count().saturating_sub(SHOWN);
    let end: String = text.chars().skip(skipped).collect();
    format!("{end:?}")
}

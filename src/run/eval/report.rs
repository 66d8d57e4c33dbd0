//! What `eval` finds out about a model.

use anyhow::Result;
use dualgrain::engine::evaluate::{DivergenceReport, PerplexityReport, TaskReport};
use dualgrain::engine::{Storage, Weights};
use serde::Serialize;

use crate::cli::arguments::Eval;
use crate::cli::table::{or_dash, table};
use crate::cli::units::bytes;
use crate::run::eval::causes::{Cause, causes_section, causes_text};
use crate::run::eval::differences::Differences;
use crate::run::model_folder::Opened;

/// Quality of a model, as far as it was asked for.
#[derive(Debug, Serialize)]
pub struct Report {
    model: String,
    method: String,
    /// Stored bits of the block linears over their weights.
    pub bits_per_weight: f64,
    /// Bytes of the folder's safetensors files.
    pub file_bytes: u64,
    /// Perplexity on the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity_stderr: Option<f64>,
    /// Perplexity of the original.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_reference: Option<f64>,
    /// Mean KL(original || model), nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_divergence: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kl_divergence_stderr: Option<f64>,
    /// Share of positions with the same likeliest token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top1_agreement_stderr: Option<f64>,
    /// How the divergence is spread.
    #[serde(flatten)]
    differences: Option<Differences>,
    /// Where the divergence comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Predictions behind the perplexity.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    windows: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    divergence_windows: Option<usize>,
    /// Tasks, in the order they were named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskReport>,
    /// The same tasks by the original.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks_reference: Vec<TaskReport>,
}

impl Report {
    /// What is known of a model before it is judged.
    pub fn new(options: &Eval, opened: &Opened, context: usize) -> Result<Self> {
        let storage = Storage::measure(&Weights::open(&options.model)?, opened.model.config())?;
        Ok(Self {
            model: options.model.display().to_string(),
            method: format!(
                "the text is encoded once and cut into windows of {context} tokens that do not overlap (the rest is \
                 dropped); each window predicts all its tokens but the first"
            ),
            bits_per_weight: storage.bits_per_weight(),
            file_bytes: storage.file_bytes,
            perplexity: None,
            perplexity_stderr: None,
            perplexity_reference: None,
            kl_divergence: None,
            kl_divergence_stderr: None,
            top1_agreement: None,
            top1_agreement_stderr: None,
            differences: None,
            causes: Vec::new(),
            tokens: None,
            windows: None,
            divergence_windows: None,
            tasks: Vec::new(),
            tasks_reference: Vec::new(),
        })
    }

    /// Takes in perplexity alone.
    pub fn set_perplexity(&mut self, report: &PerplexityReport) {
        self.perplexity = Some(report.perplexity);
        self.perplexity_stderr = Some(report.perplexity_stderr);
        self.tokens = Some(report.tokens);
        self.windows = Some(report.windows);
    }

    /// Takes in both perplexities and how far the models are apart.
    pub fn set_divergence(&mut self, report: &DivergenceReport, differences: Differences) {
        self.perplexity = Some(report.perplexity);
        self.perplexity_stderr = Some(report.perplexity_stderr);
        self.perplexity_reference = Some(report.perplexity_reference);
        self.kl_divergence = Some(report.kl_divergence);
        self.kl_divergence_stderr = Some(report.kl_divergence_stderr);
        self.top1_agreement = Some(report.top1_agreement);
        self.top1_agreement_stderr = Some(report.top1_agreement_stderr);
        self.differences = Some(differences);
        self.tokens = Some(report.tokens);
        self.windows = Some(report.windows);
        self.divergence_windows = Some(report.windows);
    }

    /// What a person reads.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}: {:.3} bits a weight, {} on disk\n",
            self.model,
            self.bits_per_weight,
            bytes(self.file_bytes)
        );
        text += &self.perplexity_text();
        text += &self.divergence_text();
        if let (Some(tokens), Some(windows)) = (self.tokens, self.windows) {
            text += &format!(
                "over {tokens} predictions in {windows} windows: {}\n",
                self.method
            );
        }
        text += &self.of_differences(Differences::worst_text);
        if !self.causes.is_empty() {
            text += &causes_text(&self.causes);
        }
        text + &self.tasks_text()
    }

    fn perplexity_text(&self) -> String {
        let mut text = String::new();
        if let (Some(perplexity), Some(stderr)) = (self.perplexity, self.perplexity_stderr) {
            text += &format!("perplexity       {perplexity:.3} +- {stderr:.3}\n");
        }
        if let (Some(perplexity), Some(reference)) = (self.perplexity, self.perplexity_reference) {
            let change = 100.0 * (perplexity / reference - 1.0);
            text += &format!("  of the original {reference:.3} ({change:+.2} %)\n");
        }
        text
    }

    fn divergence_text(&self) -> String {
        let mut text = String::new();
        if let (Some(kl), Some(stderr)) = (self.kl_divergence, self.kl_divergence_stderr) {
            text += &format!("KL divergence    {kl:.5} +- {stderr:.5} nats\n");
            text += &self.of_differences(Differences::percentiles_text);
        }
        if let (Some(agreement), Some(stderr)) = (self.top1_agreement, self.top1_agreement_stderr) {
            text += &format!(
                "top-1 agreement  {:.2} +- {:.2} %\n",
                100.0 * agreement,
                100.0 * stderr
            );
        }
        text + &self.of_differences(Differences::probability_text)
    }

    /// What a report page shows of the divergence; nothing where there was no original.
    pub fn section(&self) -> String {
        let section = self.of_differences(Differences::section);
        match self.causes.is_empty() {
            true => section,
            false => section + &causes_section(&self.causes),
        }
    }

    fn of_differences(&self, text: impl Fn(&Differences) -> String) -> String {
        self.differences.as_ref().map_or_else(String::new, text)
    }

    fn tasks_text(&self) -> String {
        if self.tasks.is_empty() {
            return String::new();
        }
        let tasks = self.tasks.iter().enumerate();
        let rows: Vec<_> = tasks
            .map(|(index, task)| task_cells(task, self.tasks_reference.get(index)))
            .collect();
        let header = [
            "task",
            "items",
            "accuracy",
            "+-",
            "by bytes",
            "perplexity",
            "accuracy of original",
            "perplexity of original",
            "cut to context",
        ];
        "\n".to_owned() + &table(&header, &rows)
    }
}

fn task_cells(task: &TaskReport, original: Option<&TaskReport>) -> Vec<String> {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let perplexity = |task: &TaskReport| task.perplexity.map(|perplexity| format!("{perplexity:.2}"));
    vec![
        task.task.clone(),
        task.items.to_string(),
        percent(task.accuracy),
        percent(task.accuracy_stderr),
        or_dash(task.accuracy_byte_normalized.map(percent)),
        or_dash(perplexity(task)),
        or_dash(original.map(|original| percent(original.accuracy))),
        or_dash(original.and_then(perplexity)),
        task.cut_items.to_string(),
    ]
}

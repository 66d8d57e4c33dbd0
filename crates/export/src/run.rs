//! An export from its beginning to its end.

use std::path::Path;

use dualgrain_format::checkpoint::{CheckpointError, OutputPlace};
use serde::Serialize;

use crate::compressed::CompressedForm;
use crate::error::ExportError;
use crate::folder::{self, Bf16Form};
use crate::folding::FoldingReport;
use crate::formats::ExportFormat;
use crate::gguf;
use crate::source::Source;
use crate::watch::Watch;

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Tensors in the output.
    pub num_tensors: usize,
    /// Their bytes.
    pub size_bytes: u64,
    /// What folding both scales into one cost, where that was done.
    pub folding: Option<FoldingReport>,
    /// What a person should know, a sentence each.
    pub notices: Vec<String>,
}

/// Writes the quantized folder `dir` as `format` into the folder `out`, which must not hold anything. At most a few tensors are in
/// memory at once.
///
/// # Errors
/// See [`ExportError`]; nothing is left at `out` then.
pub fn export(
    dir: &Path,
    out: &Path,
    format: ExportFormat,
    watch: Watch<'_>,
) -> Result<Summary, ExportError> {
    check_output(out)?;
    let source = Source::open(dir, format)?;
    if let (Some(method), false) = (source.weights.foreign(), format == ExportFormat::Gguf) {
        let dir = dir.to_path_buf();
        return Err(ExportError::Foreign { dir, method, format });
    }
    if !source.is_quantized() && format != ExportFormat::Gguf {
        let dir = dir.to_path_buf();
        return Err(ExportError::NotQuantized { dir, format });
    }
    let mut notices = source.notices.clone();
    let ((num_tensors, size_bytes), folding) = match format {
        ExportFormat::Hf => (folder::write(&source, (dir, out), &mut Bf16Form, watch)?, None),
        ExportFormat::CompressedTensors | ExportFormat::CompressedTensorsW4a16 => {
            let mut form = CompressedForm::new(&source, format)?;
            notices.extend(notice_of_head(&source));
            let written = folder::write(&source, (dir, out), &mut form, watch)?;
            (written, form.into_folding().report())
        }
        ExportFormat::Gguf => {
            let written = gguf::write(&source, (dir, out), watch)?;
            notices.extend(written.notices);
            (written.tensors, written.folding.report())
        }
    };
    Ok(Summary {
        num_tensors,
        size_bytes,
        folding,
        notices,
    })
}

/// Refuses an output that can be known beforehand to fail.
fn check_output(out: &Path) -> Result<(), ExportError> {
    match OutputPlace::of(out)?.check(false) {
        Err(CheckpointError::TargetExists { path }) => Err(ExportError::OutputExists { path }),
        checked => Ok(checked?),
    }
}

fn notice_of_head(source: &Source) -> Option<String> {
    let head = source.head_name();
    let is_quantized = source.linears.iter().any(|linear| linear.name == head);
    is_quantized.then(|| {
        format!(
            "`{head}` is written in bf16: programs that read compressed-tensors expect the output layer in floats"
        )
    })
}

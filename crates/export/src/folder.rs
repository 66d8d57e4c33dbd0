//! A Hugging Face folder written tensor by tensor; how a linear stands in it is the format's affair.

use std::path::Path;

use dualgrain_format::checkpoint::{FolderWriter, TensorSpec};
use serde_json::Value;

use crate::card;
use crate::error::ExportError;
use crate::floats::bf16_weights;
use crate::source::{Source, StoredLinear};
use crate::watch::{Meter, Watch};
use crate::{config_file, formats::ExportFormat};

use dualgrain_format::checkpoint::{Dtype, f32_bytes};

/// How the linears of a folder are written.
pub trait LinearForm {
    /// The format.
    fn format(&self) -> ExportFormat;

    /// The tensors of a linear, apart from its bias.
    fn specs(&self, source: &Source, linear: &StoredLinear) -> Vec<TensorSpec>;

    /// Their bytes, in the order of [`Self::specs`].
    ///
    /// # Errors
    /// Missing or damaged tensors; numbers that the form can not hold.
    fn tensors(&mut self, source: &Source, linear: &StoredLinear) -> Result<Vec<Vec<u8>>, ExportError>;

    /// config.json.
    ///
    /// # Errors
    /// The folder's own is damaged.
    fn config(&self, source: &Source, dir: &Path) -> Result<Value, ExportError>;
}

/// A linear in bf16: `X.weight`.
#[derive(Debug, Clone, Copy)]
pub struct Bf16Form;

impl LinearForm for Bf16Form {
    fn format(&self) -> ExportFormat {
        ExportFormat::Hf
    }

    fn specs(&self, _: &Source, linear: &StoredLinear) -> Vec<TensorSpec> {
        vec![bf16_spec(linear)]
    }

    fn tensors(&mut self, source: &Source, linear: &StoredLinear) -> Result<Vec<Vec<u8>>, ExportError> {
        Ok(vec![bf16_weights(source, linear)?])
    }

    fn config(&self, source: &Source, dir: &Path) -> Result<Value, ExportError> {
        let mut config = config_file::rewritten(dir, None, source.has_own_head())?;
        config_file::set_bf16(&mut config);
        Ok(config)
    }
}

/// The weight of a linear in bf16.
pub fn bf16_spec(linear: &StoredLinear) -> TensorSpec {
    tensor_spec(&linear.published, "weight", Dtype::BF16, &[linear.n, linear.k])
}

/// A part of a linear.
pub fn tensor_spec(linear: &str, part: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: format!("{linear}.{part}"),
        dtype,
        shape: shape.to_vec(),
    }
}

/// Writes the folder `out` from `source`, which was read from `dir`. Returns its number of tensors and their bytes.
///
/// # Errors
/// See [`ExportError`]; nothing is left at `out` then.
pub fn write(
    source: &Source,
    (dir, out): (&Path, &Path),
    form: &mut dyn LinearForm,
    watch: Watch<'_>,
) -> Result<(usize, u64), ExportError> {
    let config = form.config(source, dir)?;
    let mut writer = FolderWriter::create(out, false)?;
    let specs = all_specs(source, form)?;
    let num_tensors = specs.len();
    let meter = Meter::new(watch, total_bytes(&specs)?);
    writer.start_tensors(specs)?;
    copy_others(source, &mut writer, &meter)?;
    for linear in &source.linears {
        write_linear(source, linear, form, (&mut writer, &meter))?;
    }
    writer.copy_model_files(dir)?;
    writer.write_file("README.md", card::text(source, dir, form.format()).as_bytes())?;
    writer.write_file("config.json", format!("{config:#}\n").as_bytes())?;
    writer.commit()?;
    Ok((num_tensors, meter.done()))
}

fn all_specs(source: &Source, form: &dyn LinearForm) -> Result<Vec<TensorSpec>, ExportError> {
    let mut specs = Vec::new();
    for tensor in &source.others {
        let (dtype, shape) = source.shape(tensor)?;
        specs.push(TensorSpec {
            name: tensor.name.clone(),
            dtype,
            shape: shape.to_vec(),
        });
    }
    for linear in &source.linears {
        specs.extend(form.specs(source, linear));
        if linear.has_bias {
            specs.push(tensor_spec(&linear.published, "bias", Dtype::F32, &[linear.n]));
        }
    }
    Ok(specs)
}

fn total_bytes(specs: &[TensorSpec]) -> Result<u64, ExportError> {
    let sizes = specs
        .iter()
        .map(|spec| spec.num_bytes().map(|bytes| bytes as u64));
    Ok(sizes.sum::<Result<u64, _>>()?)
}

fn copy_others(source: &Source, writer: &mut FolderWriter, meter: &Meter<'_>) -> Result<(), ExportError> {
    for tensor in &source.others {
        meter.start(&tensor.name)?;
        let (_, _, bytes) = source.raw(tensor)?;
        writer.write_tensor(&tensor.name, &bytes)?;
        meter.add(bytes.len());
        source.weights.release_pages();
    }
    Ok(())
}

fn write_linear(
    source: &Source,
    linear: &StoredLinear,
    form: &mut dyn LinearForm,
    (writer, meter): (&mut FolderWriter, &Meter<'_>),
) -> Result<(), ExportError> {
    meter.start(&linear.name)?;
    let specs = form.specs(source, linear);
    for (spec, bytes) in specs.iter().zip(form.tensors(source, linear)?) {
        writer.write_tensor(&spec.name, &bytes)?;
        meter.add(bytes.len());
    }
    if linear.has_bias {
        let stored = format!("{}.bias", linear.name);
        let bytes = f32_bytes(&source.weights.f32(&stored, &[linear.n])?);
        writer.write_tensor(&format!("{}.bias", linear.published), &bytes)?;
        meter.add(bytes.len());
    }
    Ok(())
}

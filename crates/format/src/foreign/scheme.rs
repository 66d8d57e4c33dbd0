//! Which program quantized a folder, and what that means for its tensors.

use safetensors::Dtype;
use serde_json::{Map, Value};

use super::awq::{self, Awq};
use super::compressed::{self, Compressed};
use super::error::ForeignError;
use super::fields::Fields;
use super::fp8::{self, Fp8};
use super::gptq::{self, Gptq};
use super::mxfp4;
use super::packed::PackedLinear;
use super::part::Parts;
use crate::quantization_config::QUANT_METHOD;

/// How another program quantized a model.
#[derive(Debug)]
pub struct ForeignScheme(Method);

#[derive(Debug)]
enum Method {
    Gptq(Gptq),
    Awq(Awq),
    Compressed(Compressed),
    Fp8(Fp8),
    Mxfp4,
}

impl ForeignScheme {
    /// Where the object of a config.json says how the model was quantized, by this program or another.
    pub fn value_in(config: &Map<String, Value>) -> Option<&Value> {
        let names = ["quantization_config", "compression_config"];
        let values = names.iter().filter_map(|name| config.get(*name));
        values.into_iter().find(|value| !value.is_null())
    }

    /// [`Self::value_in`] where it is this program's own. Another program's is checked, so that what is not read is refused before any
    /// weights are; then it says nothing of how the model runs, since its linears come as floats.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn own_value_in(config: &Map<String, Value>) -> Result<Option<&Value>, ForeignError> {
        let Some(value) = Self::value_in(config) else {
            return Ok(None);
        };
        Ok(match Self::from_json(value)? {
            Some(_) => None,
            None => Some(value),
        })
    }

    /// Reads the value of `quantization_config` (or of the files that stood for it before: `quantize_config.json` of GPTQ and
    /// `quant_config.json` of AWQ). `None` for a model that this program quantized.
    ///
    /// # Errors
    /// A method or a field that is not read, by name.
    pub fn from_json(value: &Value) -> Result<Option<Self>, ForeignError> {
        let fields = Fields::of(value, "")?;
        let method = fields.text("quant_method")?.or_else(|| unnamed(&fields));
        Ok(Some(Self(match method {
            Some(QUANT_METHOD) => return Ok(None),
            Some("gptq") => Method::Gptq(Gptq::read(&fields)?),
            Some("awq") => Method::Awq(Awq::read(&fields)?),
            Some("compressed-tensors") => Method::Compressed(Compressed::read(&fields)?),
            Some("fp8") => Method::Fp8(Fp8::read(&fields)?),
            Some("mxfp4") => Method::Mxfp4,
            other => {
                let got = other.unwrap_or("missing").to_owned();
                return Err(ForeignError::Method { got });
            }
        })))
    }

    /// The linear that a tensor belongs to, if the tensor holds the codes of one; `None` for every other tensor.
    pub fn linear_of<'n>(&self, tensor: &'n str, dtype: Dtype) -> Option<&'n str> {
        let (linear, part) = tensor.rsplit_once('.')?;
        let is_packed = match (&self.0, part) {
            (Method::Gptq(_) | Method::Awq(_), "qweight") => true,
            (Method::Compressed(_), "weight_packed") => true,
            (Method::Compressed(_), "weight") => matches!(dtype, Dtype::I8 | Dtype::F8_E4M3),
            (Method::Fp8(_), "weight") => dtype == Dtype::F8_E4M3,
            (Method::Mxfp4, "blocks") => true,
            _ => false,
        };
        is_packed.then_some(linear)
    }

    /// Ends of the names of the tensors that can stand for a linear.
    pub fn parts(&self) -> &'static [&'static str] {
        match self.0 {
            Method::Gptq(_) => &gptq::PARTS,
            Method::Awq(_) => &awq::PARTS,
            Method::Compressed(_) => &compressed::PARTS,
            Method::Fp8(_) => &fp8::PARTS,
            Method::Mxfp4 => &mxfp4::PARTS,
        }
    }

    /// Ends of the names of tensors beside a linear's that a model of floats does not need.
    pub fn left_out_parts(&self) -> &'static [&'static str] {
        match self.0 {
            Method::Gptq(_) | Method::Awq(_) | Method::Mxfp4 => &[],
            Method::Compressed(_) => &compressed::LEFT_OUT,
            Method::Fp8(_) => &fp8::LEFT_OUT,
        }
    }

    /// Checks the tensors of linear `name`.
    ///
    /// # Errors
    /// Tensors that are missing, or whose shapes and types fit neither each other nor the configuration.
    pub fn unpack<'a>(&self, name: &str, parts: &Parts<'a>) -> Result<PackedLinear<'a>, ForeignError> {
        match &self.0 {
            Method::Gptq(method) => method.unpack(name, parts),
            Method::Awq(method) => method.unpack(parts),
            Method::Compressed(method) => method.unpack(name, parts),
            Method::Fp8(method) => method.unpack(parts),
            Method::Mxfp4 => mxfp4::unpack(parts),
        }
    }

    /// What was done, in a few words: the program, bits and groups.
    pub fn described(&self) -> String {
        match &self.0 {
            Method::Gptq(method) => method.described(),
            Method::Awq(method) => method.described(),
            Method::Compressed(method) => method.described(),
            Method::Fp8(method) => method.described(),
            Method::Mxfp4 => mxfp4::described(),
        }
    }

    /// What the configuration asks for besides weights, and is not done with floats ("activations"); empty where it asks for nothing.
    pub fn left_out(&self) -> String {
        match &self.0 {
            Method::Gptq(_) | Method::Awq(_) | Method::Mxfp4 => String::new(),
            Method::Compressed(method) => method.left_out(),
            Method::Fp8(_) => "activations".to_owned(),
        }
    }
}

/// The method of a configuration that does not name it, as the files beside config.json of older folders do not.
fn unnamed(fields: &Fields<'_>) -> Option<&'static str> {
    let has = |name| fields.value(name).is_some();
    match (has("w_bit"), has("bits") && has("group_size")) {
        (true, _) => Some("awq"),
        (_, true) => Some("gptq"),
        _ => has("config_groups").then_some("compressed-tensors"),
    }
}

//! Reading: the table of tensors at the head of a safetensors file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::checkpoint::error::CheckpointError;
use crate::text::mistaken;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Element type.
    pub dtype: Dtype,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub bytes: Range<usize>,
}

/// All tensors of a file by name; every range is proved to lie inside the file and to fit dtype and shape.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TensorTable {
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorEntry>,
}

impl TensorTable {
    /// Reads and checks the header of a whole file's bytes. `path` is only for the error.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`] for anything that is not a complete safetensors file.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self, CheckpointError> {
        let (header_len, metadata) =
            SafeTensors::read_metadata(file).map_err(|error| CheckpointError::Malformed {
                path: path.to_path_buf(),
                problem: match mistaken(file) {
                    Some(what) => format!("it is {what}"),
                    None => explain(&error, file.len()),
                },
            })?;
        let data_start = HEADER_LEN_BYTES + header_len;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| {
            let entry = TensorEntry {
                dtype: info.dtype,
                shape: info.shape.clone(),
                bytes: data_start + info.data_offsets.0..data_start + info.data_offsets.1,
            };
            (name, entry)
        });
        Ok(Self {
            tensors: tensors.collect(),
        })
    }
}

/// A file begins with the length of its JSON header as u64.
pub(crate) const HEADER_LEN_BYTES: usize = 8;

fn explain(error: &SafeTensorError, len: usize) -> String {
    use SafeTensorError as E;
    match error {
        E::HeaderTooSmall | E::InvalidHeaderLength | E::MetadataIncompleteBuffer => format!(
            "its {len} bytes are not as many as its header asks for (was a download or copy cut short?)"
        ),
        E::TensorInvalidInfo => "a tensor's shape and type do not fit its byte range".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    fn parse(file: &[u8]) -> Result<TensorTable, CheckpointError> {
        TensorTable::parse(Path::new("x.safetensors"), file)
    }

    const GOOD: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}"#;

    #[test]
    fn byte_ranges_are_those_of_the_file() {
        let table = parse(&file(GOOD, &[0; 11])).unwrap();
        let start = 8 + GOOD.len();
        assert_eq!(table.tensors["a"].bytes, start..start + 8);
        assert_eq!(table.tensors["b"].bytes, start + 8..start + 11);
        assert_eq!(table.tensors["b"].dtype, Dtype::U8);
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = file(GOOD, &[0; 11]);
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "{len} bytes were accepted");
        }
        let error = parse(&whole[..whole.len() - 1]).unwrap_err().to_string();
        assert!(
            error.contains("cut short") && error.contains("x.safetensors"),
            "{error}"
        );
    }

    #[test]
    fn hostile_headers_are_refused() {
        let cases = [
            (
                "past the end",
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,800]}}"#,
            ),
            (
                "backwards",
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
            ),
            (
                "shape and range differ",
                r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            ),
            (
                "overflow",
                r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#,
            ),
            ("gap", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#),
            (
                "overlap",
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            ),
            (
                "unknown type",
                r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#,
            ),
            (
                "negative",
                r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#,
            ),
            ("no object", "[]"),
            ("not JSON", "{"),
        ];
        for (what, header) in cases {
            assert!(parse(&file(header, &[0; 8])).is_err(), "{what} was accepted");
        }
        let mut huge = u64::MAX.to_le_bytes().to_vec();
        huge.extend([0; 64]);
        assert!(parse(&huge).is_err());
    }
}

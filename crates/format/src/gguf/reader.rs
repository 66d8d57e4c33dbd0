//! Reading: metadata as JSON values, and where each tensor lies.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Number, Value};
use thiserror::Error;

use super::blocks::GgufKind;
use super::types::{ALIGNMENT, MAGIC};

/// Sizes that a tensor has at most.
const MOST_DIMENSIONS: u32 = 4;
/// Entries that all lists of the metadata have at most: an entry of a byte takes many as a value, and a hostile file must not fill the
/// memory. Vocabularies have some hundred thousands.
const MOST_ENTRIES: usize = 1 << 24;
/// Why bytes are no GGUF file.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum GgufError {
    /// Another kind of file.
    #[error("not a GGUF file: it begins with other bytes")]
    Magic,
    /// A version that is not read.
    #[error("GGUF version {got}, expected 2 or 3: convert the file with a newer llama.cpp")]
    Version {
        /// The version.
        got: u32,
    },
    /// The file ends where something should be.
    #[error("the file ends before {what} (was a download cut short?)")]
    Short {
        /// What should be there.
        what: &'static str,
    },
    /// Something in the table of contents makes no sense.
    #[error("{what} is {got}, expected {expected}")]
    Content {
        /// What it is.
        what: String,
        /// What it is like.
        got: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// The table of contents of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufFile {
    /// Metadata by name.
    pub metadata: Map<String, Value>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, GgufEntry>,
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufEntry {
    /// How its elements are stored.
    pub kind: GgufKind,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub bytes: Range<usize>,
}

impl GgufFile {
    /// Reads the table of contents of a whole file; every tensor is proved to lie inside the file and to fit its kind and shape.
    ///
    /// # Errors
    /// See [`GgufError`].
    pub fn parse(file: &[u8]) -> Result<Self, GgufError> {
        let mut reader = Reader {
            file,
            at: 0,
            listed: 0,
        };
        if reader.take(MAGIC.len(), "its first bytes")? != MAGIC {
            return Err(GgufError::Magic);
        }
        match reader.u32("its version")? {
            2 | 3 => {}
            got => return Err(GgufError::Version { got }),
        }
        let num_tensors = reader.count("the number of its tensors")?;
        let num_metadata = reader.count("the number of its metadata")?;
        let mut metadata = Map::new();
        for _ in 0..num_metadata {
            let name = reader.text("a name of its metadata")?;
            let kind = reader.u32("a type of its metadata")?;
            let value = reader.value(kind, true)?;
            metadata.insert(name, value);
        }
        let mut announced = Vec::new();
        for _ in 0..num_tensors {
            announced.push(reader.announced()?);
        }
        let alignment = alignment(&metadata)?;
        let start = reader.at.next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for (name, entry, offset) in announced {
            let entry = placed((&name, entry), start.checked_add(offset), file.len())?;
            if tensors.insert(name.clone(), entry).is_some() {
                return Err(content(
                    format!("tensor `{name}`"),
                    "there twice",
                    "one of each name",
                ));
            }
        }
        Ok(Self { metadata, tensors })
    }
}

/// The place of a tensor in the file. `entry` has the length of its bytes so far.
fn placed(
    (name, mut entry): (&str, GgufEntry),
    start: Option<usize>,
    file_len: usize,
) -> Result<GgufEntry, GgufError> {
    let end = start.and_then(|start| start.checked_add(entry.bytes.end));
    match (start, end) {
        (Some(start), Some(end)) if end <= file_len => {
            entry.bytes = start..end;
            Ok(entry)
        }
        _ => Err(content(
            format!("tensor `{name}`"),
            "beyond the end of the file",
            "a place inside it (was a download cut short?)",
        )),
    }
}

fn alignment(metadata: &Map<String, Value>) -> Result<usize, GgufError> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(ALIGNMENT as usize);
    };
    match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
        Some(alignment) if alignment.is_power_of_two() && alignment <= 1 << 20 => Ok(alignment),
        _ => Err(content(
            "`general.alignment`".to_owned(),
            value.to_string(),
            "a power of two",
        )),
    }
}

fn content(what: String, got: impl Into<String>, expected: &'static str) -> GgufError {
    let got = got.into();
    GgufError::Content { what, got, expected }
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
    /// Entries of the lists so far.
    listed: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], GgufError> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.file.get(self.at..end));
        let taken = taken.ok_or(GgufError::Short { what })?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let bytes = self.take(N, what)?;
        bytes.try_into().map_err(|_| GgufError::Short { what })
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// A number of things, each of which has a byte at least.
    fn count(&mut self, what: &'static str) -> Result<usize, GgufError> {
        let count = u64::from_le_bytes(self.array(what)?);
        let left = self.file.len() - self.at;
        match usize::try_from(count) {
            Ok(count) if count <= left => Ok(count),
            _ => Err(GgufError::Short { what }),
        }
    }

    fn text(&mut self, what: &'static str) -> Result<String, GgufError> {
        let len = self.count(what)?;
        Ok(String::from_utf8_lossy(self.take(len, what)?).into_owned())
    }

    /// The length of a list.
    fn list_len(&mut self, what: &'static str) -> Result<usize, GgufError> {
        let len = self.count(what)?;
        self.listed = self.listed.saturating_add(len);
        match self.listed <= MOST_ENTRIES {
            true => Ok(len),
            false => Err(content(
                "the number of entries in the lists of its metadata".to_owned(),
                self.listed.to_string(),
                "at most 16777216",
            )),
        }
    }

    /// A value of the metadata; lists hold no lists.
    fn value(&mut self, kind: u32, may_be_list: bool) -> Result<Value, GgufError> {
        let what = "a value of its metadata";
        Ok(match kind {
            0 => u8::from_le_bytes(self.array(what)?).into(),
            1 => i8::from_le_bytes(self.array(what)?).into(),
            2 => u16::from_le_bytes(self.array(what)?).into(),
            3 => i16::from_le_bytes(self.array(what)?).into(),
            4 => self.u32(what)?.into(),
            5 => i32::from_le_bytes(self.array(what)?).into(),
            6 => float(f64::from(f32::from_le_bytes(self.array(what)?))),
            7 => (self.array::<1>(what)? != [0]).into(),
            8 => self.text(what)?.into(),
            9 if may_be_list => {
                let kind = self.u32(what)?;
                let len = self.list_len(what)?;
                let values = (0..len).map(|_| self.value(kind, false));
                values.collect::<Result<Vec<_>, _>>()?.into()
            }
            10 => u64::from_le_bytes(self.array(what)?).into(),
            11 => i64::from_le_bytes(self.array(what)?).into(),
            12 => float(f64::from_le_bytes(self.array(what)?)),
            other => {
                let what = "a type of metadata".to_owned();
                return Err(content(what, other.to_string(), "0 to 12, and no list in a list"));
            }
        })
    }

    /// A tensor's line in the table: its name, what it is, and how far behind the beginning of the data it lies.
    fn announced(&mut self) -> Result<(String, GgufEntry, usize), GgufError> {
        let what = "the table of its tensors";
        let name = self.text(what)?;
        let num_dimensions = self.u32(what)?;
        let wrong = |got: String, expected| content(format!("tensor `{name}`"), got, expected);
        if num_dimensions > MOST_DIMENSIONS {
            return Err(wrong(format!("of {num_dimensions} dimensions"), "at most 4"));
        }
        let mut shape = Vec::new();
        for _ in 0..num_dimensions {
            let size = u64::from_le_bytes(self.array(what)?);
            let size = usize::try_from(size).map_err(|_| wrong(format!("of size {size}"), "a size"))?;
            shape.insert(0, size);
        }
        let number = self.u32(what)?;
        let kind =
            GgufKind::of(number).ok_or_else(|| wrong(format!("of type {number}"), GgufKind::ALL_NAMES))?;
        let len = kind.num_bytes(&shape);
        let len = len.ok_or_else(|| {
            wrong(
                format!("{shape:?}"),
                "rows of whole blocks and a size that can be counted",
            )
        })?;
        let offset = u64::from_le_bytes(self.array(what)?);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let entry = GgufEntry {
            kind,
            shape,
            bytes: 0..len,
        };
        Ok((name, entry, offset))
    }
}

/// What JSON has no number for is null.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let mut file = [
            &b"GGUF"[..],
            &3_u32.to_le_bytes(),
            &1_u64.to_le_bytes(),
            &2_u64.to_le_bytes(),
        ]
        .concat();
        file.extend([text("a"), 8_u32.to_le_bytes().to_vec(), text("x")].concat());
        file.extend(
            [
                text("list"),
                9_u32.to_le_bytes().to_vec(),
                5_u32.to_le_bytes().to_vec(),
            ]
            .concat(),
        );
        file.extend(
            [
                &2_u64.to_le_bytes()[..],
                &(-1_i32).to_le_bytes(),
                &7_i32.to_le_bytes(),
            ]
            .concat(),
        );
        file.extend([text("t"), 2_u32.to_le_bytes().to_vec()].concat());
        file.extend(
            [
                &3_u64.to_le_bytes()[..],
                &2_u64.to_le_bytes(),
                &1_u32.to_le_bytes(),
            ]
            .concat(),
        );
        file.extend(0_u64.to_le_bytes());
        file.resize(file.len().next_multiple_of(32) + 12, 1);
        file
    }

    #[test]
    fn metadata_and_places_are_those_of_the_file() {
        let bytes = file();
        let file = GgufFile::parse(&bytes).unwrap();
        assert_eq!(file.metadata["a"], "x");
        assert_eq!(file.metadata["list"], serde_json::json!([-1, 7]));
        let tensor = &file.tensors["t"];
        assert_eq!((tensor.kind, &tensor.shape[..]), (GgufKind::F16, &[2, 3][..]));
        assert_eq!(tensor.bytes, bytes.len() - 12..bytes.len());
    }

    #[test]
    fn lists_beyond_all_vocabularies_are_refused_before_they_are_read() {
        let len = MOST_ENTRIES + 1;
        let mut file = [
            &b"GGUF"[..],
            &3_u32.to_le_bytes(),
            &0_u64.to_le_bytes(),
            &1_u64.to_le_bytes(),
            &4_u64.to_le_bytes(),
            b"list",
            &9_u32.to_le_bytes(),
            &0_u32.to_le_bytes(),
            &(len as u64).to_le_bytes(),
        ]
        .concat();
        file.resize(file.len() + len, 0);
        let error = GgufFile::parse(&file).unwrap_err().to_string();
        assert!(
            error.contains("16777217") && error.contains("at most 16777216"),
            "{error}"
        );
    }

    #[test]
    fn every_truncation_and_every_damaged_byte_is_an_error_or_a_file() {
        let whole = file();
        for len in 0..whole.len() {
            assert!(
                GgufFile::parse(&whole[..len]).is_err(),
                "{len} bytes were accepted"
            );
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _ = GgufFile::parse(&damaged);
            }
        }
    }
}

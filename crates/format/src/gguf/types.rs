//! What is written into a GGUF file: values of metadata, with the numbers of their types, and tensors.

use super::blocks::GgufKind;

/// What a file begins with.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written.
pub const VERSION: u32 = 3;
/// Data begins at multiples of so many bytes.
pub const ALIGNMENT: u64 = 32;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// A count.
    U32(u32),
    /// A number.
    F32(f32),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of counts.
    I32s(Vec<i32>),
    /// A list of numbers.
    F32s(Vec<f32>),
    /// A list of texts.
    Texts(Vec<String>),
}

/// Numbers of value types in the file.
mod number {
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const TEXT: u32 = 8;
    pub const LIST: u32 = 9;
}

impl GgufValue {
    /// Its type and its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::U32(value) => typed(number::U32, &value.to_le_bytes()),
            Self::F32(value) => typed(number::F32, &value.to_le_bytes()),
            Self::Bool(value) => typed(number::BOOL, &[u8::from(*value)]),
            Self::Text(value) => typed(number::TEXT, &text_bytes(value)),
            Self::I32s(values) => list(number::I32, values.iter().map(|value| value.to_le_bytes())),
            Self::F32s(values) => list(number::F32, values.iter().map(|value| value.to_le_bytes())),
            Self::Texts(values) => list(number::TEXT, values.iter().map(|value| text_bytes(value))),
        }
    }
}

/// A text as the file has it: its length as u64, then its bytes.
pub fn text_bytes(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn typed(number: u32, value: &[u8]) -> Vec<u8> {
    [&number.to_le_bytes(), value].concat()
}

fn list<B: AsRef<[u8]>>(number: u32, values: impl ExactSizeIterator<Item = B>) -> Vec<u8> {
    let mut bytes = typed(number::LIST, &number.to_le_bytes());
    bytes.extend((values.len() as u64).to_le_bytes());
    values.for_each(|value| bytes.extend(value.as_ref()));
    bytes
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub kind: GgufKind,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
}

impl GgufTensor {
    /// Bytes of its data; `None` where rows are no whole blocks, or where that overflows.
    pub fn num_bytes(&self) -> Option<usize> {
        self.kind.num_bytes(&self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_types_before_them() {
        assert_eq!(GgufValue::U32(7).to_bytes(), [4, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(GgufValue::Bool(true).to_bytes(), [7, 0, 0, 0, 1]);
        let text = GgufValue::Text("ab".into()).to_bytes();
        assert_eq!(text, [8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
        let list = GgufValue::I32s(vec![-1]).to_bytes();
        assert_eq!(list[..8], [9, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(list[8..], [1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    }

    #[test]
    fn rows_are_whole_blocks() {
        let bytes = |kind, shape: &[usize]| {
            let (name, shape) = (String::new(), shape.to_vec());
            GgufTensor { name, kind, shape }.num_bytes()
        };
        assert_eq!(bytes(GgufKind::Q4_1, &[3, 64]), Some(3 * 2 * 20));
        assert_eq!(bytes(GgufKind::Q8_0, &[2, 32]), Some(2 * 34));
        assert_eq!(bytes(GgufKind::Bf16, &[5]), Some(10));
        assert_eq!(bytes(GgufKind::Q4_1, &[2, 48]), None);
        assert_eq!(bytes(GgufKind::F32, &[usize::MAX, 2]), None);
    }
}

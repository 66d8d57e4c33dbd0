//! The frame around a model's contents: a magic word, a version, a check sum, and compression.

use std::io::Read as _;

use flate2::Crc;
use flate2::read::DeflateDecoder;

pub(crate) const MAGIC: &[u8; 8] = b"DUALGRNM";

/// Raised when features, trees or intervals change their meaning.
pub(crate) const VERSION: u32 = 2;

/// No model is larger; a damaged length must not take all memory.
const MOST_BYTES: u64 = 1 << 28;

/// Bytes before the contents.
const PREFIX: usize = 24;

pub(crate) fn checksum(packed: &[u8], length: u64) -> u32 {
    let mut crc = Crc::new();
    crc.update(&length.to_le_bytes());
    crc.update(packed);
    crc.sum()
}

pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.len() < PREFIX || &bytes[..8] != MAGIC {
        return Err("not a fitted model (`fit --out` writes one)".to_owned());
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if word(8) != VERSION {
        return Err(format!(
            "a fitted model of version {}, this program reads {VERSION}; fit again",
            word(8)
        ));
    }
    let length = u64::from(word(16)) | u64::from(word(20)) << 32;
    let packed = &bytes[PREFIX..];
    if length > MOST_BYTES || checksum(packed, length) != word(12) {
        return Err("damaged or cut short: its check sum is wrong; fit or copy it again".to_owned());
    }
    decompress(packed, length)
}

/// The contents, which must have `length` bytes.
fn decompress(packed: &[u8], length: u64) -> Result<Vec<u8>, String> {
    let mut contents = Vec::new();
    let read = DeflateDecoder::new(packed)
        .take(MOST_BYTES)
        .read_to_end(&mut contents);
    match read {
        Ok(got) if got as u64 == length => Ok(contents),
        Ok(got) => Err(format!("{got} bytes of contents, expected {length}")),
        Err(error) => Err(error.to_string()),
    }
}

//! Codes of a few bits, one after the other in words of 32 bits, the lowest bits first.

use safetensors::Dtype;

use super::error::ForeignError;
use super::part::Named;

/// A matrix of words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    bytes: &'a [u8],
    columns: usize,
}

impl<'a> Words<'a> {
    /// The words of an I32 tensor of two dimensions.
    pub fn of(tensor: Named<'a>) -> Result<Self, ForeignError> {
        let tensor = tensor.of_type(&[Dtype::I32], "I32")?;
        let [_, columns] = tensor.matrix()?;
        Ok(Self {
            bytes: tensor.part.bytes,
            columns,
        })
    }

    pub fn at(self, row: usize, column: usize) -> u32 {
        let first = 4 * (row * self.columns + column);
        let b = &self.bytes[first..first + 4];
        u32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }
}

/// Words that `count` codes of `bits` bits fill; `None` beyond what can be counted.
pub(super) fn words_of(count: usize, bits: u32) -> Option<usize> {
    Some(count.checked_mul(bits as usize)?.div_ceil(32))
}

/// Reads codes of `bits` bits from the beginning of a stream of words.
pub(super) fn fill(codes: &mut [f32], bits: u32, mut words: impl Iterator<Item = u32>) {
    let (mut held, mut num_held) = (0_u64, 0);
    for code in codes {
        if num_held < bits {
            held |= u64::from(words.next().unwrap_or_default()) << num_held;
            num_held += 32;
        }
        *code = (held & mask(bits)) as f32;
        held >>= bits;
        num_held -= bits;
    }
}

/// Code `index` of a stream of words.
pub(super) fn code_at(index: usize, bits: u32, word: impl Fn(usize) -> u32) -> u32 {
    let first = index * bits as usize;
    let (at, shift) = (first / 32, (first % 32) as u32);
    let mut held = u64::from(word(at)) >> shift;
    if shift + bits > 32 {
        held |= u64::from(word(at + 1)) << (32 - shift);
    }
    (held & mask(bits)) as u32
}

fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_each_other_across_words() {
        for bits in [2, 3, 4, 8] {
            let codes: Vec<u32> = (0..64).map(|i: u32| (i * 7 + 3) & mask(bits) as u32).collect();
            let mut words = vec![0_u32; words_of(64, bits).unwrap()];
            for (i, code) in codes.iter().enumerate() {
                for bit in 0..bits {
                    let place = i * bits as usize + bit as usize;
                    words[place / 32] |= (code >> bit & 1) << (place % 32);
                }
            }
            let mut read = [0.0; 64];
            fill(&mut read, bits, words.iter().copied());
            for (i, &code) in codes.iter().enumerate() {
                assert_eq!(read[i], code as f32, "{bits} bits, code {i}");
                assert_eq!(code_at(i, bits, |at| words[at]), code, "{bits} bits, code {i}");
            }
        }
    }
}

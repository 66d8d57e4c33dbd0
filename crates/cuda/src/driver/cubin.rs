//! What a compiled kernel needs, read from its ELF file: registers, stack and local memory.
//!
//! The shipped kernels keep everything in registers and shared memory; a stack frame or local memory means that the
//! compiler spilled or indexed an array at run time.

use crate::error::CudaError;

/// What a kernel needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelUse {
    /// The kernel's symbol.
    pub name: String,
    /// Registers a thread.
    pub num_registers: u32,
    /// Bytes of stack a thread; spills live there.
    pub stack_bytes: u32,
    /// Bytes of local memory a thread beside the stack.
    pub local_bytes: u32,
    /// Static shared memory of a block.
    pub shared_bytes: u32,
}

impl KernelUse {
    /// Whether it runs in registers and shared memory alone.
    pub fn spills(&self) -> bool {
        self.stack_bytes > 0 || self.local_bytes > 0
    }
}

const DAMAGED: CudaError = CudaError::Cubin {
    what: "it ends too early or is no 64-bit ELF file",
};

/// Attributes of `.nv.info` sections.
const INFO_FRAME_SIZE: u8 = 0x11;
const INFO_REGISTERS: u8 = 0x2f;
/// Formats of these attributes: nothing, one byte, two bytes, a length and as many bytes.
const FORMAT_SIZED: u8 = 4;

/// The kernels of a cubin, in its order.
///
/// # Errors
/// [`CudaError::Cubin`] when the bytes are not a cubin.
pub fn kernels(cubin: &[u8]) -> Result<Vec<KernelUse>, CudaError> {
    let elf = Elf::parse(cubin)?;
    let mut kernels: Vec<(u32, KernelUse)> = Vec::new();
    for section in &elf.sections {
        if let Some(name) = section.name.strip_prefix(".text.") {
            let own = |prefix: &str| elf.size_of(&format!("{prefix}{name}")) as u32;
            let kernel = KernelUse {
                name: name.to_owned(),
                local_bytes: own(".nv.local."),
                shared_bytes: own(".nv.shared."),
                ..KernelUse::default()
            };
            kernels.push((elf.symbol_index(name)?, kernel));
        }
    }
    for (attribute, symbol, value) in elf.info()? {
        if let Some((_, kernel)) = kernels.iter_mut().find(|(index, _)| *index == symbol) {
            match attribute {
                INFO_FRAME_SIZE => kernel.stack_bytes = value,
                INFO_REGISTERS => kernel.num_registers = value & 0xffff,
                _ => {}
            }
        }
    }
    Ok(kernels.into_iter().map(|(_, kernel)| kernel).collect())
}

struct Section<'a> {
    name: &'a str,
    size: u64,
    /// Empty for sections without bytes in the file.
    bytes: &'a [u8],
}

struct Elf<'a> {
    sections: Vec<Section<'a>>,
}

/// Types of sections that have no bytes in the file.
const SECTION_NO_BITS: u32 = 8;

impl<'a> Elf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, CudaError> {
        if bytes.get(..5) != Some(b"\x7fELF\x02") {
            return Err(DAMAGED);
        }
        let table = number::<8>(bytes, 0x28)? as usize;
        let entry_len = number::<2>(bytes, 0x3a)? as usize;
        let count = number::<2>(bytes, 0x3c)? as usize;
        let names_idx = number::<2>(bytes, 0x3e)? as usize;
        let header = |idx: usize| {
            let start = table.checked_add(idx * entry_len).ok_or(DAMAGED)?;
            range(bytes, start, entry_len)
        };
        let names = section_bytes(bytes, header(names_idx)?)?;
        let sections = (0..count).map(|idx| {
            let header = header(idx)?;
            Ok(Section {
                name: text(names, number::<4>(header, 0)? as usize)?,
                size: number::<8>(header, 0x20)?,
                bytes: section_bytes(bytes, header)?,
            })
        });
        Ok(Self {
            sections: sections.collect::<Result<_, CudaError>>()?,
        })
    }

    fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    fn size_of(&self, name: &str) -> u64 {
        self.section(name).map_or(0, |section| section.size)
    }

    fn symbol_index(&self, name: &str) -> Result<u32, CudaError> {
        let (symbols, names) = (self.section(".symtab"), self.section(".strtab"));
        let (symbols, names) = symbols.zip(names).ok_or(DAMAGED)?;
        for (index, symbol) in symbols.bytes.chunks_exact(24).enumerate() {
            if text(names.bytes, number::<4>(symbol, 0)? as usize)? == name {
                return Ok(index as u32);
            }
        }
        Err(DAMAGED)
    }

    /// `(attribute, symbol, value)` of the attributes in `.nv.info` that have both.
    fn info(&self) -> Result<Vec<(u8, u32, u32)>, CudaError> {
        let mut rest = self.section(".nv.info").map_or(&[][..], |section| section.bytes);
        let mut found = Vec::new();
        while rest.len() >= 4 {
            let len = match rest[0] {
                FORMAT_SIZED => number::<2>(rest, 2)? as usize,
                _ => 0,
            };
            let payload = range(rest, 4, len)?;
            if len >= 8 {
                found.push((
                    rest[1],
                    number::<4>(payload, 0)? as u32,
                    number::<4>(payload, 4)? as u32,
                ));
            }
            rest = &rest[4 + len..];
        }
        Ok(found)
    }
}

fn section_bytes<'a>(bytes: &'a [u8], header: &[u8]) -> Result<&'a [u8], CudaError> {
    if number::<4>(header, 4)? as u32 == SECTION_NO_BITS {
        return Ok(&[]);
    }
    range(
        bytes,
        number::<8>(header, 0x18)? as usize,
        number::<8>(header, 0x20)? as usize,
    )
}

fn range(bytes: &[u8], start: usize, len: usize) -> Result<&[u8], CudaError> {
    let end = start.checked_add(len).ok_or(DAMAGED)?;
    bytes.get(start..end).ok_or(DAMAGED)
}

/// A little-endian number of `LEN` bytes.
fn number<const LEN: usize>(bytes: &[u8], start: usize) -> Result<u64, CudaError> {
    let mut wide = [0u8; 8];
    wide[..LEN].copy_from_slice(range(bytes, start, LEN)?);
    Ok(u64::from_le_bytes(wide))
}

/// A string that ends with a zero byte.
fn text(names: &[u8], start: usize) -> Result<&str, CudaError> {
    let rest = names.get(start..).ok_or(DAMAGED)?;
    let len = rest.iter().position(|&b| b == 0).ok_or(DAMAGED)?;
    std::str::from_utf8(&rest[..len]).map_err(|_| DAMAGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_but_a_cubin_is_refused() {
        for bytes in [&b""[..], b"\x7fELF", b"\x7fELF\x01aaaaaaaaaaa", &[0; 200]] {
            assert!(kernels(bytes).is_err());
        }
        let mut header = [0u8; 64];
        header[..5].copy_from_slice(b"\x7fELF\x02");
        header[0x28..0x30].copy_from_slice(&u64::MAX.to_le_bytes());
        header[0x3a] = 64;
        header[0x3c] = 3;
        assert!(kernels(&header).is_err(), "a table of sections beyond the end");
    }
}

//! Arrays of a numpy archive, as `numpy.savez` writes it: a zip of stored (not compressed) .npy files.

use std::collections::BTreeMap;
use std::path::Path;

/// Little-endian elements of each array by name, without their headers.
pub fn read(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = std::fs::read(path).unwrap();
    let end = file
        .windows(4)
        .rposition(|w| w == b"PK\x05\x06")
        .expect("no zip directory");
    let num_entries = u16_at(&file, end + 10);
    let mut entry = u32_at(&file, end + 16);
    let mut arrays = BTreeMap::new();
    for _ in 0..num_entries {
        assert_eq!(file[entry..entry + 4], *b"PK\x01\x02");
        assert_eq!(u16_at(&file, entry + 10), 0, "a compressed array");
        let (len, name_len) = (u32_at(&file, entry + 24), u16_at(&file, entry + 28));
        let name = String::from_utf8(file[entry + 46..entry + 46 + name_len].to_vec()).unwrap();
        let local = u32_at(&file, entry + 42);
        let start = local + 30 + u16_at(&file, local + 26) + u16_at(&file, local + 28);
        let array = elements(&file[start..start + len]);
        arrays.insert(name.trim_end_matches(".npy").to_owned(), array);
        entry += 46 + name_len + u16_at(&file, entry + 30) + u16_at(&file, entry + 32);
    }
    arrays
}

fn elements(npy: &[u8]) -> Vec<u8> {
    assert_eq!(npy[..8], *b"\x93NUMPY\x01\x00");
    npy[10 + u16_at(npy, 8)..].to_vec()
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u16_at(bytes, at) + (u16_at(bytes, at + 2) << 16)
}

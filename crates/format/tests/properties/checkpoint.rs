//! What is written into a model folder is what is read from it, whatever the tensors and the size of the files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dualgrain_format::LinearWeights;
use dualgrain_format::checkpoint::{Dtype, FolderWriter, LinearLayout, TensorTable, linear_tensors, widen};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::layers::{floats, linears};

/// Name, shape, type and bytes of every tensor in the files of a folder.
fn read(folder: &Path) -> BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|e| e == "safetensors") {
            let file = fs::read(entry.path()).unwrap();
            for (name, tensor) in TensorTable::parse(&entry.path(), &file).unwrap().tensors {
                let bytes = file[tensor.bytes].to_vec();
                let before = found.insert(name, (tensor.shape, tensor.dtype, bytes));
                assert!(before.is_none(), "a tensor in two files");
            }
        }
    }
    found
}

fn write(folder: &Path, linears: &[LinearWeights], shard_bytes: u64) {
    let name = |index: usize| format!("model.layers.{index}.linear");
    let mut writer = FolderWriter::create(folder, false)
        .unwrap()
        .with_shard_bytes(shard_bytes);
    let specs = linears
        .iter()
        .enumerate()
        .flat_map(|(index, linear)| LinearLayout::of(linear).specs(&name(index)));
    writer.start_tensors(specs.collect()).unwrap();
    for (index, linear) in linears.iter().enumerate().rev() {
        writer.write_linear(&name(index), linear).unwrap();
    }
    writer.commit().unwrap();
}

proptest! {
    // Every case syncs files to disk.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn linears_read_back_as_they_were_written(
        linears in vec(linears(), 0..4),
        shard_bytes in prop_oneof![1..2_000_u64, Just(u64::MAX)],
    ) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("model");
        write(&folder, &linears, shard_bytes);
        let found = read(&folder);
        let mut expected = BTreeMap::new();
        for (index, linear) in linears.iter().enumerate() {
            for (spec, bytes) in linear_tensors(&format!("model.layers.{index}.linear"), linear) {
                expected.insert(spec.name, (spec.shape, spec.dtype, bytes));
            }
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_file_that_is_cut_short_is_refused(linear in linears(), at in any::<prop::sample::Index>()) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("model");
        write(&folder, &[linear], u64::MAX);
        let path = folder.join("model.safetensors");
        let file = fs::read(&path).unwrap();
        prop_assert!(TensorTable::parse(&path, &file[..at.index(file.len())]).is_err());
    }

    #[test]
    fn floats_keep_their_bits(values in vec(floats(), 0..100)) {
        let bytes = dualgrain_format::checkpoint::f32_bytes(&values);
        let mut back = vec![0.0; values.len()];
        widen(Dtype::F32, &bytes, &mut back);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&back), bits(&values));
    }
}

//! Model folders appear whole or not at all, and read back as they were written.

use std::fs;
use std::path::Path;

use dualgrain_format::checkpoint::{
    CheckpointError, Dtype, FolderWriter, LinearLayout, TensorSpec, TensorTable, linear_tensors,
};
use dualgrain_format::{GroupSize, LinearScheme, LinearWeights, QuantizedLinear, QuantizedParts};

fn spec(name: &str, dtype: Dtype, len: usize) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        dtype,
        shape: vec![len],
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort();
    names
}

fn write_model(target: &Path, replace: bool, config: &[u8]) -> Result<(), CheckpointError> {
    let mut folder = FolderWriter::create(target, replace)?;
    folder.write_file("config.json", config)?;
    folder.commit()
}

#[test]
fn tensors_read_back_whatever_the_order_they_were_written_in() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    let mut folder = FolderWriter::create(&target, false).unwrap();
    folder
        .start_tensors(vec![
            spec("b", Dtype::U8, 3),
            spec("a", Dtype::F32, 2),
            spec("none", Dtype::F32, 0),
        ])
        .unwrap();
    folder.write_tensor("a", &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    folder.write_tensor("b", &[9, 10, 11]).unwrap();
    folder.commit().unwrap();
    assert_eq!(names(tmp.path()), ["model"]);
    assert_eq!(names(&target), ["model.safetensors"]);
    let path = target.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let table = TensorTable::parse(&path, &bytes).unwrap();
    let a = &table.tensors["a"];
    assert_eq!((a.dtype, a.bytes.start % 4), (Dtype::F32, 0));
    assert_eq!(bytes[a.bytes.clone()], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(bytes[table.tensors["b"].bytes.clone()], [9, 10, 11]);
    assert_eq!(table.tensors.len(), 3);
}

#[test]
fn many_bytes_become_shards_with_an_index() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    let mut folder = FolderWriter::create(&target, false).unwrap().with_shard_bytes(10);
    let specs = ["a", "b", "c", "d"].map(|name| spec(name, Dtype::U8, if name == "c" { 30 } else { 5 }));
    folder.start_tensors(specs.to_vec()).unwrap();
    for spec in &specs {
        folder
            .write_tensor(&spec.name, &vec![spec.name.as_bytes()[0]; spec.shape[0]])
            .unwrap();
    }
    folder.commit().unwrap();
    let index = fs::read(target.join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["metadata"]["total_size"], 45);
    for (name, shard) in [("a", 1), ("b", 1), ("c", 2), ("d", 3)] {
        let file = format!("model-{shard:05}-of-00003.safetensors");
        assert_eq!(index["weight_map"][name], file);
        let path = target.join(file);
        let bytes = fs::read(&path).unwrap();
        let table = TensorTable::parse(&path, &bytes).unwrap();
        assert!(
            bytes[table.tensors[name].bytes.clone()]
                .iter()
                .all(|&b| b == name.as_bytes()[0])
        );
    }
}

#[test]
fn an_unfinished_folder_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    let mut folder = FolderWriter::create(&target, false).unwrap();
    folder.write_file("config.json", b"{}").unwrap();
    assert!(folder.partial_path().exists() && !target.exists());
    drop(folder);
    assert!(names(tmp.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn folders_of_dead_processes_are_removed_and_those_of_living_ones_are_not() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    let abandoned = tmp.path().join(".model.partial-0");
    fs::create_dir(&abandoned).unwrap();
    fs::write(abandoned.join("model.safetensors"), b"half").unwrap();
    fs::create_dir(tmp.path().join(".model2.partial-0")).unwrap();
    let living = FolderWriter::create(&target, false).unwrap();
    assert!(!abandoned.exists());
    let second = FolderWriter::create(&target, false);
    assert!(
        matches!(second, Err(CheckpointError::Io { .. })),
        "two writers at one target"
    );
    assert!(living.partial_path().exists());
    living.commit().unwrap();
    assert_eq!(names(tmp.path()), [".model2.partial-0", "model"]);
}

#[test]
fn a_missing_tensor_stops_the_commit() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    let mut folder = FolderWriter::create(&target, false).unwrap();
    folder.start_tensors(vec![spec("a", Dtype::F32, 2)]).unwrap();
    let error = folder.commit().unwrap_err().to_string();
    assert!(
        error.contains("`a`") && error.contains("never written"),
        "{error}"
    );
    assert!(names(tmp.path()).is_empty());
}

#[test]
fn wrong_tensors_are_named() {
    let tmp = tempfile::tempdir().unwrap();
    let mut folder = FolderWriter::create(&tmp.path().join("model"), false).unwrap();
    assert!(folder.write_tensor("a", &[]).is_err());
    folder.start_tensors(vec![spec("a", Dtype::F32, 2)]).unwrap();
    for (name, len) in [("b", 8), ("a", 7)] {
        let error = folder.write_tensor(name, &vec![0; len]).unwrap_err();
        assert!(matches!(error, CheckpointError::Tensor { name: n, .. } if n == name));
    }
    folder.write_tensor("a", &[0; 8]).unwrap();
    assert!(folder.write_tensor("a", &[0; 8]).is_err());
    let twice = vec![spec("x", Dtype::U8, 1), spec("x", Dtype::U8, 1)];
    assert!(folder.start_tensors(twice).is_err());
    assert!(folder.write_file("../config.json", b"").is_err());
}

#[test]
fn existing_models_are_replaced_only_when_asked_and_only_as_a_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    write_model(&target, false, b"old").unwrap();
    fs::write(target.join("extra"), b"").unwrap();
    let refused = write_model(&target, false, b"new").unwrap_err();
    assert!(matches!(refused, CheckpointError::TargetExists { .. }));

    let unfinished = FolderWriter::create(&target, true).unwrap();
    drop(unfinished);
    assert_eq!(fs::read(target.join("config.json")).unwrap(), b"old");

    write_model(&target, true, b"new").unwrap();
    assert_eq!(names(&target), ["config.json"]);
    assert_eq!(fs::read(target.join("config.json")).unwrap(), b"new");
    assert_eq!(names(tmp.path()), ["model"]);
}

#[test]
fn what_is_no_model_is_never_replaced() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("home");
    fs::create_dir(&target).unwrap();
    write_model(&target, false, b"an empty folder may be filled").unwrap();
    fs::remove_file(target.join("config.json")).unwrap();
    fs::write(target.join("diary.txt"), b"").unwrap();
    let error = write_model(&target, true, b"new").unwrap_err();
    assert!(matches!(error, CheckpointError::TargetNoModel { .. }));
    let file = target.join("diary.txt");
    assert!(matches!(
        write_model(&file, true, b""),
        Err(CheckpointError::TargetNoFolder { .. })
    ));
    assert!(matches!(
        write_model(Path::new("/"), true, b""),
        Err(CheckpointError::TargetNoModel { .. })
    ));
    assert_eq!(names(&target), ["diary.txt"]);
}

#[test]
fn a_target_that_appears_meanwhile_survives() {
    let tmp = tempfile::tempdir().unwrap();
    let target = tmp.path().join("model");
    let folder = FolderWriter::create(&target, false).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(target.join("config.json"), b"other").unwrap();
    assert!(folder.commit().is_err());
    assert_eq!(fs::read(target.join("config.json")).unwrap(), b"other");
}

#[test]
fn an_error_names_the_path_and_what_to_do() {
    let tmp = tempfile::tempdir().unwrap();
    fs::write(tmp.path().join("file"), b"").unwrap();
    let error = FolderWriter::create(&tmp.path().join("file/model"), false).unwrap_err();
    assert!(error.to_string().contains("file/model"), "{error}");
    let full = CheckpointError::io("write", Path::new("x"))(std::io::ErrorKind::StorageFull.into());
    assert!(full.to_string().contains("free some space"), "{full}");
}

#[test]
fn a_linear_is_written_under_the_names_it_announces() {
    let parts = QuantizedParts {
        q: vec![0x80, 0x8f],
        zero: vec![8],
        s2: vec![10],
        s1: vec![0.5],
        bias: Some(vec![1.5]),
        ta: Some(0.25),
    };
    let linear = QuantizedLinear::new((1, 3), GroupSize::Along(128), parts).unwrap();
    let linear = LinearWeights::W4(linear);
    let layout = LinearLayout::of(&linear);
    assert_eq!(layout.scheme, LinearScheme::w4(GroupSize::Along(128)));
    let tensors = linear_tensors("x", &linear);
    for (spec, bytes) in &tensors {
        assert_eq!(spec.num_bytes().unwrap(), bytes.len(), "{}", spec.name);
    }
    let names = tensors
        .iter()
        .map(|(spec, _)| spec.name.as_str())
        .collect::<Vec<_>>();
    assert_eq!(names, ["x.q", "x.zero", "x.s2", "x.s1", "x.bias", "x.ta"]);
    assert_eq!(
        layout.specs("x"),
        tensors.into_iter().map(|(spec, _)| spec).collect::<Vec<_>>()
    );
}

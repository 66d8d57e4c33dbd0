use std::sync::LazyLock;

use dualgrain_format::checkpoint::{Dtype, TensorSpec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn identity(group_size: &str) -> Identity {
    let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Identity {
        entries: vec![entry("group size", group_size), entry("search", "rtn")],
    }
}

fn block(value: u8) -> QuantizedBlock {
    let spec = TensorSpec {
        name: "x.q".into(),
        dtype: Dtype::U8,
        shape: vec![3],
    };
    QuantizedBlock {
        tensors: vec![(spec, vec![value; 3])],
        cache_scales: Some([0.1, 0.3]),
        reports: Vec::new(),
    }
}

fn journal_of(dir: &Path, blocks: usize) -> Journal {
    let journal = Journal::open(dir.join("out.journal"), JournalPolicy::Refuse, &identity("128")).unwrap();
    for layer in 0..blocks {
        journal
            .append(layer, &block(layer as u8), 2, |window| {
                Ok(vec![layer as f32, window as f32])
            })
            .unwrap();
    }
    journal
}

#[test]
fn finished_blocks_and_activations_come_back() {
    let dir = tempfile::tempdir().unwrap();
    journal_of(dir.path(), 3);
    let journal = Journal::open(
        dir.path().join("out.journal"),
        JournalPolicy::Resume,
        &identity("128"),
    )
    .unwrap();
    let finished = journal.finished_blocks(5);
    assert_eq!(finished.len(), 3);
    assert_eq!(finished[1].cache_scales, Some([0.1, 0.3]));
    let mut rows = Vec::new();
    journal
        .read_residual(2, 2, 2, |_, window| {
            rows.extend_from_slice(window);
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, [2.0, 0.0, 2.0, 1.0]);
    assert!(!journal.residual_path(0).exists(), "old activations are removed");
}

#[test]
fn an_entry_that_cannot_be_finished_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_of(dir.path(), 1);
    let failed = journal.append(1, &block(1), 2, |_| Err(QuantError::NoCalibration));
    assert!(failed.is_err());
    let partial = fs::read_dir(journal.dir()).unwrap();
    let left = partial.filter(|entry| {
        entry
            .as_ref()
            .is_ok_and(|e| e.file_name().to_string_lossy().starts_with('.'))
    });
    assert_eq!(left.count(), 0);
    assert_eq!(journal.finished_blocks(2).len(), 1);
}

#[test]
fn another_runs_journal_is_refused_with_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal_of(dir.path(), 1).dir().to_path_buf();
    let error = Journal::open(path.clone(), JournalPolicy::Resume, &identity("64"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("group size: journal `128`, now `64`"), "{error}");
    assert!(!error.contains("rtn"), "{error}");
    let refused = Journal::open(path.clone(), JournalPolicy::Refuse, &identity("128"));
    assert!(matches!(refused, Err(QuantError::JournalExists { .. })));
    let anew = Journal::open(path, JournalPolicy::Restart, &identity("64")).unwrap();
    assert!(anew.finished_blocks(3).is_empty());
}

#[test]
fn a_damaged_entry_sends_the_run_back_to_the_last_whole_one() {
    for damaged in ["residual-0002.f32", "block-0002.safetensors", "block-0002.json"] {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal_of(dir.path(), 3);
        let path = journal.dir().join(damaged);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 1);
        fs::write(&path, bytes).unwrap();
        assert_eq!(journal.finished_blocks(3).len(), 2, "{damaged}");
    }
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_of(dir.path(), 3);
    fs::write(journal.tensors_path(0), b"???").unwrap();
    assert!(journal.finished_blocks(3).is_empty());
}

#[test]
fn two_runs_never_write_one_journal() {
    let dir = tempfile::tempdir().unwrap();
    let first = journal_of(dir.path(), 1);
    for policy in [JournalPolicy::Resume, JournalPolicy::Restart] {
        let second = Journal::open(first.dir().to_path_buf(), policy, &identity("128"));
        assert!(matches!(second, Err(QuantError::JournalBusy { .. })));
    }
    assert_eq!(first.finished_blocks(1).len(), 1);
    let path = first.dir().to_path_buf();
    drop(first);
    let third = Journal::open(path, JournalPolicy::Resume, &identity("128")).unwrap();
    assert_eq!(third.finished_blocks(1).len(), 1);
}

#[test]
fn a_folder_that_is_no_journal_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.journal");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("thesis.txt"), "x").unwrap();
    let error = Journal::open(path.clone(), JournalPolicy::Restart, &identity("128"));
    assert!(matches!(error, Err(QuantError::NotAJournal { .. })));
    let left: Vec<_> = fs::read_dir(&path).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing removed, nothing added");
}

/// The files of a journal of three blocks, by name.
static WHOLE: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_of(dir.path(), 3);
    let paths = entries(journal.dir()).unwrap().into_iter();
    let named = paths.map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(&path).unwrap())
    });
    let mut files: Vec<_> = named.collect();
    files.sort();
    files
});

/// What resumes of [`WHOLE`] when file `index` holds `contents` instead; `None` when the journal is refused.
fn resumed(index: usize, contents: &[u8]) -> Option<(Vec<FinishedBlock>, Option<Vec<f32>>)> {
    let dir = tempfile::tempdir().unwrap();
    for (place, (name, whole)) in WHOLE.iter().enumerate() {
        let bytes = if place == index { contents } else { whole };
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let policy = JournalPolicy::Resume;
    let journal = Journal::open(dir.path().to_path_buf(), policy, &identity("128")).ok()?;
    let finished = journal.finished_blocks(5);
    let mut rows = Vec::new();
    let last = finished.len().checked_sub(1);
    let read = last.map(|last| {
        journal.read_residual(last, 2, 2, |_, window| {
            rows.extend_from_slice(window);
            Ok(())
        })
    });
    read.transpose().ok()?;
    Some((finished, last.map(|_| rows)))
}

proptest! {
    #[test]
    fn a_file_cut_anywhere_leaves_a_beginning_of_the_run(file in any::<Index>(), at in any::<Index>()) {
        let index = file.index(WHOLE.len());
        let contents = &WHOLE[index].1;
        let (whole, _) = resumed(WHOLE.len(), &[]).unwrap();
        prop_assert_eq!(whole.len(), 3);
        let cut = &contents[..at.index(contents.len() + 1)];
        let (finished, rows) = resumed(index, cut).expect("a cut journal is not refused");
        prop_assert_eq!(&finished[..], &whole[..finished.len()]);
        let last = finished.len() as f32 - 1.0;
        prop_assert!(rows.is_none_or(|rows| rows == [last, 0.0, last, 1.0]));
    }

    #[test]
    fn a_file_of_any_bytes_is_resumed_from_or_refused(file in any::<Index>(), contents: Vec<u8>) {
        let finished = resumed(file.index(WHOLE.len()), &contents);
        prop_assert!(finished.is_none_or(|(finished, _)| finished.len() <= 3));
    }

    #[test]
    fn a_changed_byte_is_resumed_from_or_refused(file in any::<Index>(), at in any::<Index>(), byte: u8) {
        let index = file.index(WHOLE.len());
        let mut contents = WHOLE[index].1.clone();
        prop_assume!(!contents.is_empty());
        let at = at.index(contents.len());
        contents[at] = byte;
        let finished = resumed(index, &contents);
        prop_assert!(finished.is_none_or(|(finished, _)| finished.len() <= 3));
    }
}

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::dataset::Dataset;
use super::files::{MANIFEST, ROWS, ROWS_COMPRESSED, write_manifest};
use super::manifest::{Manifest, OLDEST_PROTOCOL, PROTOCOL};
use super::row::{QualityFlag, Row};
use super::writer::RowWriter;
use crate::machine::{Machine, MachineKind};

pub(super) fn manifest(name: &str) -> Manifest {
    Manifest {
        protocol: PROTOCOL,
        machine: Machine {
            name: name.to_owned(),
            kind: MachineKind::Gpu,
            num_units: 132,
            clock_hz: 1.98e9,
            read_bytes_per_s: 4.2e12,
            last_level_cache_bytes: 60 << 20,
            memory_bytes: 143 << 30,
            shared_bytes: 232_448,
            capability: 90,
            int8_ops_per_s: 1.3e15,
            half_ops_per_s: 7e14,
            float_ops_per_s: 5e13,
            idle_power_w: Some(78.0),
            power_limit_w: Some(700.0),
            small_ops: None,
            timed_models: Vec::new(),
        },
        driver: String::new(),
        version: String::new(),
        date: "2026-11-22".to_owned(),
        method: String::new(),
        operands: String::new(),
    }
}

/// Without energy, and without what few drivers show.
fn row(m: usize) -> Row {
    Row {
        m,
        power_w: None,
        energy_j: None,
        energy_window_s: None,
        energy_runs: 0,
        memory_clock_hz: None,
        temperature_c: None,
        ..crate::data::row::tests::sound_row()
    }
}

#[test]
fn what_is_appended_is_read_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
    let rows = [row(1), row(2)];
    for row in &rows {
        assert!(writer.append(row).unwrap());
    }
    assert!(!writer.append(&row(2)).unwrap());
    let read = Dataset::read(folder.path()).unwrap();
    assert_eq!(read.rows, rows);
    assert_eq!(read.manifest, manifest("NVIDIA H200"));
}

#[test]
fn sweep_that_was_killed_inside_a_row_goes_on_without_losing_or_doubling_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
    for row in [row(1), row(2)] {
        writer.append(&row).unwrap();
    }
    let path = folder.path().join(ROWS);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 17]).unwrap();
    let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
    assert!(writer.held(&row(1).key()).is_some() && writer.held(&row(2).key()).is_none());
    writer.append(&row(2)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[test]
fn energy_that_comes_later_takes_the_place_of_the_row_without_and_is_never_lost_again() {
    let folder = tempfile::tempdir().unwrap();
    let with_energy = |window_s: f64| Row {
        power_w: Some(690.0),
        energy_j: Some(690.0 * 1.25e-5),
        energy_window_s: Some(window_s),
        ..row(2)
    };
    let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
    let appended = [
        row(1),
        row(2),
        with_energy(0.2),
        row(2),
        with_energy(0.2002),
        with_energy(1.0),
    ]
    .map(|row| writer.append(&row).unwrap());
    assert_eq!(appended, [true, true, true, false, false, true]);
    assert_eq!(writer.num_rows(), 2);
    assert_eq!(
        Dataset::read(folder.path()).unwrap().rows,
        [row(1), with_energy(1.0)]
    );
    // Also when a sweep goes on with the folder, and when a kill tore the line.
    let path = folder.path().join(ROWS);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
    assert_eq!(writer.held(&row(2).key()), Some(&with_energy(0.2)));
    assert!(writer.append(&with_energy(1.0)).unwrap());
    let flagged = Row {
        flag: Some(QualityFlag::Unsteady),
        ..with_energy(9.0)
    };
    assert!(
        !writer.append(&flagged).unwrap(),
        "a marked row took a sound one's place"
    );
}

#[test]
fn folder_of_another_protocol_is_read_but_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let of = |protocol| Manifest {
        protocol,
        ..manifest("NVIDIA H200")
    };
    let mut writer = RowWriter::open(folder.path(), &of(OLDEST_PROTOCOL)).unwrap();
    writer.append(&row(1)).unwrap();
    assert_eq!(Dataset::read(folder.path()).unwrap().rows.len(), 1);
    let error = RowWriter::open(folder.path(), &of(PROTOCOL)).unwrap_err();
    assert!(error.to_string().contains("--known"), "{error}");
    let newer = tempfile::tempdir().unwrap();
    write_manifest(newer.path(), &of(PROTOCOL + 1)).unwrap();
    let error = Dataset::read(newer.path()).unwrap_err();
    assert!(error.to_string().contains("this program reads 1 to 2"), "{error}");
}

fn compress(folder: &Path) {
    let text = std::fs::read(folder.join(ROWS)).unwrap();
    let file = File::create(folder.join(ROWS_COMPRESSED)).unwrap();
    let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gz.write_all(&text).unwrap();
    gz.finish().unwrap();
    std::fs::remove_file(folder.join(ROWS)).unwrap();
}

#[test]
fn committed_set_is_added_to_and_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = RowWriter::create(folder.path(), &manifest("NVIDIA H200")).unwrap();
    writer.append(&row(1)).unwrap();
    compress(folder.path());
    let of_before = std::fs::read(folder.path().join(MANIFEST)).unwrap();
    for name in ["NVIDIA H200", "NVIDIA L4"] {
        let error = RowWriter::create(folder.path(), &manifest(name)).unwrap_err();
        assert!(error.to_string().contains("rows.csv.gz"), "{error}");
    }
    RowWriter::open(folder.path(), &manifest("NVIDIA L4")).unwrap_err();
    let mut later = manifest("NVIDIA H200");
    later.date = "2026-12-24".to_owned();
    let mut writer = RowWriter::open(folder.path(), &later).unwrap();
    assert_eq!(writer.num_rows(), 1);
    assert!(!writer.append(&row(1)).unwrap() && writer.append(&row(2)).unwrap());
    assert_eq!(std::fs::read(folder.path().join(MANIFEST)).unwrap(), of_before);
    assert_eq!(Dataset::read(folder.path()).unwrap().rows, [row(1), row(2)]);
    let writer = RowWriter::open(folder.path(), &later).unwrap();
    assert_eq!(writer.num_rows(), 2);
}

#[test]
fn manifest_alone_is_gone_on_with_and_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    write_manifest(folder.path(), &manifest("NVIDIA H200")).unwrap();
    RowWriter::create(folder.path(), &manifest("NVIDIA H200")).unwrap_err();
    let error = Dataset::read(folder.path()).unwrap_err();
    assert!(error.to_string().contains("rows.csv"), "{error}");
    let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
    assert!(writer.append(&row(1)).unwrap());
    assert_eq!(Dataset::read(folder.path()).unwrap().rows, [row(1)]);
}

#[test]
fn sets_that_were_not_measured_alike_are_neither_gone_on_with_nor_read_as_one() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folders = [first.path().to_owned(), second.path().to_owned()];
    let mut writer = RowWriter::open(first.path(), &manifest("NVIDIA H200")).unwrap();
    writer.append(&row(1)).unwrap();
    type Change = (&'static str, fn(&mut Manifest));
    let changes: [Change; 5] = [
        ("drivers", |set| set.driver = "another".to_owned()),
        ("methods", |set| set.method = "10 movements long".to_owned()),
        ("operands", |set| set.operands = "zeros".to_owned()),
        ("power limits", |set| set.machine.power_limit_w = Some(500.0)),
        ("units", |set| set.machine.num_units = 114),
    ];
    for (name, change) in changes {
        let mut other = manifest("NVIDIA H200");
        change(&mut other);
        let error = RowWriter::open(first.path(), &other).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("another --out"), "{error}");
        write_manifest(second.path(), &other).unwrap();
        std::fs::copy(first.path().join(ROWS), second.path().join(ROWS)).unwrap();
        let error = Dataset::read_all(&folders).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("cannot be merged"),
            "{error}"
        );
    }
}

#[test]
fn file_with_other_columns_is_neither_read_nor_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
    let path = folder.path().join(ROWS);
    std::fs::write(&path, "name,seconds\n").unwrap();
    let error = Dataset::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("kernel"), "{error}");
    let error = writer.append(&row(1)).unwrap_err().to_string();
    assert!(error.contains("name,seconds"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "name,seconds\n");
}

#[test]
fn row_with_an_impossible_number_is_told_by_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
    for row in [row(1), row(2)] {
        writer.append(&row).unwrap();
    }
    let path = folder.path().join(ROWS);
    let text = std::fs::read_to_string(&path).unwrap();
    for corrupt in ["NaN", "inf", "-1e-5", "1e30"] {
        let at = text.rfind("0.0000125").unwrap();
        let (before, after) = text.split_at(at);
        std::fs::write(&path, format!("{before}{corrupt}{}", &after["0.0000125".len()..])).unwrap();
        let error = Dataset::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("time_s is"), "{error}");
    }
}

#[test]
fn committed_sets_are_read_whole() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/data");
    for (machine, least) in [("h200", 16_128), ("xeon-amx", 2_000)] {
        let set = Dataset::read(&data.join(machine)).unwrap();
        assert!(set.rows.len() >= least, "{machine}");
    }
}

#[test]
fn another_machine_and_a_corrupt_row_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
    writer.append(&row(1)).unwrap();
    let error = RowWriter::open(folder.path(), &manifest("NVIDIA L4")).unwrap_err();
    assert!(error.to_string().contains("choose another --out"), "{error}");
    let path = folder.path().join(ROWS);
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace("4096,4096", "4096,many");
    std::fs::write(&path, text).unwrap();
    let error = Dataset::read(folder.path()).unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn time_in_which_the_machine_cannot_have_done_it_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = RowWriter::open(folder.path(), &manifest("NVIDIA H200")).unwrap();
    let wrong = Row {
        time_s: Some(1e-9),
        time_q1_s: Some(1e-9),
        time_q3_s: Some(1e-9),
        ..row(2)
    };
    writer.append(&row(1)).unwrap();
    writer.append(&wrong).unwrap();
    drop(writer);
    let said = Dataset::read(folder.path()).unwrap_err().to_string();
    assert!(
        said.contains("line 3") && said.contains("operations a second, expected at most"),
        "{said}"
    );
}

#[test]
fn timed_models_are_read_back_and_older_manifests_have_none() {
    let mut with = manifest("AMD EPYC");
    let text = serde_json::to_string(&with).unwrap();
    assert!(!text.contains("timed_models"), "{text}");
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), with);
    let timed = r#"{"sizes": {"num_layers": 2, "hidden": 384, "num_heads": 6, "num_kv_heads": 2, "head_dim": 64, "ffn": 1024,
        "vocab_size": 8192}, "prompt_tokens": 512, "prompt_s": 0.02, "context": 576, "decode": [{"sequences": 1, "time_s": 0.001}]}"#;
    with.machine
        .timed_models
        .push(serde_json::from_str(timed).unwrap());
    let text = serde_json::to_string(&with).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), with);
    assert_eq!(with.machine.check().map_err(|error| error.to_string()), Ok(()));
    with.machine.timed_models[0].decode[0].time_s = 0.0;
    let error = with.machine.check().unwrap_err().to_string();
    assert!(error.contains("timed_models"), "{error}");
}

//! Shards of a sweep, or sweeps of several days, put together: only what was measured alike.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{Dataset, PerfError, RowWriter};

/// What was put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Rows in the new folder.
    pub rows: usize,
    /// Configurations that several of the folders had; the first folder's rows were kept.
    pub repeated: usize,
}

/// Writes the rows of several folders into a new one, each configuration once.
///
/// # Errors
/// A folder that cannot be read, devices, drivers or protocols that differ, or a target that holds rows already.
pub fn merge(folders: &[PathBuf], out: &Path) -> Result<Merged, PerfError> {
    let sets: Vec<Dataset> = folders
        .iter()
        .map(|folder| Dataset::read(folder))
        .collect::<Result<_, _>>()?;
    let Some(first) = sets.first() else {
        return Ok(Merged { rows: 0, repeated: 0 });
    };
    for (folder, set) in folders.iter().zip(&sets).skip(1) {
        check_alike(&folders[0], first, folder, set)?;
    }
    if out.join("rows.csv").exists() {
        return Err(PerfError::Malformed {
            path: out.to_owned(),
            what: "holds rows already; choose another --out".to_owned(),
        });
    }
    let mut writer = RowWriter::open(out, &first.manifest)?;
    let mut repeated = 0;
    for row in sets.iter().flat_map(|set| &set.rows) {
        repeated += usize::from(writer.holds(&row.key()));
        writer.append(row)?;
    }
    let rows = writer.num_rows();
    Ok(Merged { rows, repeated })
}

fn check_alike(left: &Path, first: &Dataset, right: &Path, other: &Dataset) -> Result<(), PerfError> {
    let (a, b) = (&first.manifest, &other.manifest);
    let differ = |name: &str, one: String, two: String| match one == two {
        true => None,
        false => Some(format!("{name} {one} and {two}")),
    };
    let memory = |bytes: usize| format!("{} GiB", bytes >> 30);
    let what = differ("devices", a.machine.name.clone(), b.machine.name.clone())
        .or_else(|| {
            differ(
                "kinds",
                format!("{:?}", a.machine.kind),
                format!("{:?}", b.machine.kind),
            )
        })
        .or_else(|| {
            differ(
                "units",
                a.machine.num_units.to_string(),
                b.machine.num_units.to_string(),
            )
        })
        .or_else(|| {
            differ(
                "memory",
                memory(a.machine.memory_bytes),
                memory(b.machine.memory_bytes),
            )
        })
        .or_else(|| {
            differ(
                "power limits",
                format!("{:?}", a.machine.power_limit_w),
                format!("{:?}", b.machine.power_limit_w),
            )
        })
        .or_else(|| differ("drivers", a.driver.clone(), b.driver.clone()))
        .or_else(|| differ("methods", a.method.clone(), b.method.clone()))
        .or_else(|| differ("operands", a.operands.clone(), b.operands.clone()));
    what.map_or(Ok(()), |what| {
        Err(PerfError::Mismatch {
            left: left.to_owned(),
            right: right.to_owned(),
            what,
        })
    })
}

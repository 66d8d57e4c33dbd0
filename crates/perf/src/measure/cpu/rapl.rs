//! The energy counters of processor packages (RAPL), where Linux shows them (`/sys/class/powercap`, often to root alone).

use std::fs;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/sys/class/powercap";

/// The packages' counters.
pub struct Rapl {
    packages: Vec<Package>,
}

struct Package {
    counter: PathBuf,
    /// Where the counter begins again at 0.
    range_uj: u64,
}

/// What the counters show at a moment.
pub struct RaplReading(Vec<u64>);

impl Rapl {
    /// Counters that can be read; `None` where there are none.
    pub fn open() -> Option<Self> {
        Self::open_in(Path::new(FOLDER))
    }

    fn open_in(folder: &Path) -> Option<Self> {
        let entries = fs::read_dir(folder).ok()?.flatten();
        let packages: Vec<Package> = entries
            .map(|entry| entry.path())
            .filter(|path| number(path, "energy_uj").is_some())
            .filter(|path| {
                fs::read_to_string(path.join("name")).is_ok_and(|name| name.starts_with("package"))
            })
            .map(|path| Package {
                range_uj: number(&path, "max_energy_range_uj").unwrap_or(u64::MAX),
                counter: path,
            })
            .collect();
        (!packages.is_empty()).then_some(Self { packages })
    }

    /// All counters now.
    pub fn read(&self) -> Option<RaplReading> {
        let counters = self
            .packages
            .iter()
            .map(|package| number(&package.counter, "energy_uj"));
        counters.collect::<Option<Vec<u64>>>().map(RaplReading)
    }

    /// Joules since an earlier reading, a counter that began again at 0 included.
    pub fn since_j(&self, earlier: &RaplReading) -> Option<f64> {
        Some(self.between_j(earlier, &self.read()?))
    }

    /// Joules between two readings.
    pub fn between_j(&self, earlier: &RaplReading, later: &RaplReading) -> f64 {
        let parts = self.packages.iter().zip(later.0.iter().zip(&earlier.0));
        let used = parts.map(|(package, (&now, &then))| match now.checked_sub(then) {
            Some(used) => used,
            None => package.range_uj.saturating_sub(then).saturating_add(now),
        });
        used.sum::<u64>() as f64 * 1e-6
    }
}

fn number(folder: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(folder: &Path, name: &str, energy_uj: u64) {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("name"), "package-0\n").unwrap();
        fs::write(folder.join("energy_uj"), format!("{energy_uj}\n")).unwrap();
        fs::write(folder.join("max_energy_range_uj"), "10000000\n").unwrap();
    }

    #[test]
    fn packages_are_added_up_and_a_counter_may_begin_again() {
        let folder = tempfile::tempdir().unwrap();
        package(folder.path(), "intel-rapl:0", 9_000_000);
        package(folder.path(), "intel-rapl:1", 500_000);
        let rapl = Rapl::open_in(folder.path()).unwrap();
        let earlier = rapl.read().unwrap();
        package(folder.path(), "intel-rapl:0", 1_000_000);
        package(folder.path(), "intel-rapl:1", 1_500_000);
        assert_eq!(rapl.since_j(&earlier), Some(3.0));
    }

    #[test]
    fn machine_that_shows_no_counter_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Rapl::open_in(folder.path()).is_none());
        package(folder.path(), "intel-rapl:0", 1);
        fs::remove_file(folder.path().join("intel-rapl:0/energy_uj")).unwrap();
        assert!(Rapl::open_in(folder.path()).is_none());
    }
}

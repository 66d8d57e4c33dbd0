//! The energy counters of processor packages (RAPL), where Linux shows them (`/sys/class/powercap`, often to root alone).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FOLDER: &str = "/sys/class/powercap";
/// A zone's counter, in microjoules.
const ENERGY: &str = "energy_uj";

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

/// Why the energy of the processors is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEnergy {
    /// There is no counter.
    #[error(
        "the kernel shows no energy counter of a processor (RAPL, {FOLDER}); virtual machines and containers seldom have one"
    )]
    Absent,
    /// There is one for others.
    #[error(
        "this user may not read {}: `sudo chmod a+r {FOLDER}/*/energy_uj` allows it until the machine starts again",
        counter.display()
    )]
    Forbidden {
        /// Its file.
        counter: PathBuf,
    },
    /// There is one that does not count.
    #[error(
        "{} shows the same energy all the time; virtual machines have such counters. Measure on the machine itself",
        counter.display()
    )]
    StandsStill {
        /// Its file.
        counter: PathBuf,
    },
}

/// Counters move about every millisecond, also where a package idles.
const PAUSE: Duration = Duration::from_millis(20);

impl Rapl {
    /// The counters, each package's once.
    ///
    /// # Errors
    /// There is none, or one that can not be read or stands still: the others would pass for all.
    pub fn open() -> Result<Self, NoEnergy> {
        Self::open_in(Path::new(FOLDER), || std::thread::sleep(PAUSE))
    }

    /// The counters in `folder` that move during `pause`.
    fn open_in(folder: &Path, pause: impl FnOnce()) -> Result<Self, NoEnergy> {
        let packages = named_packages(folder)?;
        let earlier: Vec<_> = packages.iter().map(Package::energy_uj).collect();
        pause();
        let mut counted: Vec<Package> = Vec::new();
        for (package, earlier) in packages.into_iter().zip(earlier) {
            if package.energy_uj() == earlier {
                let counter = package.file();
                return Err(NoEnergy::StandsStill { counter });
            }
            if !counted.iter().any(|other| other.is_mirrored_by(&package)) {
                counted.push(package);
            }
        }
        Ok(Self { packages: counted })
    }

    /// Packages that are counted.
    pub fn num_packages(&self) -> usize {
        self.packages.len()
    }

    /// All counters now.
    pub fn read(&self) -> Option<RaplReading> {
        let counters = self.packages.iter().map(Package::energy_uj);
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

impl Package {
    fn file(&self) -> PathBuf {
        self.counter.join(ENERGY)
    }

    fn energy_uj(&self) -> Option<u64> {
        number(&self.counter, ENERGY)
    }

    /// Whether another zone shows this one's counter: processors with several dies in a package show the package's for each die. What it
    /// shows between two looks at this one then lies between what this one shows; of two counters that is as good as impossible.
    fn is_mirrored_by(&self, other: &Self) -> bool {
        let shown = (self.energy_uj(), other.energy_uj(), self.energy_uj());
        matches!(shown, (Some(before), Some(other), Some(after)) if (before..=after).contains(&other))
    }
}

/// The zones of packages, one for each name: a package may be shown by two interfaces (intel-rapl, intel-rapl-mmio), which count the same.
fn named_packages(folder: &Path) -> Result<Vec<Package>, NoEnergy> {
    let entries = fs::read_dir(folder).map_err(|_| NoEnergy::Absent)?.flatten();
    let mut zones: Vec<(String, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter_map(|path| Some((fs::read_to_string(path.join("name")).ok()?, path)))
        .filter(|(name, _)| name.starts_with("package"))
        .collect();
    // The processor's own registers go before their copies in memory.
    zones.sort_by_key(|(name, path)| {
        (
            name.clone(),
            path.to_string_lossy().contains("mmio"),
            path.clone(),
        )
    });
    let mut packages: Vec<(String, Package)> = Vec::new();
    let mut refused = Vec::new();
    for (name, counter) in zones {
        let is_known = packages.last().is_some_and(|(last, _)| *last == name);
        match number(&counter, ENERGY) {
            _ if is_known => {}
            Some(_) => {
                let range_uj = number(&counter, "max_energy_range_uj").unwrap_or(u64::MAX);
                packages.push((name, Package { counter, range_uj }));
            }
            None => refused.push((name, counter.join(ENERGY))),
        }
    }
    // A part of the packages would pass for all of them.
    refused.retain(|(name, _)| !packages.iter().any(|(known, _)| known == name));
    match refused.into_iter().next() {
        Some((_, counter)) => Err(NoEnergy::Forbidden { counter }),
        None if packages.is_empty() => Err(NoEnergy::Absent),
        None => Ok(packages.into_iter().map(|(_, package)| package).collect()),
    }
}

fn number(folder: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(folder: &Path, zone: &str, name: &str, energy_uj: u64) {
        let folder = folder.join(zone);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("name"), format!("{name}\n")).unwrap();
        fs::write(folder.join(ENERGY), format!("{energy_uj}\n")).unwrap();
        fs::write(folder.join("max_energy_range_uj"), "10000000\n").unwrap();
    }

    #[test]
    fn packages_are_added_up_and_a_counter_may_begin_again() {
        let folder = tempfile::tempdir().unwrap();
        let both = |first, second| {
            zone(folder.path(), "intel-rapl:0", "package-0", first);
            zone(folder.path(), "intel-rapl:1", "package-1", second);
        };
        both(8_999_000, 499_000);
        let rapl = Rapl::open_in(folder.path(), || both(9_000_000, 500_000)).unwrap();
        let earlier = rapl.read().unwrap();
        both(1_000_000, 1_500_000);
        assert_eq!((rapl.num_packages(), rapl.since_j(&earlier)), (2, Some(3.0)));
    }

    #[test]
    fn a_package_that_is_shown_twice_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        // Two interfaces, and the dies of a package, of which one is a zone without a counter of a package.
        let all = |energy_uj| {
            zone(folder.path(), "intel-rapl-mmio:0", "package-0", energy_uj + 7);
            zone(folder.path(), "intel-rapl:0", "package-0", energy_uj);
            zone(folder.path(), "intel-rapl:0:0", "core", energy_uj / 2);
            zone(folder.path(), "intel-rapl:1", "package-1-die-0", 2 * energy_uj);
            zone(folder.path(), "intel-rapl:2", "package-1-die-1", 2 * energy_uj);
        };
        all(100);
        let rapl = Rapl::open_in(folder.path(), || all(200)).unwrap();
        let earlier = rapl.read().unwrap();
        all(1_000_200);
        assert_eq!((rapl.num_packages(), rapl.since_j(&earlier)), (2, Some(3.0)));
        let registers = rapl.packages.iter().map(Package::file).next().unwrap();
        assert!(registers.ends_with("intel-rapl:0/energy_uj"), "{registers:?}");
    }

    #[test]
    fn why_there_is_no_energy_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Rapl::open_in(folder.path(), || ()).err();
        assert_eq!(open(), Some(NoEnergy::Absent));
        zone(folder.path(), "intel-rapl:0", "package-0", 1);
        let counter = folder.path().join("intel-rapl:0").join(ENERGY);
        let still = NoEnergy::StandsStill {
            counter: counter.clone(),
        };
        assert_eq!(open(), Some(still));
        // Root may read every file, so one that is no number stands for one that is not to be read.
        fs::write(&counter, "").unwrap();
        zone(folder.path(), "intel-rapl:1", "package-1", 1);
        let forbidden = open().unwrap();
        assert_eq!(forbidden, NoEnergy::Forbidden { counter });
        assert!(forbidden.to_string().contains("chmod a+r"), "{forbidden}");
    }
}

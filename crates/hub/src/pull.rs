//! A model from the hub into the cache: what it needs, whether it fits, file by file, and only then a folder that holds it.

use std::collections::BTreeSet;
use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dualgrain_format::checkpoint::{INDEX, SINGLE, free_bytes};

use crate::cache::Cache;
use crate::error::HubError;
use crate::http::Client;
use crate::hub::Hub;
use crate::listing::{CONFIG, Listing, RemoteFile, shards_of_index};
use crate::model_name::{ModelName, Revision};
use crate::settings::Settings;
use crate::transfer::{self, Wanted};
use crate::watch::Watch;

/// How often a lock is tried that another program holds.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// Which files are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All that a model needs.
    Whole,
    /// All but the weights: enough to plan with.
    WithoutWeights,
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its folder.
    pub path: PathBuf,
    /// Which state of it.
    pub commit: String,
    /// Its files, with their lengths.
    pub files: Vec<(String, u64)>,
    /// Whether nothing had to come.
    pub from_cache: bool,
}

impl Pulled {
    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|(_, size_bytes)| size_bytes).sum()
    }
}

/// The model's folder in the cache, where all of it is there; the network is not asked.
pub fn find(name: &ModelName, revision: &Revision, cache: &Path) -> Option<PathBuf> {
    Cache::of(cache, name).find(revision).map(|(_, dir)| dir)
}

/// Brings a model into the cache, as far as it is not there. Ends soon after `cancel` is raised; what came is kept.
///
/// # Errors
/// See [`HubError`]. Whatever it is: the folder of a commit holds only files that are what the hub lists.
pub fn pull(
    name: &ModelName,
    revision: &Revision,
    extent: Extent,
    settings: &Settings,
    (watch, cancel): (&dyn Watch, &AtomicBool),
) -> Result<Pulled, HubError> {
    let cache = Cache::of(&settings.cache, name);
    if settings.is_offline {
        return offline(&cache, name, revision, settings);
    }
    let (proxies, certificates) = (settings.proxies.clone(), settings.certificates.as_deref());
    let client = Client::new(certificates, (proxies, settings.patience), cancel)?;
    let token = settings.token.as_ref().map(|token| token.header());
    let hub = Hub::new((client, watch), &settings.endpoint, token.as_deref(), name)?;
    let pull = Pull {
        hub,
        cache,
        name,
        root: &settings.cache,
    };
    pull.run(revision, extent)
}

fn offline(
    cache: &Cache,
    name: &ModelName,
    revision: &Revision,
    settings: &Settings,
) -> Result<Pulled, HubError> {
    let found = cache.find(revision).ok_or_else(|| HubError::Offline {
        name: name.to_string(),
        revision: revision.to_string(),
        cache: settings.cache.clone(),
    });
    let (commit, path) = found?;
    let files = files_in(&path, "").map_err(HubError::io("looking into", &path))?;
    Ok(Pulled {
        path,
        commit,
        files,
        from_cache: true,
    })
}

/// Names and lengths of all files in a folder, `above` before each name.
fn files_in(dir: &Path, above: &str) -> io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{above}{name}");
        match path.is_dir() {
            true => files.extend(files_in(&path, &format!("{name}/"))?),
            false => files.push((name, fs::metadata(&path)?.len())),
        }
    }
    files.sort();
    Ok(files)
}

struct Pull<'a> {
    hub: Hub<'a>,
    cache: Cache,
    name: &'a ModelName,
    root: &'a Path,
}

impl Pull<'_> {
    fn run(&self, revision: &Revision, extent: Extent) -> Result<Pulled, HubError> {
        let listing = self.patiently("the list of files", || self.hub.listing(revision))?;
        if listing.file(CONFIG).is_none() {
            return Err(self.not_readable(format!("expected {CONFIG} and safetensors, got no {CONFIG}")));
        }
        let mut files = listing.small_files();
        if extent == Extent::Whole {
            files.extend(self.weights(&listing)?);
        }
        let commit = &listing.commit;
        let wanted = files.iter().map(|file| self.wanted(commit, file));
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        let is_new = self.fetch_all(commit, &wanted)?;
        self.link_all(commit, &wanted)?;
        self.cache.refer(revision, commit)?;
        Ok(Pulled {
            path: self.cache.snapshot(commit),
            commit: commit.clone(),
            files: wanted
                .into_iter()
                .map(|file| (file.path, file.size_bytes))
                .collect(),
            from_cache: !is_new,
        })
    }

    /// The files with weights, and the index that names them.
    fn weights(&self, listing: &Listing) -> Result<Vec<RemoteFile>, HubError> {
        // What has no safetensors at all is refused before anything comes.
        let without_index = listing.weights(None, self.name)?;
        let Some(index) = listing.file(INDEX).filter(|_| listing.file(SINGLE).is_none()) else {
            return Ok(without_index);
        };
        let shards = self.shards(&listing.commit, index)?;
        let mut files = vec![index.clone()];
        files.extend(listing.weights(Some(&shards), self.name)?);
        Ok(files)
    }

    fn shards(&self, commit: &str, index: &RemoteFile) -> Result<BTreeSet<String>, HubError> {
        let wanted = self.wanted(commit, index)?;
        self.fetch_all(commit, std::slice::from_ref(&wanted))?;
        let path = self.cache.blob(&wanted.checksum);
        let bytes = fs::read(&path).map_err(HubError::io("reading", &path))?;
        shards_of_index(&bytes).map_err(|problem| self.not_readable(format!("{INDEX}: {problem}")))
    }

    fn wanted(&self, commit: &str, file: &RemoteFile) -> Result<Wanted, HubError> {
        let (size_bytes, checksum) = self.patiently(&file.path, || self.hub.facts(commit, file))?;
        Ok(Wanted {
            path: file.path.clone(),
            size_bytes,
            checksum,
        })
    }

    /// Brings all contents into the cache; whether one of them was not there.
    fn fetch_all(&self, commit: &str, wanted: &[Wanted]) -> Result<bool, HubError> {
        self.check_disk(wanted)?;
        let total = wanted.iter().map(|file| file.size_bytes).sum();
        let (mut before, mut is_any_new) = (0, false);
        for file in wanted {
            let heard = |bytes: u64| self.hub.watch.bytes(&file.path, before + bytes, total);
            let is_new = self.fetch(commit, file, &heard)?;
            self.hub.watch.file(&file.path, file.size_bytes, is_new);
            before += file.size_bytes;
            is_any_new |= is_new;
        }
        Ok(is_any_new)
    }

    /// Brings a content into the cache, if it is not there; whether it was not.
    fn fetch(&self, commit: &str, file: &Wanted, heard: &dyn Fn(u64)) -> Result<bool, HubError> {
        if self.has(file) {
            return Ok(false);
        }
        let lock = self.lock(file)?;
        // Another program may have brought it meanwhile.
        if self.has(file) {
            return Ok(false);
        }
        // Without a lock another program could write into what this one has verified.
        let part = match lock {
            Some(_) => self.cache.part(&file.checksum),
            None => self.cache.own_part(&file.checksum),
        };
        transfer::fetch(
            (&self.hub, commit),
            file,
            (&part, &self.cache.blob(&file.checksum)),
            heard,
        )?;
        Ok(true)
    }

    fn has(&self, file: &Wanted) -> bool {
        let blob = fs::metadata(self.cache.blob(&file.checksum));
        blob.is_ok_and(|blob| blob.len() == file.size_bytes)
    }

    /// The lock of a content, once no other program holds it; `None` where the disk has no locks, as some network disks have not.
    fn lock(&self, file: &Wanted) -> Result<Option<fs::File>, HubError> {
        let lock = self.cache.lock(&file.checksum)?;
        let mut is_told = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::WouldBlock) => {
                    if !is_told {
                        self.hub.watch.say(&format!(
                            "{}: waiting for another program that downloads it",
                            file.path
                        ));
                        is_told = true;
                    }
                    self.hub.client.pause(LOCK_PAUSE)?;
                }
                Err(TryLockError::Error(_)) => return Ok(None),
            }
        }
    }

    /// Refuses what the disk can not hold before anything of it comes.
    fn check_disk(&self, wanted: &[Wanted]) -> Result<(), HubError> {
        let missing = wanted.iter().filter(|file| !self.has(file)).map(|file| {
            let part = fs::metadata(self.cache.part(&file.checksum)).map_or(0, |part| part.len());
            file.size_bytes.saturating_sub(part)
        });
        let needed_bytes: u64 = missing.fold(0, u64::saturating_add);
        match free_bytes(self.root) {
            Some(free_bytes) if free_bytes < needed_bytes => Err(HubError::Disk {
                name: self.name.to_string(),
                cache: self.root.to_path_buf(),
                free_bytes,
                needed_bytes,
            }),
            _ => Ok(()),
        }
    }

    /// Makes the folder of the commit, now that all contents are there; what makes it a model comes last.
    fn link_all(&self, commit: &str, wanted: &[Wanted]) -> Result<(), HubError> {
        let (last, first): (Vec<_>, Vec<_>) = wanted.iter().partition(|file| file.path == CONFIG);
        let mut files = first.into_iter().chain(last);
        files.try_for_each(|file| self.cache.link(commit, &file.path, &file.checksum))
    }

    /// What `ask` brings, asked again where that may help.
    fn patiently<T>(&self, what: &str, ask: impl Fn() -> Result<T, HubError>) -> Result<T, HubError> {
        let mut tries = 0;
        loop {
            match ask() {
                Ok(value) => return Ok(value),
                Err(error) => {
                    tries += 1;
                    transfer::retry(&self.hub, error, tries, what)?;
                }
            }
        }
    }

    fn not_readable(&self, problem: String) -> HubError {
        HubError::NotReadable {
            name: self.name.to_string(),
            problem,
        }
    }
}

//! Compiled kernels on disk, found by a hash of everything they were made from.
//!
//! Any number of processes may share a folder: an entry is written to a file of its own and renamed into place, so a
//! reader sees all of it or nothing; two writers of one key write the same bytes. An entry carries its key and a check
//! sum; one that does not fit is thrown away and compiled again. The least recently used entries go when the folder
//! outgrows its bound. A folder that cannot be used costs time, never a result.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::error::CudaError;

/// Environment variable that names the folder; empty means no cache.
pub const CACHE_VARIABLE: &str = "DUALGRAIN_CUDA_CACHE";

/// Bytes the folder may hold; about ten thousand kernels.
const MAX_BYTES: u64 = 512 << 20;
/// What is left after a clean-up, of 16.
const KEPT_SIXTEENTHS: u64 = 12;
/// A half-written file this old has no writer any more.
const ABANDONED: Duration = Duration::from_secs(3600);

const MAGIC: &[u8; 8] = b"dgcubin1";
const HEADER_LEN: usize = MAGIC.len() + 16 + 16;

/// Identifies an entry: 128 bits of FNV-1a over everything the kernel was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// The key of some parts, in order; where one ends matters.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let hash = parts.into_iter().fold(FNV_START, |hash, part| {
            fnv(fnv(hash, &(part.len() as u64).to_le_bytes()), part)
        });
        Self(hash)
    }
}

const FNV_START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

fn fnv(start: u128, bytes: &[u8]) -> u128 {
    bytes.iter().fold(start, |hash, &byte| {
        (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME)
    })
}

/// A folder of compiled kernels.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: Option<PathBuf>,
    max_bytes: u64,
}

impl Cache {
    /// The user's folder: `DUALGRAIN_CUDA_CACHE`, else `$XDG_CACHE_HOME/dualgrain/cuda`, else `~/.cache/dualgrain/cuda`.
    pub fn of_user() -> Self {
        Self {
            folder: user_folder(|name| std::env::var_os(name).map(PathBuf::from)),
            max_bytes: MAX_BYTES,
        }
    }

    /// A folder of the caller's, with room for `max_bytes`.
    pub fn new(folder: PathBuf, max_bytes: u64) -> Self {
        Self {
            folder: Some(folder),
            max_bytes,
        }
    }

    /// No folder: every lookup misses.
    pub fn none() -> Self {
        Self {
            folder: None,
            max_bytes: 0,
        }
    }

    /// Where it is.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Entries and their bytes.
    pub fn size(&self) -> (usize, u64) {
        let entries = self
            .folder
            .as_deref()
            .map_or(Vec::new(), |folder| entries(folder, ".cubin"));
        (entries.len(), entries.iter().map(|entry| entry.size_bytes).sum())
    }

    /// A kernel that was stored whole; marks it as used.
    pub fn load(&self, key: Key) -> Option<Vec<u8>> {
        let path = self.path(key)?;
        let bytes = fs::read(&path).ok()?;
        let Some(cubin) = checked(&bytes, key) else {
            // Damaged: the next store replaces it, or nothing does.
            let _ = fs::remove_file(&path);
            return None;
        };
        // The order of use is a convenience; a folder without write permission still serves.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(cubin.to_vec())
    }

    /// Stores a kernel, then makes room if the folder has outgrown its bound.
    ///
    /// # Errors
    /// The folder or file cannot be written; the caller has its kernel all the same.
    pub fn store(&self, key: Key, cubin: &[u8]) -> Result<(), CudaError> {
        let (Some(folder), Some(path)) = (self.folder.as_deref(), self.path(key)) else {
            return Ok(());
        };
        fs::create_dir_all(folder).map_err(|error| CudaError::file(folder, &error))?;
        let partial = folder.join(partial_name(key));
        let written = write_whole(&partial, key, cubin).and_then(|()| fs::rename(&partial, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&partial);
            return Err(CudaError::file(&path, &error));
        }
        self.make_room(folder, &path);
        Ok(())
    }

    fn path(&self, key: Key) -> Option<PathBuf> {
        let folder = self.folder.as_deref()?;
        Some(folder.join(format!("{:032x}.cubin", key.0)))
    }

    /// Removes what was not used for longest, but never the entry just written, and files no writer will finish.
    fn make_room(&self, folder: &Path, newest: &Path) {
        for entry in entries(folder, ".partial") {
            if entry.modified.elapsed().is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(&entry.path);
            }
        }
        let mut entries = entries(folder, ".cubin");
        let mut total: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
        if total <= self.max_bytes {
            return;
        }
        entries.sort_by_key(|entry| entry.modified);
        for entry in entries.iter().filter(|entry| entry.path != newest) {
            if total <= self.max_bytes / 16 * KEPT_SIXTEENTHS {
                break;
            }
            // Another process may have been faster.
            let _ = fs::remove_file(&entry.path);
            total -= entry.size_bytes;
        }
    }
}

fn user_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(folder) = variable(CACHE_VARIABLE) {
        return (!folder.as_os_str().is_empty()).then_some(folder);
    }
    // The XDG specification wants relative paths ignored.
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("dualgrain").join("cuda"))
}

/// Unlike any other writer's.
fn partial_name(key: Key) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:032x}-{}-{count}.partial", key.0, std::process::id())
}

fn write_whole(path: &Path, key: Key, cubin: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + cubin.len());
    bytes.extend(MAGIC);
    bytes.extend(key.0.to_le_bytes());
    bytes.extend(fnv(FNV_START, cubin).to_le_bytes());
    bytes.extend(cubin);
    File::create_new(path)?.write_all(&bytes)
}

/// The kernel inside an entry, if the entry is whole and the one asked for.
fn checked(bytes: &[u8], key: Key) -> Option<&[u8]> {
    let (header, cubin) = bytes.split_at_checked(HEADER_LEN)?;
    let (magic, numbers) = header.split_at(MAGIC.len());
    let (stored_key, sum) = numbers.split_at(16);
    let fits =
        magic == MAGIC && stored_key == key.0.to_le_bytes() && sum == fnv(FNV_START, cubin).to_le_bytes();
    (fits && !cubin.is_empty()).then_some(cubin)
}

struct Entry {
    path: PathBuf,
    size_bytes: u64,
    modified: SystemTime,
}

fn entries(folder: &Path, suffix: &str) -> Vec<Entry> {
    let Ok(files) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let entry = |file: fs::DirEntry| {
        let metadata = file.metadata().ok()?;
        let named = file.file_name().to_str()?.ends_with(suffix);
        (named && metadata.is_file()).then_some(Entry {
            path: file.path(),
            size_bytes: metadata.len(),
            modified: metadata.modified().ok()?,
        })
    };
    files.flatten().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty folder of a test's own, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("dualgrain-cache-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            Self(folder)
        }

        fn cache(&self, max_bytes: u64) -> Cache {
            Cache::new(self.0.clone(), max_bytes)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn key(name: &str) -> Key {
        Key::of([name.as_bytes()])
    }

    #[test]
    fn border_between_parts_is_part_of_the_key() {
        assert_ne!(
            Key::of([&b"ab"[..], b"c"]),
            Key::of([&b"a"[..], b"bc"]),
            "the same bytes cut elsewhere"
        );
        // The published test value of 128-bit FNV-1a.
        assert_eq!(
            fnv(FNV_START, b"foobar"),
            0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18
        );
    }

    #[test]
    fn stored_kernel_comes_back_and_another_key_misses() {
        let scratch = Scratch::new("back");
        let cache = scratch.cache(1 << 20);
        assert_eq!(cache.load(key("a")), None);
        cache.store(key("a"), b"code").unwrap();
        assert_eq!(cache.load(key("a")).as_deref(), Some(&b"code"[..]));
        assert_eq!(cache.load(key("b")), None);
        assert_eq!(cache.size().0, 1);
    }

    #[test]
    fn damaged_entries_miss_and_are_replaced() {
        let scratch = Scratch::new("damaged");
        let cache = scratch.cache(1 << 20);
        cache.store(key("a"), b"some code").unwrap();
        let path = cache.path(key("a")).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&whole[..whole.len() - 1], &whole[..10], b"", &flipped] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.load(key("a")), None);
            assert!(!path.exists(), "a damaged entry is thrown away");
        }
        // An entry under another's name: whole, and not what was asked for.
        fs::write(cache.path(key("b")).unwrap(), &whole).unwrap();
        assert_eq!(cache.load(key("b")), None);
        cache.store(key("a"), b"some code").unwrap();
        assert_eq!(cache.load(key("a")).as_deref(), Some(&b"some code"[..]));
    }

    #[test]
    fn least_recently_used_entries_make_room() {
        let scratch = Scratch::new("room");
        let cache = scratch.cache(4 * (1000 + HEADER_LEN as u64));
        for (age, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            cache.store(key(name), &[7; 1000]).unwrap();
            let file = File::open(cache.path(key(name)).unwrap()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(100 - age as u64))
                .unwrap();
        }
        assert!(cache.load(key("a")).is_some(), "used just now");
        cache.store(key("e"), &[7; 1000]).unwrap();
        let left: Vec<bool> = ["a", "b", "c", "d", "e"]
            .map(|name| cache.path(key(name)).unwrap().exists())
            .to_vec();
        assert_eq!(left, [true, false, false, true, true]);
    }

    #[test]
    fn many_writers_of_one_key_leave_one_whole_entry_and_nothing_else() {
        let scratch = Scratch::new("writers");
        let cache = scratch.cache(1 << 20);
        let code = vec![3u8; 50_000];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        cache.store(key("a"), &code).unwrap();
                        assert_eq!(cache.load(key("a")).as_deref(), Some(&code[..]));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    }

    #[test]
    fn folder_that_cannot_be_used_is_an_error_of_storing_only() {
        let scratch = Scratch::new("file");
        fs::write(&scratch.0, b"a file where the folder should be").unwrap();
        let cache = scratch.cache(1 << 20);
        assert_eq!(cache.load(key("a")), None);
        let error = cache.store(key("a"), b"code").unwrap_err();
        assert!(matches!(error, CudaError::File { .. }), "{error}");
        fs::remove_file(&scratch.0).unwrap();
    }

    #[test]
    fn folder_follows_the_environment() {
        let with = |pairs: &'static [(&str, &str)]| {
            user_folder(move |name| {
                let found = pairs.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| PathBuf::from(value))
            })
        };
        assert_eq!(
            with(&[("HOME", "/h")]),
            Some(PathBuf::from("/h/.cache/dualgrain/cuda"))
        );
        assert_eq!(
            with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]),
            Some(PathBuf::from("/h/.cache/dualgrain/cuda"))
        );
        assert_eq!(
            with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]),
            Some(PathBuf::from("/x/dualgrain/cuda"))
        );
        assert_eq!(
            with(&[("HOME", "/h"), (CACHE_VARIABLE, "/own")]),
            Some(PathBuf::from("/own"))
        );
        assert_eq!(with(&[("HOME", "/h"), (CACHE_VARIABLE, "")]), None);
        assert_eq!(with(&[]), None);
    }
}

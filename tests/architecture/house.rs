//! The files of the repository that the rules are about.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders with source code.
const FOLDERS: [&str; 6] = ["src", "crates", "adapters", "tests", "examples", "fuzz"];
/// Endings of source files.
const SOURCES: [&str; 3] = ["rs", "cu", "cuh"];
/// Folders that are built or fetched.
const LEFT_OUT: [&str; 4] = ["target", "corpus", "artifacts", "coverage"];

/// A repository.
pub struct House {
    pub root: PathBuf,
}

impl House {
    /// This repository.
    pub fn here() -> Self {
        Self {
            root: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        }
    }

    /// A file's or folder's path from the root, with slashes.
    pub fn name(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        inside.to_string_lossy().replace('\\', "/")
    }

    /// All source files, in order.
    pub fn sources(&self) -> Vec<PathBuf> {
        let is_source = |path: &PathBuf| ending(path).is_some_and(|ending| SOURCES.contains(&ending));
        let folders = FOLDERS.iter().map(|folder| self.root.join(folder));
        folders
            .flat_map(|folder| files(&folder))
            .filter(is_source)
            .collect()
    }

    /// All Rust files but those of tests and benches.
    pub fn rust_files_apart_from_tests(&self) -> Vec<PathBuf> {
        let mut files = self.sources();
        files.retain(|file| ending(file) == Some("rs") && !self.is_test(file));
        files
    }

    /// Whether a file belongs to tests: it lies in a folder of tests or benches, or holds the tests of the file beside it.
    pub fn is_test(&self, file: &Path) -> bool {
        let name = self.name(file);
        let in_folder = name.split('/').any(|part| ["tests", "benches"].contains(&part));
        in_folder || file.ends_with("tests.rs")
    }

    /// The names of the folders in `crates/`, in order.
    pub fn crates(&self) -> Vec<String> {
        let folders = entries(&self.root.join("crates"))
            .into_iter()
            .filter(|path| path.is_dir());
        folders
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    }

    /// The files where crates begin: libraries, the binary and examples of several files.
    pub fn crate_roots(&self) -> Vec<PathBuf> {
        let is_root = |file: &PathBuf| {
            let name = self.name(file);
            let is_example = name.contains("examples/") && name.ends_with("/main.rs");
            name.ends_with("src/lib.rs") || name.ends_with("src/main.rs") || is_example
        };
        let files = self.rust_files_apart_from_tests().into_iter();
        files.filter(is_root).collect()
    }
}

/// The text of a file.
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn ending(path: &Path) -> Option<&str> {
    path.extension()?.to_str()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let left_out = |path: &PathBuf| LEFT_OUT.iter().any(|name| path.ends_with(name));
    let paths = entries(folder).into_iter().filter(|path| !left_out(path));
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// An invented repository with these files, for the rules' own tests.
#[cfg(test)]
pub fn invented(files: &[(&str, &str)]) -> (tempfile::TempDir, House) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let house = House {
        root: folder.path().to_owned(),
    };
    (folder, house)
}

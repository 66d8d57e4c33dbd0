//! Copies of folders.

use std::fs;
use std::path::Path;

/// Copies the files of a folder, not its folders, into `to`, which is made if it is not there.
///
/// # Panics
/// If something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) {
    let failed = |error| panic!("copying {} to {}: {error}", from.display(), to.display());
    fs::create_dir_all(to).unwrap_or_else(failed);
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let path = entry
            .unwrap_or_else(|error| panic!("{}: {error}", from.display()))
            .path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            fs::copy(&path, to.join(name)).map(drop).unwrap_or_else(failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_copied_and_folders_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("a/to"));
        fs::create_dir_all(from.join("inner")).unwrap();
        fs::write(from.join("file"), "words").unwrap();
        copy_folder(&from, &to);
        assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "words");
        assert!(!to.join("inner").exists());
    }
}

//! Opening NVIDIA's libraries at run time, so that neither building nor starting needs any of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::CudaError;

/// Where a library may be.
pub(crate) struct Places {
    /// Words for messages.
    pub what: &'static str,
    /// Environment variable that names the file; it alone is tried when set.
    pub variable: &'static str,
    /// Names the dynamic linker is asked for, best first.
    pub names: &'static [&'static str],
    /// Beginning of the names of libraries that must be opened first when the file is named by its path (NVRTC opens
    /// its builtins by name, which fails outside the linker's folders).
    pub companions: &'static [&'static str],
    /// What to do about a missing library.
    pub remedy: &'static str,
}

/// An open library.
pub(crate) struct Library {
    handle: libloading::Library,
    /// Kept open for `handle`.
    _companions: Vec<libloading::Library>,
    name: String,
}

/// Folders of a toolkit that the linker may not know.
const TOOLKIT_FOLDERS: [&str; 2] = [
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
];

impl Library {
    /// Opens the first candidate that is there.
    pub fn open(places: &Places) -> Result<Self, CudaError> {
        let candidates = candidates(places);
        let opened = candidates.iter().find_map(|name| Self::open_one(name, places));
        opened.ok_or_else(|| {
            let names: Vec<_> = candidates
                .iter()
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            CudaError::LibraryMissing {
                what: places.what,
                tried: names.join(", "),
                remedy: places.remedy,
            }
        })
    }

    fn open_one(name: &OsString, places: &Places) -> Option<Self> {
        let companions = companions(Path::new(name), places.companions);
        // SAFETY: NVIDIA's libraries have no preconditions on being opened; they are never closed while in use.
        let handle = unsafe { libloading::Library::new(name) }.ok()?;
        Some(Self {
            handle,
            _companions: companions,
            name: name.to_string_lossy().into_owned(),
        })
    }

    /// File or name it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A function pointer.
    ///
    /// # Safety
    /// `F` must be the function's true type, and must not be called after the library is dropped.
    pub unsafe fn symbol<F: Copy>(&self, symbol: &str) -> Result<F, CudaError> {
        // SAFETY: passed on to the caller.
        let found = unsafe { self.handle.get::<F>(symbol.as_bytes()) };
        found.map(|f| *f).map_err(|_| CudaError::SymbolMissing {
            library: self.name.clone(),
            symbol: symbol.to_owned(),
        })
    }
}

fn candidates(places: &Places) -> Vec<OsString> {
    if let Some(path) = std::env::var_os(places.variable).filter(|path| !path.is_empty()) {
        return vec![path];
    }
    let by_name = places.names.iter().map(OsString::from);
    let in_toolkit = TOOLKIT_FOLDERS.iter().flat_map(|folder| {
        let paths = places.names.iter().map(move |name| Path::new(folder).join(name));
        paths.filter(|path| path.exists()).map(PathBuf::into_os_string)
    });
    by_name.chain(in_toolkit).collect()
}

/// Opens the neighbours of `file` whose names begin with one of `prefixes`.
fn companions(file: &Path, prefixes: &[&str]) -> Vec<libloading::Library> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Some(entries) = folder.and_then(|folder| std::fs::read_dir(folder).ok()) else {
        return Vec::new();
    };
    let fits = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    let paths = entries.flatten().map(|entry| entry.path()).filter(fits);
    // SAFETY: as in `open_one`.
    paths
        .filter_map(|path| unsafe { libloading::Library::new(path) }.ok())
        .collect()
}

/// Declares a table of functions that are all looked up when the library is opened; each returns a status code.
macro_rules! functions {
    ($(#[$meta:meta])* $name:ident { $( $field:ident = $symbol:literal ($($argument:ty),* $(,)?); )* }) => {
        $(#[$meta])*
        pub(crate) struct $name {
            $( pub $field: unsafe extern "C" fn($($argument),*) -> i32, )*
            /// Kept open for the pointers above.
            #[allow(dead_code, reason = "it lives for the pointers' sake; not every table is asked for its name")]
            library: $crate::driver::Library,
        }

        impl $name {
            pub(crate) fn from_library(library: $crate::driver::Library) -> Result<Self, $crate::error::CudaError> {
                Ok(Self {
                    $(
                        // SAFETY: the type is the one of NVIDIA's documentation; the library lives as long as the table.
                        $field: unsafe { library.symbol($symbol) }?,
                    )*
                    library,
                })
            }
        }
    };
}
pub(crate) use functions;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_library_is_described_with_every_name_tried() {
        let places = Places {
            what: "imaginary library",
            variable: "DUALGRAIN_NO_SUCH_VARIABLE",
            names: &["libimaginary.so.7", "libimaginary.so"],
            companions: &[],
            remedy: "build it",
        };
        let error = Library::open(&places).err().expect("it can not be there");
        assert_eq!(
            error.to_string(),
            "no imaginary library here: tried libimaginary.so.7, libimaginary.so; build it"
        );
    }
}

//! A kernel's text with the numbers it is compiled with, and the cubin that becomes of it.

use super::cache::{Cache, Key};
use super::nvrtc::{Nvrtc, Program};
use crate::error::CudaError;

/// A kernel's text and the numbers it is compiled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The kernel: its symbol and the name of its file.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
    /// Files the text includes: name and text.
    pub headers: &'static [(&'static str, &'static str)],
    /// Macros, e.g. `TILE_M` and 64.
    pub macros: Vec<(&'static str, i64)>,
}

impl Source {
    /// Options for one architecture.
    fn options(&self, arch: &str) -> Vec<String> {
        let fixed = [
            "--std=c++17",
            "--device-as-default-execution-space",
            // The epilogue's rounding is part of the number format.
            "--fmad=false",
        ];
        let mut options: Vec<String> = fixed.map(str::to_owned).to_vec();
        options.push(format!("--gpu-architecture={arch}"));
        options.extend(
            self.macros
                .iter()
                .map(|(name, value)| format!("-D{name}={value}")),
        );
        options
    }

    /// Hash of everything the cubin depends on.
    pub(crate) fn key(&self, arch: &str, compiler: (i32, i32)) -> Key {
        let version = format!("nvrtc {}.{}", compiler.0, compiler.1);
        let options = self.options(arch);
        let headers = self
            .headers
            .iter()
            .flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]);
        let parts = [version.as_bytes(), self.name.as_bytes(), self.text.as_bytes()];
        Key::of(
            parts
                .into_iter()
                .chain(headers)
                .chain(options.iter().map(String::as_bytes)),
        )
    }

    /// Compiles without looking at any cache; needs no card.
    ///
    /// # Errors
    /// No compiler, one that does not know `arch`, or a text that does not compile.
    pub fn compile(&self, arch: &str) -> Result<Vec<u8>, CudaError> {
        let program = Program {
            name: self.name,
            text: self.text,
            headers: self.headers,
            options: &self.options(arch),
        };
        Nvrtc::open()?.compile(&program, arch)
    }

    /// The cubin for an architecture, from the cache or compiled now and stored; needs no card.
    ///
    /// # Errors
    /// As [`Source::compile`].
    pub fn cubin(&self, arch: &str, cache: &Cache) -> Result<Vec<u8>, CudaError> {
        let key = self.key(arch, Nvrtc::open()?.version());
        if let Some(cubin) = cache.load(key) {
            return Ok(cubin);
        }
        let cubin = self.compile(arch)?;
        // A folder that can not be written costs the next start some time and nothing else; `doctor` names the folder.
        let _ = cache.store(key, &cubin);
        Ok(cubin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &'static str, macros: &[(&'static str, i64)]) -> Source {
        Source {
            name: "probe",
            text,
            headers: &[],
            macros: macros.to_vec(),
        }
    }

    #[test]
    fn everything_a_cubin_depends_on_is_in_its_key() {
        let one = source("int x;", &[("TILE_M", 64)]);
        let key = one.key("sm_80", (13, 0));
        assert_eq!(key, one.clone().key("sm_80", (13, 0)));
        assert_ne!(key, one.key("sm_89", (13, 0)));
        assert_ne!(key, one.key("sm_80", (13, 1)));
        assert_ne!(key, source("int y;", &[("TILE_M", 64)]).key("sm_80", (13, 0)));
        assert_ne!(key, source("int x;", &[("TILE_M", 65)]).key("sm_80", (13, 0)));
        let with_header = Source {
            headers: &[("a.cuh", "int z;")],
            ..one.clone()
        };
        assert_ne!(key, with_header.key("sm_80", (13, 0)));
    }
}

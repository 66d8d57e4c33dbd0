//! Kernels for one card: compiled for its architecture, kept on disk and in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache::{Cache, Key};
use super::nvrtc::Nvrtc;
use super::source::Source;
use crate::driver::{Gpu, Kernel, driver, version_words};
use crate::error::CudaError;

/// Compiles kernels for one card and keeps them loaded.
pub struct Jit {
    gpu: Gpu,
    cache: Cache,
    modules: Mutex<HashMap<Key, Arc<Kernel>>>,
}

impl Jit {
    /// For a card, with the user's cache.
    ///
    /// # Errors
    /// No compiler, one that does not know the card, or a driver too old for the compiler's code.
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        Self::with_cache(gpu, Cache::of_user())
    }

    /// For a card, with a cache of the caller's.
    ///
    /// # Errors
    /// As [`Jit::new`].
    pub fn with_cache(gpu: &Gpu, cache: Cache) -> Result<Self, CudaError> {
        let nvrtc = Nvrtc::open()?;
        check_compiler(nvrtc, gpu)?;
        check_driver(nvrtc.version(), driver()?.version()?)?;
        Ok(Self {
            gpu: gpu.clone(),
            cache,
            modules: Mutex::default(),
        })
    }

    /// The kernel, from memory, from disk, or compiled now.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn kernel(&self, source: &Source) -> Result<Arc<Kernel>, CudaError> {
        let arch = self.gpu.info().arch();
        let key = source.key(&arch, Nvrtc::open()?.version());
        if let Some(kernel) = self.modules().get(&key) {
            return Ok(Arc::clone(kernel));
        }
        // Not under the lock: other threads may want other kernels. Two that want the same one both compile it.
        let stored = self.cache.load(key);
        // What the driver refuses is as good as damaged.
        let loaded = stored.and_then(|cubin| Kernel::load(&self.gpu, source.name, &cubin).ok());
        let kernel = match loaded {
            Some(kernel) => kernel,
            None => self.compile(source, &arch, key)?,
        };
        let kernel = Arc::new(kernel);
        self.modules().insert(key, Arc::clone(&kernel));
        Ok(kernel)
    }

    fn modules(&self) -> MutexGuard<'_, HashMap<Key, Arc<Kernel>>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, source: &Source, arch: &str, key: Key) -> Result<Kernel, CudaError> {
        let cubin = source.compile(arch)?;
        let kernel = Kernel::load(&self.gpu, source.name, &cubin)?;
        // A folder that can not be written costs the next start some time and nothing else; `doctor` names the folder.
        let _ = self.cache.store(key, &cubin);
        Ok(kernel)
    }
}

fn check_compiler(nvrtc: &Nvrtc, gpu: &Gpu) -> Result<(), CudaError> {
    let info = gpu.info();
    let (major, minor) = info.capability;
    if nvrtc.archs().contains(&(10 * major + minor)) {
        return Ok(());
    }
    let version = nvrtc.version();
    Err(CudaError::UnsupportedGpu {
        name: info.name.clone(),
        capability: format!("{major}.{minor}"),
        needed: format!(
            "NVRTC {}.{} cannot compile for it; install another NVRTC",
            version.0, version.1
        ),
    })
}

/// A driver runs the code of compilers of its own major version and of earlier ones.
fn check_driver(compiler: (i32, i32), driver: i32) -> Result<(), CudaError> {
    if driver / 1000 >= compiler.0 {
        return Ok(());
    }
    Err(CudaError::DriverTooOld {
        driver: version_words(driver),
        needed: format!(
            "CUDA {}.0, for the code of NVRTC {}.{}",
            compiler.0, compiler.0, compiler.1
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_newer_than_the_driver_is_refused_in_words() {
        assert_eq!(check_driver((12, 9), 13_000), Ok(()));
        assert_eq!(check_driver((13, 2), 13_000), Ok(()));
        let error = check_driver((13, 0), 12_080).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the driver knows CUDA 12.8 only; this program needs CUDA 13.0, for the code of NVRTC 13.0: update the driver"
        );
    }
}

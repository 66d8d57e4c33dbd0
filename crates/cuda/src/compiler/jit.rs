//! From a kernel's text to code on the card: compiled for the architecture that is there, kept on disk.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache::{Cache, Key};
use super::nvrtc::{Nvrtc, Program};
use crate::driver::Device;
use crate::driver::api::{self, Handle, driver, version_words};
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
    fn key(&self, arch: &str, compiler: (i32, i32)) -> Key {
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
}

impl Source {
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

/// Version and file of the compiler, e.g. `13.0`.
///
/// # Errors
/// It is not on this machine.
pub fn compiler_version() -> Result<(String, String), CudaError> {
    let nvrtc = Nvrtc::open()?;
    let (major, minor) = nvrtc.version();
    Ok((format!("{major}.{minor}"), nvrtc.library_name().to_owned()))
}

/// Compiles kernels for one card and keeps them loaded.
pub struct Jit {
    device: Device,
    cache: Cache,
    modules: Mutex<HashMap<Key, Arc<Kernel>>>,
}

impl Jit {
    /// For a card, with the user's cache.
    ///
    /// # Errors
    /// No compiler, one that does not know the card, or a driver too old for the compiler's code.
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        Self::with_cache(device, Cache::of_user())
    }

    /// For a card, with a cache of the caller's.
    ///
    /// # Errors
    /// As [`Jit::new`].
    pub fn with_cache(device: &Device, cache: Cache) -> Result<Self, CudaError> {
        let nvrtc = Nvrtc::open()?;
        check_compiler(nvrtc, device)?;
        check_driver(nvrtc.version(), driver()?.version()?)?;
        Ok(Self {
            device: device.clone(),
            cache,
            modules: Mutex::default(),
        })
    }

    /// The kernel, from memory, from disk, or compiled now.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn kernel(&self, source: &Source) -> Result<Arc<Kernel>, CudaError> {
        let arch = self.device.info().arch();
        let key = source.key(&arch, Nvrtc::open()?.version());
        if let Some(kernel) = self.modules().get(&key) {
            return Ok(Arc::clone(kernel));
        }
        // Not under the lock: other threads may want other kernels. Two that want the same one both compile it.
        let stored = self.cache.load(key);
        // What the driver refuses is as good as damaged.
        let loaded = stored.and_then(|cubin| Kernel::load(&self.device, source.name, &cubin).ok());
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
        let kernel = Kernel::load(&self.device, source.name, &cubin)?;
        // A folder that can not be written costs the next start some time and nothing else; `doctor` names the folder.
        let _ = self.cache.store(key, &cubin);
        Ok(kernel)
    }
}

fn check_compiler(nvrtc: &Nvrtc, device: &Device) -> Result<(), CudaError> {
    let info = device.info();
    let (major, minor) = info.capability;
    if nvrtc.archs().contains(&(10 * major + minor)) {
        return Ok(());
    }
    let version = nvrtc.version();
    Err(CudaError::UnsupportedDevice {
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

/// A kernel on the card.
pub struct Kernel {
    device: Device,
    module: Handle,
    function: Handle,
    num_registers: i32,
    local_bytes: i32,
}

// SAFETY: as for the device: handles that are never changed after `load`.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Kernel {
    fn load(device: &Device, name: &str, cubin: &[u8]) -> Result<Self, CudaError> {
        // The driver reads as far as the file's own tables say; a file that is cut short must not get there.
        crate::driver::kernels(cubin)?;
        let driver = device.current()?;
        let mut kernel = Self {
            device: device.clone(),
            module: std::ptr::null_mut(),
            function: std::ptr::null_mut(),
            num_registers: 0,
            local_bytes: 0,
        };
        // SAFETY: a whole ELF file (checked); writes one handle.
        let code = unsafe { (driver.module_load)(&raw mut kernel.module, cubin.as_ptr().cast()) };
        driver.check("cuModuleLoadData", code)?;
        let symbol = CString::new(name).unwrap_or_default();
        // SAFETY: a live module and a string; writes one handle.
        let code =
            unsafe { (driver.module_function)(&raw mut kernel.function, kernel.module, symbol.as_ptr()) };
        driver.check("cuModuleGetFunction", code)?;
        kernel.num_registers = kernel.attribute(api::FUNCTION_NUM_REGISTERS)?;
        kernel.local_bytes = kernel.attribute(api::FUNCTION_LOCAL_BYTES)?;
        Ok(kernel)
    }

    fn attribute(&self, which: i32) -> Result<i32, CudaError> {
        let driver = self.device.current()?;
        let mut value = 0;
        // SAFETY: a live function; writes one integer.
        let code = unsafe { (driver.function_attribute)(&raw mut value, which, self.function) };
        driver.check("cuFuncGetAttribute", code)?;
        Ok(value)
    }

    /// Lets blocks use this much dynamic shared memory.
    ///
    /// # Errors
    /// More than the card has.
    pub fn allow_shared(&self, size_bytes: usize) -> Result<(), CudaError> {
        let driver = self.device.current()?;
        // SAFETY: a live function; values out of range give an error code.
        let code = unsafe {
            (driver.set_function_attribute)(
                self.function,
                api::FUNCTION_DYNAMIC_SHARED_BYTES,
                i32::try_from(size_bytes).unwrap_or(i32::MAX),
            )
        };
        driver.check("cuFuncSetAttribute", code)
    }

    /// Blocks of so many threads with so much dynamic shared memory that a multiprocessor holds at once.
    ///
    /// # Errors
    /// A call that failed.
    pub fn blocks_per_sm(&self, threads: usize, shared_bytes: usize) -> Result<usize, CudaError> {
        let driver = self.device.current()?;
        let (mut blocks, threads) = (0, i32::try_from(threads).unwrap_or(i32::MAX));
        // SAFETY: a live function; writes one integer.
        let code =
            unsafe { (driver.max_active_blocks)(&raw mut blocks, self.function, threads, shared_bytes) };
        driver.check("cuOccupancyMaxActiveBlocksPerMultiprocessor", code)?;
        Ok(usize::try_from(blocks).unwrap_or(0))
    }

    /// Registers a thread.
    pub fn num_registers(&self) -> i32 {
        self.num_registers
    }

    /// Bytes of local memory a thread.
    pub fn local_bytes(&self) -> i32 {
        self.local_bytes
    }

    pub(crate) fn function(&self) -> Handle {
        self.function
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let (Ok(driver), false) = (self.device.current(), self.module.is_null()) {
            // SAFETY: loaded once, unloaded once.
            unsafe { (driver.module_unload)(self.module) };
        }
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

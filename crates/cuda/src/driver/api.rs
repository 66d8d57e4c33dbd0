//! The functions of the CUDA driver this program calls, with the types of NVIDIA's documentation.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use super::library::{Library, Places, functions};
use crate::error::CudaError;

/// Opaque handles of the driver.
pub(crate) type Handle = *mut c_void;
/// Address in the card's memory.
pub(crate) type Address = u64;

/// `CUlaunchConfig`.
#[repr(C)]
pub(crate) struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: Handle,
    pub attributes: *const LaunchAttribute,
    pub num_attributes: u32,
}

/// `CUlaunchAttribute`: an id, padding to 8 bytes, a union of 64 bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct LaunchAttribute {
    pub id: u32,
    pub padding: u32,
    pub value: [u32; 16],
}

/// `CUtensorMap`: filled by the driver, passed to a kernel by value.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct TensorMap(pub [u64; 16]);

/// Ids of `CUlaunchAttribute`.
pub(crate) const LAUNCH_CLUSTER: u32 = 4;
pub(crate) const LAUNCH_PROGRAMMATIC: u32 = 6;

/// `CUdevice_attribute`.
pub(crate) const DEVICE_CLOCK_KHZ: i32 = 13;
pub(crate) const DEVICE_NUM_SMS: i32 = 16;
pub(crate) const DEVICE_MEMORY_KHZ: i32 = 36;
pub(crate) const DEVICE_MEMORY_BITS: i32 = 37;
pub(crate) const DEVICE_L2_BYTES: i32 = 38;
pub(crate) const DEVICE_CAPABILITY_MAJOR: i32 = 75;
pub(crate) const DEVICE_CAPABILITY_MINOR: i32 = 76;
pub(crate) const DEVICE_SHARED_BYTES: i32 = 97;

/// `CUfunction_attribute`.
pub(crate) const FUNCTION_LOCAL_BYTES: i32 = 3;
pub(crate) const FUNCTION_NUM_REGISTERS: i32 = 4;
pub(crate) const FUNCTION_DYNAMIC_SHARED_BYTES: i32 = 8;

/// `CU_STREAM_NON_BLOCKING`, `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`.
pub(crate) const STREAM_NON_BLOCKING: u32 = 1;
pub(crate) const CAPTURE_THREAD_LOCAL: u32 = 1;

functions! {
    /// The driver's functions.
    Driver {
        init = "cuInit" (u32);
        driver_version = "cuDriverGetVersion" (*mut i32);
        error_string = "cuGetErrorString" (i32, *mut *const c_char);
        device_count = "cuDeviceGetCount" (*mut i32);
        device = "cuDeviceGet" (*mut i32, i32);
        device_pci_bus_id = "cuDeviceGetPCIBusId" (*mut c_char, i32, i32);
        device_uuid = "cuDeviceGetUuid" (*mut [u8; 16], i32);
        device_name = "cuDeviceGetName" (*mut c_char, i32, i32);
        device_attribute = "cuDeviceGetAttribute" (*mut i32, i32, i32);
        device_memory = "cuDeviceTotalMem_v2" (*mut usize, i32);
        context_retain = "cuDevicePrimaryCtxRetain" (*mut Handle, i32);
        context_release = "cuDevicePrimaryCtxRelease_v2" (i32);
        context_set = "cuCtxSetCurrent" (Handle);
        memory_info = "cuMemGetInfo_v2" (*mut usize, *mut usize);
        memory_alloc = "cuMemAlloc_v2" (*mut Address, usize);
        memory_free = "cuMemFree_v2" (Address);
        host_alloc = "cuMemHostAlloc" (*mut *mut c_void, usize, u32);
        host_free = "cuMemFreeHost" (*mut c_void);
        copy_in = "cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Handle);
        copy_out = "cuMemcpyDtoHAsync_v2" (*mut c_void, Address, usize, Handle);
        copy_within = "cuMemcpyDtoDAsync_v2" (Address, Address, usize, Handle);
        fill = "cuMemsetD8Async" (Address, u8, usize, Handle);
        stream_create = "cuStreamCreate" (*mut Handle, u32);
        stream_destroy = "cuStreamDestroy_v2" (Handle);
        stream_synchronize = "cuStreamSynchronize" (Handle);
        capture_begin = "cuStreamBeginCapture_v2" (Handle, u32);
        capture_end = "cuStreamEndCapture" (Handle, *mut Handle);
        graph_instantiate = "cuGraphInstantiateWithFlags" (*mut Handle, Handle, u64);
        graph_launch = "cuGraphLaunch" (Handle, Handle);
        graph_destroy = "cuGraphDestroy" (Handle);
        graph_exec_destroy = "cuGraphExecDestroy" (Handle);
        event_create = "cuEventCreate" (*mut Handle, u32);
        event_record = "cuEventRecord" (Handle, Handle);
        event_synchronize = "cuEventSynchronize" (Handle);
        event_query = "cuEventQuery" (Handle);
        event_elapsed = "cuEventElapsedTime" (*mut f32, Handle, Handle);
        event_destroy = "cuEventDestroy_v2" (Handle);
        module_load = "cuModuleLoadData" (*mut Handle, *const c_void);
        module_unload = "cuModuleUnload" (Handle);
        module_function = "cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
        function_attribute = "cuFuncGetAttribute" (*mut i32, i32, Handle);
        set_function_attribute = "cuFuncSetAttribute" (Handle, i32, i32);
        max_active_blocks = "cuOccupancyMaxActiveBlocksPerMultiprocessor" (*mut i32, Handle, i32, usize);
        launch = "cuLaunchKernelEx" (*const LaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void);
        tensor_map = "cuTensorMapEncodeTiled" (
            *mut TensorMap, u32, u32, Address, *const u64, *const u64, *const u32, *const u32, u32, u32, u32, u32
        );
    }
}

const PLACES: Places = Places {
    what: "NVIDIA driver",
    variable: "DUALGRAIN_CUDA_DRIVER",
    names: if cfg!(windows) {
        &["nvcuda.dll"]
    } else {
        &["libcuda.so.1", "libcuda.so"]
    },
    companions: &[],
    remedy: "everything runs on the CPU",
};

/// `CUDA_ERROR_NOT_READY`.
pub(crate) const NOT_READY: i32 = 600;
/// `CUDA_ERROR_NO_DEVICE`.
pub(crate) const NO_DEVICE: i32 = 100;

/// Oldest driver with every function above (cuTensorMapEncodeTiled came last).
const LEAST_VERSION: i32 = 12_000;

/// The driver, opened and initialized once.
///
/// # Errors
/// No driver, a driver older than CUDA 12.0, or one that does not start.
pub(crate) fn driver() -> Result<&'static Driver, CudaError> {
    static DRIVER: OnceLock<Result<Driver, CudaError>> = OnceLock::new();
    DRIVER.get_or_init(open).as_ref().map_err(Clone::clone)
}

fn open() -> Result<Driver, CudaError> {
    let library = Library::open(&PLACES)?;
    check_version(version_of(&library)?)?;
    let driver = Driver::from_library(library)?;
    // SAFETY: the first call, as the driver wants it; 0 is the only flag there is.
    match unsafe { (driver.init)(0) } {
        NO_DEVICE => Err(CudaError::NoGpu),
        code => driver.check("cuInit", code).map(|()| driver),
    }
}

/// Asked before the other functions are looked up: an old driver should be called old, not incomplete.
fn version_of(library: &Library) -> Result<i32, CudaError> {
    // SAFETY: the function's documented type; the library outlives the call.
    let ask: unsafe extern "C" fn(*mut i32) -> i32 = unsafe { library.symbol("cuDriverGetVersion") }?;
    let mut version = 0;
    // SAFETY: writes one integer; it may be called before cuInit.
    match unsafe { ask(&raw mut version) } {
        0 => Ok(version),
        code => Err(CudaError::Call {
            call: "cuDriverGetVersion",
            code,
            words: "the driver does not answer".to_owned(),
        }),
    }
}

fn check_version(version: i32) -> Result<(), CudaError> {
    if version >= LEAST_VERSION {
        return Ok(());
    }
    Err(CudaError::DriverTooOld {
        driver: version_words(version),
        needed: format!("CUDA {} or later", version_words(LEAST_VERSION)),
    })
}

/// `13.0` for 13000.
pub(crate) fn version_words(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// CUDA version of the driver, e.g. `13.0`, and the file it was opened from.
///
/// # Errors
/// No driver, or one that is too old or does not start.
pub fn driver_version() -> Result<(String, String), CudaError> {
    let driver = driver()?;
    let version = version_words(driver.version()?);
    Ok((version, driver.library_name().to_owned()))
}

impl Driver {
    /// CUDA version the driver supports, e.g. 13000.
    pub fn version(&self) -> Result<i32, CudaError> {
        let mut version = 0;
        // SAFETY: writes one integer.
        let code = unsafe { (self.driver_version)(&raw mut version) };
        self.check("cuDriverGetVersion", code)?;
        Ok(version)
    }

    /// Turns a status into an error with the driver's words.
    pub fn check(&self, call: &'static str, code: i32) -> Result<(), CudaError> {
        if code == 0 {
            return Ok(());
        }
        let mut words = std::ptr::null();
        // SAFETY: writes a pointer to a static string, or null for an unknown code.
        unsafe { (self.error_string)(code, &raw mut words) };
        let words = if words.is_null() {
            "unknown error".to_owned()
        } else {
            // SAFETY: not null, so a string that lives as long as the driver.
            unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
        };
        Err(CudaError::Call { call, code, words })
    }

    /// File the driver was opened from.
    pub fn library_name(&self) -> &str {
        self.library.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_driver() {
        assert_eq!(size_of::<LaunchAttribute>(), 72);
        assert_eq!(size_of::<LaunchConfig>(), 56);
        assert_eq!((size_of::<TensorMap>(), align_of::<TensorMap>()), (128, 64));
    }

    #[test]
    fn old_driver_is_called_old() {
        assert_eq!(check_version(12_000), Ok(()));
        let error = check_version(11_080).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the driver knows CUDA 11.8 only; this program needs CUDA 12.0 or later: update the driver"
        );
    }
}

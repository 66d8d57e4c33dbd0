//! What a card says of its power, energy, clocks and temperature: NVIDIA's management library (NVML), opened at run time.
//!
//! NVML counts cards by itself and ignores `CUDA_VISIBLE_DEVICES`, so a card is found by its place on the bus, or its
//! UUID, as the CUDA driver names them, never by an index. Nothing here changes a setting.

use std::ffi::{CStr, CString, c_char};
use std::sync::Arc;

use crate::driver::{GpuInfo, Handle, Library, Places, functions, pci_bus_id, uuid};
use crate::error::CudaError;

/// `nvmlClockType_t`, `nvmlTemperatureSensors_t`.
const CLOCK_SM: u32 = 1;
const CLOCK_MEMORY: u32 = 2;
const SENSOR_GPU: u32 = 0;
/// `NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE`.
const VERSION_BYTES: usize = 80;

functions! {
    /// The management library's functions.
    Functions {
        init = "nvmlInit_v2" ();
        shutdown = "nvmlShutdown" ();
        driver_version = "nvmlSystemGetDriverVersion" (*mut c_char, u32);
        by_pci_bus_id = "nvmlDeviceGetHandleByPciBusId_v2" (*const c_char, *mut Handle);
        by_uuid = "nvmlDeviceGetHandleByUUID" (*const c_char, *mut Handle);
        energy = "nvmlDeviceGetTotalEnergyConsumption" (Handle, *mut u64);
        power = "nvmlDeviceGetPowerUsage" (Handle, *mut u32);
        power_limit = "nvmlDeviceGetEnforcedPowerLimit" (Handle, *mut u32);
        clock = "nvmlDeviceGetClockInfo" (Handle, u32, *mut u32);
        max_clock = "nvmlDeviceGetMaxClockInfo" (Handle, u32, *mut u32);
        temperature = "nvmlDeviceGetTemperature" (Handle, u32, *mut u32);
        throttle_reasons = "nvmlDeviceGetCurrentClocksThrottleReasons" (Handle, *mut u64);
        field_values = "nvmlDeviceGetFieldValues" (Handle, i32, *mut FieldValue);
        utilization = "nvmlDeviceGetUtilizationRates" (Handle, *mut Utilization);
    }
}

/// `NVML_FI_DEV_POWER_INSTANT`.
const POWER_INSTANT: u32 = 186;

/// `nvmlFieldValue_t`; the value is a union whose low half holds 32-bit ones.
#[repr(C)]
#[derive(Default)]
pub(crate) struct FieldValue {
    id: u32,
    scope: u32,
    timestamp_us: i64,
    latency_us: i64,
    kind: u32,
    code: i32,
    value: u64,
}

/// `nvmlErrorString`, the one function that returns no status.
type ErrorString = unsafe extern "C" fn(i32) -> *const c_char;

const PLACES: Places = Places {
    what: "NVIDIA management library (NVML)",
    variable: "DUALGRAIN_NVML",
    names: if cfg!(windows) {
        &["nvml.dll"]
    } else {
        &["libnvidia-ml.so.1", "libnvidia-ml.so"]
    },
    companions: &[],
    remedy: "power, energy and clocks can not be read; it comes with the driver",
};

/// Share of the last sampling period (1/6 to 1 s) in which the card was busy, per cent.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utilization {
    /// A kernel was running.
    pub gpu_percent: u32,
    /// Memory was read or written.
    pub memory_percent: u32,
}

/// The library, started; shut down with its last card.
#[derive(Clone)]
pub struct Nvml(Arc<Inner>);

struct Inner {
    functions: Functions,
    error_string: ErrorString,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: started once in `open`; every card holds a clone, so none is left.
        unsafe { (self.functions.shutdown)() };
    }
}

impl Inner {
    fn check(&self, call: &'static str, code: i32) -> Result<(), CudaError> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: gives a static string for every code.
        let words = unsafe { (self.error_string)(code) };
        let words = match words.is_null() {
            true => "unknown error".to_owned(),
            // SAFETY: not null, so a string that lives as long as the library.
            false => unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned(),
        };
        Err(CudaError::Call { call, code, words })
    }
}

impl Nvml {
    /// Opens and starts the library.
    ///
    /// # Errors
    /// No such library, one without the functions needed, or one that does not start.
    pub fn open() -> Result<Self, CudaError> {
        let library = Library::open(&PLACES)?;
        // SAFETY: the type of NVIDIA's documentation; the library is kept in the table beside it.
        let error_string: ErrorString = unsafe { library.symbol("nvmlErrorString") }?;
        let functions = Functions::from_library(library)?;
        // SAFETY: the first call, as the library wants it; it may be started several times.
        let code = unsafe { (functions.init)() };
        if code != 0 {
            // Dropping `Inner` would shut down what did not start, so the words are asked for by hand.
            // SAFETY: gives a static string for every code.
            let words = unsafe { CStr::from_ptr((error_string)(code)) };
            return Err(CudaError::Call {
                call: "nvmlInit",
                code,
                words: words.to_string_lossy().into_owned(),
            });
        }
        Ok(Self(Arc::new(Inner {
            functions,
            error_string,
        })))
    }

    /// Version of the driver, e.g. `580.159.04`.
    ///
    /// # Errors
    /// A call that failed.
    pub fn driver_version(&self) -> Result<String, CudaError> {
        let mut bytes = [0u8; VERSION_BYTES];
        let len = VERSION_BYTES as u32 - 1;
        // SAFETY: writes at most `len` bytes, the last of them a 0.
        let code = unsafe { (self.0.functions.driver_version)(bytes.as_mut_ptr().cast(), len) };
        self.0.check("nvmlSystemGetDriverVersion", code)?;
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// The card that the CUDA driver describes: by its place on the bus, and where that is unknown by its UUID.
    ///
    /// # Errors
    /// The library knows no such card, or a call that failed.
    pub fn device(&self, gpu: &GpuInfo) -> Result<NvmlDevice, CudaError> {
        let by_bus = pci_bus_id(gpu.index).and_then(|id| {
            self.find(
                "nvmlDeviceGetHandleByPciBusId",
                self.0.functions.by_pci_bus_id,
                &id,
            )
        });
        by_bus.or_else(|error| {
            // The first answer is the one to tell of.
            let by_uuid = self.0.functions.by_uuid;
            let id = uuid(gpu.index).map_err(|_| error.clone())?;
            self.find("nvmlDeviceGetHandleByUUID", by_uuid, &id)
                .map_err(|_| error)
        })
    }

    fn find(
        &self,
        call: &'static str,
        by: unsafe extern "C" fn(*const c_char, *mut Handle) -> i32,
        id: &CString,
    ) -> Result<NvmlDevice, CudaError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: reads a string that ends with 0 and writes one handle.
        let code = unsafe { by(id.as_ptr(), &raw mut handle) };
        self.0.check(call, code)?;
        Ok(NvmlDevice {
            nvml: self.clone(),
            handle,
        })
    }
}

/// A card as the management library sees it. Every value is asked for anew; a counter that the card does not have is an
/// error with the library's words.
#[derive(Clone)]
pub struct NvmlDevice {
    nvml: Nvml,
    handle: Handle,
}

// SAFETY: the library may be called from any thread, and a handle stays what it is until the library is shut down.
unsafe impl Send for NvmlDevice {}
// SAFETY: as above.
unsafe impl Sync for NvmlDevice {}

impl NvmlDevice {
    /// Energy used since the driver was loaded, joules. The counter moves every 20 to 100 ms.
    ///
    /// # Errors
    /// A counter the card does not have, or a call that failed.
    pub fn energy_j(&self) -> Result<f64, CudaError> {
        let functions = self.functions();
        let millijoules: u64 = self.ask("nvmlDeviceGetTotalEnergyConsumption", functions.energy)?;
        Ok(millijoules as f64 * 1e-3)
    }

    /// Power, watts; an average over up to a second on recent cards.
    ///
    /// # Errors
    /// As [`NvmlDevice::energy_j`].
    pub fn power_w(&self) -> Result<f64, CudaError> {
        let milliwatts: u32 = self.ask("nvmlDeviceGetPowerUsage", self.functions().power)?;
        Ok(f64::from(milliwatts) * 1e-3)
    }

    /// Power at this moment, watts; not averaged.
    ///
    /// # Errors
    /// As [`NvmlDevice::energy_j`]; older drivers have no such field.
    pub fn power_instant_w(&self) -> Result<f64, CudaError> {
        let mut field = FieldValue {
            id: POWER_INSTANT,
            ..FieldValue::default()
        };
        // SAFETY: a handle of the library, which fills one field.
        let code = unsafe { (self.functions().field_values)(self.handle, 1, &raw mut field) };
        self.nvml.0.check("nvmlDeviceGetFieldValues", code)?;
        self.nvml.0.check("nvmlDeviceGetFieldValues", field.code)?;
        Ok(f64::from(field.value as u32) * 1e-3)
    }

    /// Power the card keeps below, watts.
    ///
    /// # Errors
    /// As [`NvmlDevice::energy_j`].
    pub fn power_limit_w(&self) -> Result<f64, CudaError> {
        let milliwatts: u32 = self.ask("nvmlDeviceGetEnforcedPowerLimit", self.functions().power_limit)?;
        Ok(f64::from(milliwatts) * 1e-3)
    }

    /// Clock of the multiprocessors now, hertz.
    ///
    /// # Errors
    /// As [`NvmlDevice::energy_j`].
    pub fn sm_clock_hz(&self) -> Result<f64, CudaError> {
        self.ask_of("nvmlDeviceGetClockInfo", self.functions().clock, CLOCK_SM)
            .map(megahertz)
    }

    /// Clock of the memory now, hertz.
    ///
    /// # Errors
    /// As [`NvmlDevice::energy_j`].
    pub fn memory_clock_hz(&self) -> Result<f64, CudaError> {
        self.ask_of("nvmlDeviceGetClockInfo", self.functions().clock, CLOCK_MEMORY)
            .map(megahertz)
    }

    /// Highest clock of the multiprocessors, hertz.
    ///
    /// # Errors
    /// As [`NvmlDevice::energy_j`].
    pub fn max_sm_clock_hz(&self) -> Result<f64, CudaError> {
        self.ask_of("nvmlDeviceGetMaxClockInfo", self.functions().max_clock, CLOCK_SM)
            .map(megahertz)
    }

    /// Temperature of the chip, degrees Celsius.
    ///
    /// # Errors
    /// As [`NvmlDevice::energy_j`].
    pub fn temperature_c(&self) -> Result<f64, CudaError> {
        self.ask_of(
            "nvmlDeviceGetTemperature",
            self.functions().temperature,
            SENSOR_GPU,
        )
        .map(f64::from)
    }

    /// Why the clocks are below their highest now, a bit a reason ([`throttle_words`] reads them).
    ///
    /// # Errors
    /// As [`NvmlDevice::energy_j`].
    pub fn throttle_reasons(&self) -> Result<u64, CudaError> {
        self.ask(
            "nvmlDeviceGetCurrentClocksThrottleReasons",
            self.functions().throttle_reasons,
        )
    }

    /// How busy the card was.
    ///
    /// # Errors
    /// As [`NvmlDevice::energy_j`].
    pub fn utilization(&self) -> Result<Utilization, CudaError> {
        self.ask("nvmlDeviceGetUtilizationRates", self.functions().utilization)
    }

    fn functions(&self) -> &Functions {
        &self.nvml.0.functions
    }

    fn ask<T: Default>(
        &self,
        call: &'static str,
        function: unsafe extern "C" fn(Handle, *mut T) -> i32,
    ) -> Result<T, CudaError> {
        let mut value = T::default();
        // SAFETY: a handle of the library, which writes one value of the type in the table.
        let code = unsafe { function(self.handle, &raw mut value) };
        self.nvml.0.check(call, code).map(|()| value)
    }

    fn ask_of(
        &self,
        call: &'static str,
        function: unsafe extern "C" fn(Handle, u32, *mut u32) -> i32,
        which: u32,
    ) -> Result<u32, CudaError> {
        let mut value = 0;
        // SAFETY: as in `ask`.
        let code = unsafe { function(self.handle, which, &raw mut value) };
        self.nvml.0.check(call, code).map(|()| value)
    }
}

fn megahertz(value: u32) -> f64 {
    f64::from(value) * 1e6
}

/// Bits of [`NvmlDevice::throttle_reasons`], `nvmlClocksThrottleReasons` of the documentation.
const REASONS: [(u64, &str); 9] = [
    (0x1, "idle"),
    (0x2, "application clocks"),
    (0x4, "power limit"),
    (0x8, "hardware slowdown"),
    (0x10, "sync boost"),
    (0x20, "software thermal limit"),
    (0x40, "hardware thermal limit"),
    (0x80, "power brake"),
    (0x100, "display clocks"),
];

/// Throttle reasons in words, `none` for 0.
pub fn throttle_words(reasons: u64) -> String {
    let known = REASONS.iter().filter(|(bit, _)| reasons & bit != 0);
    let mut words: Vec<String> = known.map(|(_, words)| (*words).to_owned()).collect();
    let rest = REASONS.iter().fold(reasons, |rest, (bit, _)| rest & !bit);
    if rest != 0 {
        words.push(format!("unknown reasons {rest:#x}"));
    }
    match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(" and "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_become_words_and_unknown_ones_are_not_lost() {
        assert_eq!(throttle_words(0), "none");
        assert_eq!(throttle_words(0x24), "power limit and software thermal limit");
        assert_eq!(throttle_words(0x1001), "idle and unknown reasons 0x1000");
    }

    #[test]
    fn machine_without_the_library_gets_words() {
        // On a machine with a card this holds for the second branch.
        match Nvml::open() {
            Err(error) => assert!(error.to_string().contains("NVML"), "{error}"),
            Ok(nvml) => assert!(!nvml.driver_version().unwrap().is_empty()),
        }
    }
}

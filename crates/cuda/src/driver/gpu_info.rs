//! What a card is: its sizes and speeds, and the names by which other libraries know it.

use std::ffi::{CString, c_char};

use super::api::{self, Driver, driver};
use crate::error::CudaError;

/// Oldest architecture the kernels run on.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// What a card says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuInfo {
    /// Index among the cards the driver shows.
    pub index: usize,
    /// Product name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Streaming multiprocessors.
    pub num_sms: usize,
    /// Highest clock of the multiprocessors.
    pub clock_hz: f64,
    /// Second-level cache.
    pub l2_bytes: usize,
    /// Shared memory one block may use.
    pub shared_bytes: usize,
    /// Memory of the card.
    pub memory_bytes: usize,
    /// What its memory could transfer at its highest clock; a copy reaches about 0.88 of it.
    pub memory_bytes_per_s: f64,
}

impl GpuInfo {
    /// What the compiler calls the card's architecture; 9.0 has instructions of its own behind the letter.
    pub fn arch(&self) -> String {
        let (major, minor) = self.capability;
        let suffix = if self.capability == (9, 0) { "a" } else { "" };
        format!("sm_{major}{minor}{suffix}")
    }

    /// Whether a kernel may start while the one before it finishes.
    pub(crate) fn overlaps_launches(&self) -> bool {
        self.capability >= (9, 0)
    }

    /// Whether the kernels run on it.
    ///
    /// # Errors
    /// [`CudaError::UnsupportedGpu`].
    pub fn check_supported(&self) -> Result<(), CudaError> {
        if self.capability >= LEAST_CAPABILITY {
            return Ok(());
        }
        Err(CudaError::UnsupportedGpu {
            name: self.name.clone(),
            capability: format!("{}.{}", self.capability.0, self.capability.1),
            needed: "the kernels need 8.0 (Ampere) or later".to_owned(),
        })
    }
}

/// All cards the driver shows.
///
/// # Errors
/// No driver, no card, or a call that failed.
pub fn gpus() -> Result<Vec<GpuInfo>, CudaError> {
    let driver = driver()?;
    let mut count = 0;
    // SAFETY: writes one integer.
    let code = unsafe { (driver.device_count)(&raw mut count) };
    if code == api::NO_DEVICE || (code == 0 && count == 0) {
        return Err(CudaError::NoGpu);
    }
    driver.check("cuDeviceGetCount", code)?;
    (0..count as usize).map(|index| info(driver, index)).collect()
}

fn info(driver: &Driver, index: usize) -> Result<GpuInfo, CudaError> {
    let handle = device_handle(driver, index)?;
    let attribute = |which| -> Result<i32, CudaError> {
        let mut value = 0;
        // SAFETY: writes one integer.
        let code = unsafe { (driver.device_attribute)(&raw mut value, which, handle) };
        driver.check("cuDeviceGetAttribute", code)?;
        Ok(value)
    };
    let mut memory_bytes = 0;
    // SAFETY: writes one size.
    let code = unsafe { (driver.device_memory)(&raw mut memory_bytes, handle) };
    driver.check("cuDeviceTotalMem", code)?;
    Ok(GpuInfo {
        index,
        name: name(driver, handle)?,
        capability: (
            attribute(api::DEVICE_CAPABILITY_MAJOR)?,
            attribute(api::DEVICE_CAPABILITY_MINOR)?,
        ),
        num_sms: attribute(api::DEVICE_NUM_SMS)? as usize,
        clock_hz: f64::from(attribute(api::DEVICE_CLOCK_KHZ)?) * 1e3,
        l2_bytes: attribute(api::DEVICE_L2_BYTES)? as usize,
        shared_bytes: attribute(api::DEVICE_SHARED_BYTES)? as usize,
        memory_bytes,
        // Two transfers a clock.
        memory_bytes_per_s: 2e3
            * f64::from(attribute(api::DEVICE_MEMORY_KHZ)?)
            * f64::from(attribute(api::DEVICE_MEMORY_BITS)?)
            / 8.0,
    })
}

fn name(driver: &Driver, handle: i32) -> Result<String, CudaError> {
    let mut bytes = [0u8; 256];
    // SAFETY: writes at most 255 bytes and a 0.
    let code = unsafe { (driver.device_name)(bytes.as_mut_ptr().cast::<c_char>(), 255, handle) };
    driver.check("cuDeviceGetName", code)?;
    let len = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// Where card `index` sits on the bus, e.g. `0000:4b:00.0`.
pub(crate) fn pci_bus_id(index: usize) -> Result<CString, CudaError> {
    let driver = driver()?;
    let handle = device_handle(driver, index)?;
    let mut bytes = [0u8; 32];
    // SAFETY: writes at most 31 bytes and a 0.
    let code = unsafe { (driver.device_pci_bus_id)(bytes.as_mut_ptr().cast(), 31, handle) };
    driver.check("cuDeviceGetPCIBusId", code)?;
    let words: Vec<u8> = bytes.into_iter().take_while(|&byte| byte != 0).collect();
    Ok(CString::new(words).unwrap_or_default())
}

/// Unique id of card `index`, e.g. `GPU-8d1b5f1e-...`.
pub(crate) fn uuid(index: usize) -> Result<CString, CudaError> {
    let driver = driver()?;
    let handle = device_handle(driver, index)?;
    let mut bytes = [0u8; 16];
    // SAFETY: writes 16 bytes.
    let code = unsafe { (driver.device_uuid)(&raw mut bytes, handle) };
    driver.check("cuDeviceGetUuid", code)?;
    Ok(CString::new(uuid_words(bytes)).unwrap_or_default())
}

/// Lengths of a UUID's parts, bytes.
const UUID_PARTS: [usize; 5] = [4, 2, 2, 2, 6];

fn uuid_words(bytes: [u8; 16]) -> String {
    let mut rest = bytes.iter();
    let part = |len: usize| -> String {
        rest.by_ref()
            .take(len)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    let parts: Vec<String> = UUID_PARTS.into_iter().map(part).collect();
    format!("GPU-{}", parts.join("-"))
}

pub(crate) fn device_handle(driver: &Driver, index: usize) -> Result<i32, CudaError> {
    let mut handle = 0;
    // SAFETY: writes one integer; an index outside gives an error code.
    let code = unsafe { (driver.device)(&raw mut handle, index as i32) };
    driver.check("cuDeviceGet", code)?;
    Ok(handle)
}

#[cfg(test)]
impl GpuInfo {
    /// What the driver says of an H200.
    pub(crate) fn h200() -> Self {
        Self {
            index: 0,
            name: "NVIDIA H200".to_owned(),
            capability: (9, 0),
            num_sms: 132,
            clock_hz: 1.98e9,
            l2_bytes: 60 << 20,
            shared_bytes: 232_448,
            memory_bytes: 141 << 30,
            memory_bytes_per_s: 4.9e12,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(capability: (i32, i32)) -> GpuInfo {
        GpuInfo {
            index: 0,
            name: "card".to_owned(),
            capability,
            num_sms: 1,
            clock_hz: 1e9,
            l2_bytes: 0,
            shared_bytes: 0,
            memory_bytes: 0,
            memory_bytes_per_s: 1e12,
        }
    }

    #[test]
    fn only_hopper_gets_the_letter() {
        assert_eq!(card((9, 0)).arch(), "sm_90a");
        assert_eq!(card((8, 9)).arch(), "sm_89");
        assert_eq!(card((12, 0)).arch(), "sm_120");
    }

    #[test]
    fn ids_are_written_as_the_management_library_reads_them() {
        let bytes = std::array::from_fn(|i| 17 * i as u8);
        assert_eq!(uuid_words(bytes), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn older_cards_are_refused_with_their_name() {
        assert!(card((8, 0)).check_supported().is_ok());
        let error = card((7, 5)).check_supported().unwrap_err();
        assert_eq!(
            error.to_string(),
            "card (compute capability 7.5) is not supported: the kernels need 8.0 (Ampere) or later"
        );
    }

    #[test]
    fn machine_without_a_driver_gets_words_and_no_panic() {
        // On a machine with a card this holds for the second branch.
        match gpus() {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(gpus) => assert!(!gpus.is_empty()),
        }
    }
}

//! A card: what it is, its memory, its stream, and times on it.

use std::ffi::{CString, c_char};
use std::sync::Arc;

use bytemuck::Pod;

use super::api::{self, Address, Driver, Handle, driver};
use crate::error::CudaError;

/// Oldest architecture the kernels run on.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// What a card says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceInfo {
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

impl DeviceInfo {
    /// What the compiler calls the card's architecture; 9.0 has instructions of its own behind the letter.
    pub fn arch(&self) -> String {
        let (major, minor) = self.capability;
        let suffix = if self.capability == (9, 0) { "a" } else { "" };
        format!("sm_{major}{minor}{suffix}")
    }

    /// Whether the kernels run on it.
    ///
    /// # Errors
    /// [`CudaError::UnsupportedDevice`].
    pub fn check_supported(&self) -> Result<(), CudaError> {
        if self.capability >= LEAST_CAPABILITY {
            return Ok(());
        }
        Err(CudaError::UnsupportedDevice {
            name: self.name.clone(),
            capability: format!("{}.{}", self.capability.0, self.capability.1),
            needed: "the kernels need 8.0 (Ampere) or later".to_owned(),
        })
    }
}

/// CUDA version of the driver, e.g. `13.0`, and the file it was opened from.
///
/// # Errors
/// No driver, or one that is too old or does not start.
pub fn driver_version() -> Result<(String, String), CudaError> {
    let driver = driver()?;
    let version = api::version_words(driver.version()?);
    Ok((version, driver.library_name().to_owned()))
}

/// All cards the driver shows.
///
/// # Errors
/// No driver, no card, or a call that failed.
pub fn devices() -> Result<Vec<DeviceInfo>, CudaError> {
    let driver = driver()?;
    let mut count = 0;
    // SAFETY: writes one integer.
    let code = unsafe { (driver.device_count)(&raw mut count) };
    if code == api::NO_DEVICE || (code == 0 && count == 0) {
        return Err(CudaError::NoDevice);
    }
    driver.check("cuDeviceGetCount", code)?;
    (0..count as usize).map(|index| info(driver, index)).collect()
}

fn info(driver: &Driver, index: usize) -> Result<DeviceInfo, CudaError> {
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
    Ok(DeviceInfo {
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

fn device_handle(driver: &Driver, index: usize) -> Result<i32, CudaError> {
    let mut handle = 0;
    // SAFETY: writes one integer; an index outside gives an error code.
    let code = unsafe { (driver.device)(&raw mut handle, index as i32) };
    driver.check("cuDeviceGet", code)?;
    Ok(handle)
}

/// A card in use: its context and one stream. Clones share both.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

#[cfg(test)]
impl DeviceInfo {
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

struct Inner {
    driver: &'static Driver,
    info: DeviceInfo,
    handle: i32,
    context: Handle,
    stream: Handle,
}

// SAFETY: the driver may be called from any thread; the context is made current before every call (`current`), and the
// handles are never changed after `open`.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Device {
    /// Opens card `index`.
    ///
    /// # Errors
    /// No driver, no such card, an unsupported one, or a call that failed.
    pub fn open(index: usize) -> Result<Self, CudaError> {
        let (driver, all) = (driver()?, devices()?);
        let count = all.len();
        let info = all
            .into_iter()
            .nth(index)
            .ok_or(CudaError::DeviceIndex { asked: index, count })?;
        info.check_supported()?;
        let handle = device_handle(driver, index)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: writes one handle.
        let code = unsafe { (driver.context_retain)(&raw mut context, handle) };
        driver.check("cuDevicePrimaryCtxRetain", code)?;
        let mut inner = Inner {
            driver,
            info,
            handle,
            context,
            stream: std::ptr::null_mut(),
        };
        inner.current()?;
        // SAFETY: writes one handle, in the context made current just now.
        let code = unsafe { (driver.stream_create)(&raw mut inner.stream, api::STREAM_NON_BLOCKING) };
        driver.check("cuStreamCreate", code)?;
        Ok(Self(Arc::new(inner)))
    }

    /// What the card says of itself.
    pub fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    /// Free bytes of its memory.
    ///
    /// # Errors
    /// A call that failed.
    pub fn free_bytes(&self) -> Result<usize, CudaError> {
        let driver = self.current()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes.
        let code = unsafe { (driver.memory_info)(&raw mut free, &raw mut total) };
        driver.check("cuMemGetInfo", code)?;
        Ok(free)
    }

    /// Memory of the card, filled with `byte`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn filled(&self, len_bytes: usize, byte: u8) -> Result<Buffer, CudaError> {
        let buffer = self.uninitialized(len_bytes)?;
        buffer.fill(byte)?;
        Ok(buffer)
    }

    /// Memory of the card holding `values`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<Buffer, CudaError> {
        let buffer = self.uninitialized(size_of_val(values))?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Memory of the card holding `pattern` over and over, `len` elements in all.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn upload_repeated<T: Pod>(&self, pattern: &[T], len: usize) -> Result<Buffer, CudaError> {
        let buffer = self.uninitialized(len * size_of::<T>())?;
        for start in (0..len).step_by(pattern.len().max(1)) {
            let part = pattern.len().min(len - start);
            buffer.write(start * size_of::<T>(), &pattern[..part])?;
        }
        Ok(buffer)
    }

    /// Memory of the card with whatever is in it.
    ///
    /// # Errors
    /// Not enough memory.
    pub(crate) fn uninitialized(&self, len_bytes: usize) -> Result<Buffer, CudaError> {
        let driver = self.current()?;
        let mut address = 0;
        // SAFETY: writes one address. The driver refuses a length of 0; one byte is owned and never looked at then.
        let code = unsafe { (driver.memory_alloc)(&raw mut address, len_bytes.max(1)) };
        driver.check("cuMemAlloc", code)?;
        Ok(Buffer {
            device: self.clone(),
            address,
            len_bytes,
            whole: None,
        })
    }

    /// Waits for everything on the stream.
    ///
    /// # Errors
    /// Whatever went wrong in a kernel shows here.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let driver = self.current()?;
        // SAFETY: a live stream.
        let code = unsafe { (driver.stream_synchronize)(self.0.stream) };
        driver.check("cuStreamSynchronize", code)
    }

    /// Makes the context current on this thread and gives the functions.
    pub(crate) fn current(&self) -> Result<&'static Driver, CudaError> {
        self.0.current()
    }

    pub(crate) fn stream(&self) -> Handle {
        self.0.stream
    }
}

impl Inner {
    fn current(&self) -> Result<&'static Driver, CudaError> {
        // SAFETY: a context this value has retained.
        let code = unsafe { (self.driver.context_set)(self.context) };
        self.driver.check("cuCtxSetCurrent", code)?;
        Ok(self.driver)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.current().is_ok() && !self.stream.is_null() {
            // SAFETY: buffers, graphs and modules keep a clone of the device, so nothing of it is left.
            unsafe { (self.driver.stream_destroy)(self.stream) };
        }
        // SAFETY: retained once in `open`.
        unsafe { (self.driver.context_release)(self.handle) };
    }
}

/// Memory of a card, freed when dropped.
pub struct Buffer {
    device: Device,
    address: Address,
    len_bytes: usize,
    /// The memory it is a part of, which frees it.
    whole: Option<Arc<Buffer>>,
}

impl Buffer {
    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// A part of a buffer, which lives as long as its parts. Parts may overlap; the stream's order is the caller's care.
    ///
    /// # Errors
    /// A part that reaches beyond the end.
    pub fn part(self: &Arc<Self>, offset_bytes: usize, len_bytes: usize) -> Result<Self, CudaError> {
        self.check_range("part of a buffer", offset_bytes, len_bytes)?;
        Ok(Self {
            device: self.device.clone(),
            address: self.address + offset_bytes as u64,
            len_bytes,
            whole: Some(Arc::clone(self)),
        })
    }

    /// Its address on the card.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Sets every byte.
    ///
    /// # Errors
    /// A call that failed.
    pub fn fill(&self, byte: u8) -> Result<(), CudaError> {
        let driver = self.device.current()?;
        // SAFETY: the buffer is `len_bytes` long and alive; later work on the stream waits for it.
        let code = unsafe { (driver.fill)(self.address, byte, self.len_bytes, self.device.stream()) };
        driver.check("cuMemsetD8Async", code)
    }

    /// Copies `values` to `offset_bytes`.
    ///
    /// # Errors
    /// Values that reach beyond the end, or a call that failed.
    pub fn write<T: Pod>(&self, offset_bytes: usize, values: &[T]) -> Result<(), CudaError> {
        let len = size_of_val(values);
        self.check_range("write", offset_bytes, len)?;
        let driver = self.device.current()?;
        // SAFETY: in range (checked); the values outlive the copy because of the wait below.
        let code = unsafe {
            (driver.copy_in)(
                self.address + offset_bytes as u64,
                values.as_ptr().cast(),
                len,
                self.device.stream(),
            )
        };
        driver.check("cuMemcpyHtoDAsync", code)?;
        self.device.synchronize()
    }

    /// Copies values from `offset_bytes` to the host, after everything on the stream.
    ///
    /// # Errors
    /// Values beyond the end, or a call (also an earlier kernel) that failed.
    pub fn read<T: Pod>(&self, offset_bytes: usize, values: &mut [T]) -> Result<(), CudaError> {
        let len = size_of_val(values);
        self.check_range("read", offset_bytes, len)?;
        let driver = self.device.current()?;
        // SAFETY: in range (checked); the values outlive the copy because of the wait below.
        let code = unsafe {
            (driver.copy_out)(
                values.as_mut_ptr().cast(),
                self.address + offset_bytes as u64,
                len,
                self.device.stream(),
            )
        };
        driver.check("cuMemcpyDtoHAsync", code)?;
        self.device.synchronize()
    }

    /// Puts a copy of another buffer, no longer than this one, on the stream.
    ///
    /// # Errors
    /// A longer buffer, or a call that failed.
    pub fn copy_from(&self, other: &Self) -> Result<(), CudaError> {
        self.check_range("copy", 0, other.len_bytes)?;
        let driver = self.device.current()?;
        let stream = self.device.stream();
        // SAFETY: both are alive and long enough (checked).
        let code = unsafe { (driver.copy_within)(self.address, other.address, other.len_bytes, stream) };
        driver.check("cuMemcpyDtoDAsync", code)
    }

    fn check_range(&self, what: &'static str, offset: usize, len: usize) -> Result<(), CudaError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len_bytes => Ok(()),
            _ => Err(CudaError::Length {
                what,
                expected: self.len_bytes,
                got: offset.saturating_add(len),
            }),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.whole.is_some() {
            return;
        }
        if let Ok(driver) = self.device.current() {
            // SAFETY: allocated once, freed once; the driver waits for work that uses it.
            unsafe { (driver.memory_free)(self.address) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(capability: (i32, i32)) -> DeviceInfo {
        DeviceInfo {
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
        match devices() {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(devices) => assert!(!devices.is_empty()),
        }
    }
}

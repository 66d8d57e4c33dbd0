//! Which device a user asks for, and opening it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use dualgrain_cpu::CpuDevice;
#[cfg(feature = "cuda")]
use dualgrain_cuda::{CudaDevice, Gpu};
use dualgrain_engine::{Model, ModelConfig, Weights};
use thiserror::Error;

use super::AnyDevice;
#[cfg(feature = "cuda")]
use super::Card;
use crate::error::Error;
use crate::units::bytes;

/// Which device a user asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first NVIDIA card where the model fits it, else the CPU.
    Auto,
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA card by number.
    Cuda(usize),
}

/// A text that names no device.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("there is no device `{asked}`: auto, cpu, or cuda:N with the number of a card, e.g. cuda:0")]
pub struct DeviceChoiceError {
    /// The text.
    pub asked: String,
}

/// A device that was opened.
pub struct ChosenDevice {
    /// The device.
    pub device: AnyDevice,
    /// Which one was taken and why, where that was left open.
    pub reason: Option<String>,
}

impl FromStr for DeviceChoice {
    type Err = DeviceChoiceError;

    fn from_str(text: &str) -> Result<Self, DeviceChoiceError> {
        let unknown = || DeviceChoiceError {
            asked: text.to_owned(),
        };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                number.parse().map(Self::Cuda).map_err(|_| unknown())
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device for the model folder `dir`, which may take the share `memory` of a card's free memory; `threads` are the CPU's, 0
    /// for all cores.
    ///
    /// # Errors
    /// A card that can not be opened, where one was asked for; a CPU that can not start its threads.
    pub fn open(self, threads: usize, dir: &Path, memory: f64) -> Result<ChosenDevice, Error> {
        let cpu = || CpuDevice::new(threads).map(AnyDevice::Cpu);
        match self {
            Self::Cpu => Ok(ChosenDevice {
                device: cpu()?,
                reason: None,
            }),
            Self::Cuda(index) => Ok(ChosenDevice {
                device: open_card(index, threads)?,
                reason: None,
            }),
            Self::Auto => match card_that_fits(dir, threads, memory) {
                Ok(device) => Ok(ChosenDevice {
                    reason: Some(format!("running on {}", dualgrain_device::Device::name(&device))),
                    device,
                }),
                Err(why) => Ok(ChosenDevice {
                    device: cpu()?,
                    reason: Some(format!("running on the CPU: {why}")),
                }),
            },
        }
    }
}

#[cfg(feature = "cuda")]
fn open_card(index: usize, threads: usize) -> Result<AnyDevice, Error> {
    Ok(AnyDevice::Cuda(Box::new(Card {
        device: CudaDevice::open(index)?,
        host: CpuDevice::new(threads)?,
    })))
}

#[cfg(not(feature = "cuda"))]
fn open_card(index: usize, _threads: usize) -> Result<AnyDevice, Error> {
    Err(Error::NoCuda { index })
}

#[cfg(feature = "cuda")]
fn free_bytes_of_card(index: usize) -> Result<u64, Error> {
    Ok(Gpu::open(index)?.free_bytes()? as u64)
}

#[cfg(not(feature = "cuda"))]
fn free_bytes_of_card(index: usize) -> Result<u64, Error> {
    Err(Error::NoCuda { index })
}

/// The first card, where the model fits its free memory; else why not.
fn card_that_fits(dir: &Path, threads: usize, memory: f64) -> Result<AnyDevice, String> {
    // The room is asked for first: opening compiles kernels.
    let free = free_bytes_of_card(0).map_err(|error| error.to_string())?;
    let free = (memory * free as f64) as u64;
    let sizes = || Ok::<_, Error>((Weights::open(dir)?, ModelConfig::load(dir)?));
    // A folder that can not be read is told about when it is loaded.
    if let Ok((weights, config)) = sizes() {
        let needed = Model::<CpuDevice>::required_bytes(&weights, &config).unwrap_or(u64::MAX);
        if needed > free {
            let (needed, free) = (bytes(needed), bytes(free));
            return Err(format!("the model takes {needed} and the card has {free} free"));
        }
    }
    open_card(0, threads).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_and_anything_else_is_refused_with_the_names() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        for text in ["", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert!(error.to_string().contains("cuda:0"), "{error}");
        }
    }
}

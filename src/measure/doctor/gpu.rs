//! What `doctor` says about NVIDIA GPUs: the driver, the compiler, the cards, the kernels kept on disk.

use dualgrain_cuda::{Cache, CudaError, GpuInfo, KernelChoice, kernel_choices};
use serde::Serialize;

use crate::cli::units::bytes;
use crate::measure::card_reading::CardReading;

/// What was found; where something was not, the reason.
#[derive(Serialize)]
pub struct Gpu {
    usable: bool,
    driver: Part,
    compiler: Part,
    devices: Vec<Card>,
    cache: Option<CacheFolder>,
}

/// A library of NVIDIA's.
#[derive(Serialize)]
struct Part {
    version: Option<String>,
    file: Option<String>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Card {
    index: usize,
    name: String,
    capability: String,
    architecture: String,
    num_sms: usize,
    memory_bytes: usize,
    l2_bytes: usize,
    reading: CardReading,
    problem: Option<String>,
    /// What runs each operation of a model.
    kernels: Vec<Choice>,
}

/// The kernel of an operation.
#[derive(Serialize)]
struct Choice {
    operation: String,
    kernel: String,
    why: &'static str,
}

#[derive(Serialize)]
struct CacheFolder {
    folder: String,
    entries: usize,
    size_bytes: u64,
}

impl Gpu {
    /// Asks the driver and the compiler, if they are there.
    pub fn look() -> Self {
        let devices = dualgrain_cuda::gpus();
        let problem = devices.as_ref().err().map(CudaError::to_string);
        let mut driver = Part::new(dualgrain_cuda::driver_version());
        driver.problem = driver.problem.or(problem);
        let compiler = Part::new(dualgrain_cuda::compiler_version());
        let devices: Vec<Card> = devices.unwrap_or_default().iter().map(Card::new).collect();
        Self {
            usable: compiler.problem.is_none() && devices.iter().any(|card| card.problem.is_none()),
            driver,
            compiler,
            devices,
            cache: CacheFolder::of_user(),
        }
    }

    /// The lines of `doctor`.
    pub fn text(&self) -> String {
        if let Some(problem) = &self.driver.problem {
            return problem.clone();
        }
        let mut lines: Vec<String> = self.devices.iter().map(Card::text).collect();
        lines.push(format!("driver: {}", self.driver.text()));
        lines.push(format!("compiler: {}", self.compiler.text()));
        lines.extend(self.cache.as_ref().map(CacheFolder::text));
        let usable = self.devices.iter().find(|card| card.problem.is_none());
        match usable.filter(|_| self.usable) {
            Some(card) => {
                lines.push(format!("models run on it with --device cuda:{}:", card.index));
                lines.extend(card.kernels.iter().map(Choice::text));
            }
            None => lines.push("not usable; everything runs on the CPU".to_owned()),
        }
        lines.join("\n                  ")
    }
}

impl Part {
    fn new(found: Result<(String, String), CudaError>) -> Self {
        let (found, problem) = match found {
            Ok((version, file)) => ((Some(version), Some(file)), None),
            Err(error) => ((None, None), Some(error.to_string())),
        };
        Self {
            version: found.0,
            file: found.1,
            problem,
        }
    }

    fn text(&self) -> String {
        match (&self.problem, &self.version, &self.file) {
            (Some(problem), ..) => problem.clone(),
            (None, Some(version), Some(file)) => format!("CUDA {version} ({file})"),
            _ => "unknown".to_owned(),
        }
    }
}

impl Card {
    fn new(info: &GpuInfo) -> Self {
        Self {
            index: info.index,
            name: info.name.clone(),
            capability: format!("{}.{}", info.capability.0, info.capability.1),
            architecture: info.arch(),
            num_sms: info.num_sms,
            memory_bytes: info.memory_bytes,
            l2_bytes: info.l2_bytes,
            reading: CardReading::of(info),
            problem: info.check_supported().err().map(|error| error.to_string()),
            kernels: match info.check_supported() {
                Ok(()) => kernel_choices(info).into_iter().map(Choice::new).collect(),
                Err(_) => Vec::new(),
            },
        }
    }

    fn text(&self) -> String {
        if let Some(problem) = &self.problem {
            return format!("{}: {problem}", self.index);
        }
        format!(
            "{}: {} ({}), {} multiprocessors, {} memory, {} second-level cache\n                  {}",
            self.index,
            self.name,
            self.architecture,
            self.num_sms,
            bytes(self.memory_bytes as u64),
            bytes(self.l2_bytes as u64),
            self.reading
        )
    }
}

impl Choice {
    fn new(choice: KernelChoice) -> Self {
        let KernelChoice {
            operation,
            kernel,
            why,
        } = choice;
        Self {
            operation,
            kernel,
            why,
        }
    }

    fn text(&self) -> String {
        format!("  {:<44} {} ({})", self.operation, self.kernel, self.why)
    }
}

impl CacheFolder {
    fn of_user() -> Option<Self> {
        let cache = Cache::of_user();
        let (entries, size_bytes) = cache.size();
        Some(Self {
            folder: cache.folder()?.display().to_string(),
            entries,
            size_bytes,
        })
    }

    fn text(&self) -> String {
        let size = bytes(self.size_bytes);
        format!("kernels on disk: {} ({size}) in {}", self.entries, self.folder)
    }
}

//! An operation whose instructions are counted.

use dualgrain_cpu::CpuDevice;

/// Something to count: `prepare` makes operands and gives what is called.
pub struct Operation {
    pub name: &'static str,
    pub shape: String,
    pub units: usize,
    pub unit: &'static str,
    pub prepare: Box<dyn Fn(CpuDevice) -> Call>,
}

pub type Call = Box<dyn FnMut()>;

impl Operation {
    pub fn key(&self) -> String {
        format!("{}/{}", self.name, self.shape)
    }
}

//! Mixtures of experts on a card: not there yet.

use dualgrain_device::{DeviceError, Done, ExpertInput, Operand, RoutingRule, RoutingShape};

use super::buffers::CudaMatrix;
use super::cuda_device::CudaDevice;
use super::linears::CudaLinear;

/// Linears of a mixture, one for each expert.
#[derive(Debug)]
pub enum Experts {}

/// Which tokens go to which expert.
#[derive(Debug)]
pub enum Routing {}

impl Experts {
    pub(super) fn bytes(&self) -> usize {
        match *self {}
    }
}

impl CudaDevice {
    pub(super) fn new_experts(&self, linears: Vec<CudaLinear>) -> Result<Experts, DeviceError> {
        Err(self.no_mixtures(linears.len()))
    }

    pub(super) fn new_routing(&self, shape: RoutingShape) -> Result<Routing, DeviceError> {
        Err(self.no_mixtures(shape.num_experts))
    }

    pub(super) fn choose_experts(
        &self,
        routing: &mut Routing,
        _logits: &CudaMatrix,
        _bias: Option<&CudaMatrix>,
        _rule: &RoutingRule,
    ) -> Done {
        match *routing {}
    }

    pub(super) fn products_of_experts(
        &self,
        _out: &mut CudaMatrix,
        _a: (Operand<'_, Self>, ExpertInput),
        experts: &Experts,
        _routing: &mut Routing,
    ) -> Done {
        match *experts {}
    }

    pub(super) fn combine_experts(
        &self,
        _x: &mut CudaMatrix,
        _y: &CudaMatrix,
        _shared: Option<&CudaMatrix>,
        routing: &Routing,
    ) -> Done {
        match *routing {}
    }

    pub(super) fn rows_of_expert(
        &self,
        _out: &mut CudaMatrix,
        _x: (&CudaMatrix, ExpertInput),
        routing: &Routing,
        _expert: usize,
    ) -> Done {
        match *routing {}
    }

    fn no_mixtures(&self, num_experts: usize) -> DeviceError {
        DeviceError::Operation {
            operation: "experts",
            device: self.name.clone(),
            sizes: num_experts.to_string(),
            problem: "mixtures of experts run on the CPU alone (--device cpu)".to_owned(),
        }
    }
}

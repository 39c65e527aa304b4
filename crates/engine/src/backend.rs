//! The back-end that models are loaded on: the one place that names it.

use kernels_cpu::{CpuBackend, CpuOptions};

use crate::{EngineError, Isa};

/// The back-end of this machine.
pub(crate) type ThisBackend = CpuBackend;

/// Sets it up; `isa`: the best that the processor has.
///
/// # Errors
/// [`EngineError::Isa`] if the processor lacks it.
pub(crate) fn backend(threads: usize, isa: Option<Isa>) -> Result<ThisBackend, EngineError> {
    Ok(CpuBackend::new(CpuOptions { threads, isa })?)
}

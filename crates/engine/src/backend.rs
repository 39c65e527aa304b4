//! The back-end that models are loaded on: the one place that names it.

use kernels_cpu::{CpuBackend, CpuOptions};

use crate::Isa;

/// The back-end of this machine.
pub(crate) type ThisBackend = CpuBackend;

/// Sets it up; `isa`: the best that the processor has.
pub(crate) fn backend(threads: usize, isa: Option<Isa>) -> ThisBackend {
    CpuBackend::new(CpuOptions { threads, isa })
}

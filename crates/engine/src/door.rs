//! The back door of measurements (crate `lab`): more of an engine than its API shows. It is no part
//! of the API and may change with every version.

use std::sync::{Arc, mpsc};

use storage::{AlignedBuf, FileId, Storage};

pub use crate::open::{BUFFER_OVERHEAD_BYTES, Compute, Opened, open_files, open_storage};
pub use crate::options::{ResolvedOptions, default_budget_bytes};
use crate::plan::MemoryPlan;
pub use crate::plan::{ModelSizes, PlanInput};
pub use crate::runtime::Runtime;
use crate::{Engine, EngineError};

/// Loads a model as [`Engine::open`] does, without an engine around it.
///
/// # Errors
/// A failed read; an expert table that makes no sense.
pub fn load(
    opened: &Opened,
    options: &ResolvedOptions,
    plan: &MemoryPlan,
    storage: &Arc<dyn Storage>,
) -> Result<Box<dyn Runtime>, EngineError> {
    let files = open_files(&opened.checkpoint, storage.as_ref())?;
    let source = crate::open::Source { opened, storage, files: &files };
    let (runtime, _) = crate::open::load(&source, options, plan, &mut |_| ())?;
    Ok(Box::new(runtime))
}

/// Access to a loaded model for measurements.
impl Engine {
    /// Runs `call` on the engine's thread, between two passes.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    pub fn with_runtime<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut dyn Runtime) -> R + Send + 'static,
    ) -> Result<R, EngineError> {
        self.handle().inbox.call(move |worker| call(worker.runtime.as_mut()))
    }

    /// Lends buffers of expert slots to the caller's thread. The engine waits meanwhile.
    ///
    /// # Errors
    /// No memory to give the slots back.
    pub fn lend_buffers(
        &self,
        count: usize,
        use_buffers: &mut dyn FnMut(&mut Vec<AlignedBuf>),
    ) -> Result<(), EngineError> {
        let (lend, lent) = mpsc::sync_channel::<Vec<AlignedBuf>>(1);
        let (give_back, given_back) = mpsc::sync_channel(1);
        let lending = self.handle().inbox.post(move |worker| {
            worker.runtime.lend_buffers(count, &mut |buffers| {
                // Whoever does not give them back gets none in exchange: the slots stay empty.
                if lend.send(std::mem::take(buffers)).is_ok() {
                    *buffers = given_back.recv().unwrap_or_default();
                }
            })
        })?;
        if let Ok(mut buffers) = lent.recv() {
            use_buffers(&mut buffers);
            let _ = give_back.send(buffers);
        }
        Ok(lending.recv().map_err(|_| EngineError::Closed)??)
    }

    /// Where it reads.
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.handle().storage.clone()
    }

    /// The checkpoint's files as the storage knows them.
    pub fn files(&self) -> &[FileId] {
        &self.handle().files
    }

    /// Threads and instruction set that compute.
    pub fn compute(&self) -> Compute {
        self.handle().compute
    }

    /// Lossy options that are on.
    pub fn lossy(&self) -> &[String] {
        &self.handle().options.lossy
    }
}

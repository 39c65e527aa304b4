//! The back door of measurements (crate `lab`): more of an engine than its API shows. It is no part of the API and may
//! change with every version.

use std::sync::Arc;

use storage::{FileId, Storage};

pub use crate::engine::{
    BUFFER_OVERHEAD_BYTES, CTX_DEFAULT, Compute, IO_THREADS_DEFAULT, Opened, default_budget_bytes,
    load_tokenizer, memory_plan, open_files, open_storage, plan_input,
};
pub use crate::runtime::Runtime;
use crate::{Engine, Session};

/// What measurements use of a loaded model.
impl Engine {
    /// The loaded model itself.
    pub fn runtime(&mut self) -> &mut dyn Runtime {
        self.runtime.as_mut()
    }

    /// Where it reads.
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.storage.clone()
    }

    /// The checkpoint's files as the storage knows them.
    pub fn files(&self) -> &[FileId] {
        &self.files
    }

    /// What computes.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// Lossy options that are on.
    pub fn lossy(&self) -> &[String] {
        &self.lossy
    }

    /// Forgets what a session has seen.
    pub fn forget(&mut self, session: &mut Session) {
        self.rebuild(session);
    }
}

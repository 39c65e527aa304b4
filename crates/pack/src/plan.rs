//! What to pack: the input of [`super::pack`], made by `models`, which knows the architecture.

use std::path::PathBuf;

use checkpoint::{Extent, LayerExperts};
use tensor::Format;

/// Everything that goes into one container.
#[derive(Clone, Debug)]
pub struct PackPlan {
    /// Dense tensors, in the order in which they will lie in `dense.bin`.
    pub dense: Vec<DenseItem>,
    /// Layers that have routed experts, by rising number.
    pub layers: Vec<LayerItem>,
    /// Small files to copy (tokenizer, chat template, …). `config.json` among them is copied as it
    /// is; without it [`PackPlan::config`] is written.
    pub aux_files: Vec<PathBuf>,
    /// Small files that are not on disk: name and content. The same rules hold as for
    /// [`PackPlan::aux_files`].
    pub aux_made: Vec<(String, Vec<u8>)>,
    /// The files that [`Extent::file`] of the items refers to.
    pub source_files: Vec<PathBuf>,
    /// The model and the formats, for people; becomes part of the manifest.
    pub description: String,
    /// The model's configuration.
    pub config: serde_json::Value,
}

/// One dense tensor.
#[derive(Clone, Debug)]
pub struct DenseItem {
    /// Hugging Face name.
    pub name: String,
    /// Logical shape in weights; the last dimension is a row.
    pub shape: Vec<usize>,
    /// Where the source's bytes are.
    pub source: Extent,
    /// Format of the source's bytes.
    pub source_format: Format,
    /// Format in the container. Equal formats are copied byte for byte.
    pub format: Format,
}

/// The routed experts of one layer.
#[derive(Clone, Debug)]
pub struct LayerItem {
    /// Number of the layer in the model.
    pub layer: u32,
    /// Where the source's matrices are and what formats they have.
    pub source: LayerExperts,
    /// Formats in the container: gate, up, down.
    pub formats: [Format; 3],
}

/// How to pack. [`PackOptions::default`] is right for everybody but tests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PackOptions {
    /// Re-read the whole container before the manifest is published.
    pub verify: bool,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
    /// The command that an interrupted container names for resuming it; `None` means
    /// `flash-moe pack SOURCE TARGET`.
    pub command: Option<String>,
    /// Output after which finished units are made durable and entered in the journal; it also
    /// happens every two seconds. A kill costs at most this much work.
    pub commit_bytes: u64,
    /// Ways for tests to interrupt.
    #[doc(hidden)]
    pub hooks: Hooks,
}

impl Default for PackOptions {
    fn default() -> PackOptions {
        const COMMIT_BYTES: u64 = 256 << 20;
        PackOptions {
            verify: false,
            threads: 0,
            command: None,
            commit_bytes: COMMIT_BYTES,
            hooks: Hooks::default(),
        }
    }
}

/// Interruptions that tests ask for.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// Stop as if killed once this many units are in the journal.
    pub stop_after_units: Option<u64>,
    /// Pretend that the disk has room for this many bytes of records and no more.
    pub disk_bytes: Option<u64>,
    /// Pretend that the disk has this many bytes free before anything is written.
    pub free_bytes: Option<u64>,
    /// Flip a bit of this unit after it was written, before it is verified.
    pub damage_unit: Option<usize>,
}

/// Watches a pack or a verification; called from one thread at a time.
pub trait PackProgress: Sync {
    /// The work begins: `total_bytes` to read, of which an earlier run did `done_bytes`.
    fn start(&self, total_bytes: u64, done_bytes: u64) {
        let _ = (total_bytes, done_bytes);
    }
    /// This many more bytes were read and dealt with.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }
    /// The work is done.
    fn finish(&self) {}
}

/// Watches nothing.
#[derive(Copy, Clone, Debug, Default)]
pub struct NoProgress;

impl PackProgress for NoProgress {}

/// What a pack did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackReport {
    /// Bytes of source tensors read by this run.
    pub bytes_in: u64,
    /// Size of the container.
    pub bytes_out: u64,
    /// Dense tensors and expert records in the container.
    pub units: u64,
    /// Those of them that an earlier, interrupted run had finished.
    pub units_resumed: u64,
    /// The container was finished already and nothing was written.
    pub already_complete: bool,
    /// Bytes that were re-read and found right, with [`PackOptions::verify`].
    pub verified_bytes: Option<u64>,
}

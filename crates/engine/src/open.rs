//! From a path to a loaded model: headers of the files, the memory plan, the weights.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use checkpoint::{Checkpoint, TOKENIZER_FILES};
use experts::{ExpertStore, StoreOptions};
use models::layout::{self, Layout};
use models::load::DenseLoader;
use models::{Model, ModelError, ModelSpec, Scratch, States};
use sampling::GenerationDefaults;
use storage::{BLOCK_BYTES, FileId, FileStorage, Storage, StorageOptions};
use tokenizer::Tokenizer;

use crate::backend::{ThisBackend, backend};
use crate::options::{Input, ResolvedOptions};
use crate::plan::{MemoryPlan, ModelSizes, PlanInput};
use crate::runtime::Loaded;
use crate::{EngineError, EngineOptions, Isa, gguf};

/// Most bytes that a dense tensor takes in memory beyond its own.
pub const BUFFER_OVERHEAD_BYTES: u64 = 8192;

/// Progress while a model is opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Loading<'a> {
    /// Memory has been planned; nothing has been read yet.
    Planned(&'a MemoryPlan),
    /// Dense weights, bytes.
    Dense {
        /// Read so far.
        done: u64,
        /// Together.
        total: u64,
    },
    /// Direct reads were requested, but the file system refuses them.
    IoFallback(&'a str),
    /// A ring was to read and could not be had.
    EngineFallback(&'a str),
}

/// Threads and instruction set that compute.
#[derive(Copy, Clone, Debug)]
pub struct Compute {
    /// Threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: Isa,
}

/// A checkpoint's headers, before anything is loaded.
pub struct Opened {
    /// Its files.
    pub checkpoint: Checkpoint,
    /// Hyper-parameters.
    pub config: ModelSpec,
    /// Where its tensors are.
    pub layout: Layout,
}

impl Opened {
    /// Reads headers only.
    ///
    /// # Errors
    /// Anything wrong with the files.
    pub fn new(path: &Path) -> Result<Self, EngineError> {
        let checkpoint = models::adopt(Checkpoint::open(path)?)?;
        let config = models::read_config(path, checkpoint.config())?;
        let layout = layout::layout(&checkpoint, &config)?;
        Ok(Self { checkpoint, config, layout })
    }

    /// Bytes of the dense weights in memory: each tensor has its own aligned buffer.
    pub fn dense_bytes(&self) -> u64 {
        let tensors = self.layout.dense.iter().filter_map(|expected| self.checkpoint.tensor(&expected.name));
        tensors.map(|info| info.extent.bytes + BUFFER_OVERHEAD_BYTES).sum()
    }

    /// Routed experts.
    pub fn expert_count(&self) -> usize {
        self.layout.experts.layers.iter().map(|layer| layer.extents.len()).sum()
    }

    /// Sizes from the files that the memory plan needs.
    ///
    /// # Errors
    /// Expert records that no slot can take.
    pub fn sizes(&self, block_bytes: usize) -> Result<ModelSizes, EngineError> {
        let json = self.checkpoint.aux_file("tokenizer.json")?.and_then(|path| std::fs::metadata(path).ok());
        Ok(ModelSizes {
            dense_bytes: self.dense_bytes(),
            tokenizer_json_bytes: match self.checkpoint.gguf() {
                Some(gguf) => gguf::tokenizer_json_bytes(gguf),
                None => json.map_or(0, |file| file.len()),
            },
            slot_bytes: ExpertStore::slot_bytes(&self.layout.experts, block_bytes)? as u64,
            expert_count: self.expert_count(),
        })
    }

    /// The memory plan.
    ///
    /// # Errors
    /// [`EngineError::BudgetTooSmall`].
    pub fn plan(&self, options: &ResolvedOptions, block_bytes: usize) -> Result<MemoryPlan, EngineError> {
        MemoryPlan::new(&PlanInput::new(&self.config, self.sizes(block_bytes)?, options))
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// There is none, or its files are damaged.
    pub fn tokenizer(&self) -> Result<Tokenizer, EngineError> {
        let checkpoint = &self.checkpoint;
        if let Some(gguf) = checkpoint.gguf() {
            return Ok(Tokenizer::from_gguf(&gguf::vocabulary(checkpoint, gguf)?)?);
        }
        // Each file but the first may be absent; a link to nothing is no absence.
        for name in TOKENIZER_FILES {
            checkpoint.aux_file(name)?;
        }
        if checkpoint.aux_file("tokenizer.json")?.is_none() {
            return Err(EngineError::NoTokenizer { path: checkpoint.root().into() });
        }
        Ok(Tokenizer::from_directory(checkpoint.root())?)
    }

    /// The tokenizer, if requests can do with what there is.
    pub(crate) fn tokenizer_for(&self, input: Input) -> Result<Option<Arc<Tokenizer>>, EngineError> {
        match (self.tokenizer(), input) {
            // Token ids need no tokenizer; a link to nothing is no absence of one.
            (Err(error @ EngineError::Checkpoint(_)), Input::Tokens) => Err(error),
            (Err(_), Input::Tokens) => Ok(None),
            (Err(error), _) => Err(error),
            (Ok(tokenizer), Input::Chat) if !tokenizer.has_chat_template() => {
                Err(EngineError::NoChatTemplate { path: self.checkpoint.root().into() })
            }
            (Ok(tokenizer), _) => Ok(Some(Arc::new(tokenizer))),
        }
    }

    /// How to sample, and every end token.
    pub(crate) fn generation_defaults(&self) -> Result<GenerationDefaults, EngineError> {
        let checkpoint = &self.checkpoint;
        let mut defaults = match (checkpoint.gguf(), checkpoint.aux_file("generation_config.json")?) {
            (Some(gguf), _) => {
                let json = gguf::generation_config(checkpoint, gguf, &self.config.eos_token_ids);
                GenerationDefaults::parse(&json)?
            }
            (None, Some(path)) => GenerationDefaults::read(&path)?,
            (None, None) => GenerationDefaults::default(),
        };
        // Both files name end tokens, and not always the same ones: stop at any of them.
        for id in &self.config.eos_token_ids {
            if !defaults.eos_token_ids.contains(id) {
                defaults.eos_token_ids.push(*id);
            }
        }
        Ok(defaults)
    }
}

/// The plan with which [`crate::Engine::open`] would open a model. Reads headers only.
///
/// # Errors
/// Those of `open` that do not come from loading.
pub fn plan_for(path: &Path, options: &EngineOptions) -> Result<MemoryPlan, EngineError> {
    let opened = Opened::new(path)?;
    let options = ResolvedOptions::new(options, &opened.config)?;
    opened.plan(&options, BLOCK_BYTES)
}

/// Asks the system for all that is planned, before anything is loaded: an allocation that fails later on
/// would end the process without a word.
///
/// # Errors
/// [`EngineError::NoMemory`].
pub(crate) fn probe_memory(plan: &MemoryPlan) -> Result<(), EngineError> {
    let bytes = plan.total_bytes();
    let mut probe: Vec<u8> = Vec::new();
    let size = usize::try_from(bytes).map_err(|_| EngineError::NoMemory { bytes })?;
    probe.try_reserve_exact(size).map_err(|_| EngineError::NoMemory { bytes })?;
    // Given back untouched; a compiler may leave out what nobody looks at.
    std::hint::black_box(&probe);
    Ok(())
}

/// Where weights are read from.
///
/// # Errors
/// The threads of a pool cannot be had.
pub fn open_storage(options: &ResolvedOptions) -> Result<Arc<dyn Storage>, EngineError> {
    if let Some(storage) = &options.storage {
        return Ok(storage.clone());
    }
    let ResolvedOptions { io: mode, io_threads: threads, io_engine: engine, .. } = *options;
    Ok(FileStorage::new(StorageOptions { mode, threads, engine })?)
}

/// The checkpoint's files as `storage` knows them.
///
/// # Errors
/// A file cannot be opened.
pub fn open_files(checkpoint: &Checkpoint, storage: &dyn Storage) -> Result<Vec<FileId>, EngineError> {
    let open = |path: &PathBuf| storage.open(path).map_err(EngineError::from);
    checkpoint.files().iter().map(open).collect()
}

/// Where a model is read from.
pub(crate) struct Source<'a> {
    pub(crate) opened: &'a Opened,
    pub(crate) storage: &'a Arc<dyn Storage>,
    pub(crate) files: &'a [FileId],
}

/// Loads the dense weights and sets up everything else that the plan has room for.
pub(crate) fn load(
    source: &Source<'_>,
    options: &ResolvedOptions,
    plan: &MemoryPlan,
    progress: &mut dyn FnMut(Loading<'_>),
) -> Result<(Loaded<ThisBackend>, Compute), EngineError> {
    let Source { opened: Opened { checkpoint, config, layout }, storage, files } = source;
    let mut backend = backend(options.threads, options.isa)?;
    let compute = Compute { threads: backend.threads(), isa: backend.isa() };
    let total = source.opened.dense_bytes();
    let mut done = 0;
    let mut on_bytes = |bytes: u64| {
        done += bytes;
        progress(Loading::Dense { done, total });
    };
    let mut loader = DenseLoader::new(checkpoint, storage.as_ref(), files, &mut on_bytes);
    let model = Model::load(&mut backend, &mut loader, layout.prefix, config)?;
    let store_options = StoreOptions {
        slots: plan.slots,
        verify: options.verify,
        lookahead: options.lookahead,
        policy: options.policy,
    };
    let mut store = ExpertStore::new(layout.experts.clone(), files, (*storage).clone(), store_options)?;
    if let Some(path) = &options.trace {
        store.trace_to(path)?;
    }
    let rows = PlanInput::scratch_rows(plan.parallel, plan.chunk_tokens);
    let scratch = Scratch::new(&mut backend, config, rows).map_err(ModelError::from)?;
    let states =
        States::new(&mut backend, config, plan.kv, plan.pages, plan.states).map_err(ModelError::from)?;
    Ok((Loaded { backend, model, experts: models::Local::new(store), states, scratch }, compute))
}

/// The small files that a model has inside, name and content, for its packed container: those of a
/// GGUF file; of a directory there are none.
///
/// # Errors
/// A model that cannot be opened; a vocabulary that cannot be used.
pub fn files_inside(model: &Path) -> Result<Vec<(String, Vec<u8>)>, EngineError> {
    let opened = Opened::new(model)?;
    let Some(file) = opened.checkpoint.gguf() else { return Ok(Vec::new()) };
    let generation = gguf::generation_config(&opened.checkpoint, file, &opened.config.eos_token_ids);
    let mut files = vec![("generation_config.json".to_owned(), generation)];
    match gguf::vocabulary(&opened.checkpoint, file) {
        Ok(vocabulary) => {
            files.push(("tokenizer.json".to_owned(), vocabulary.tokenizer_json()?));
            let config = vocabulary.tokenizer_config().to_string();
            files.push(("tokenizer_config.json".to_owned(), config.into_bytes()));
        }
        // Nothing to copy; the container can be run on ids as the file can.
        Err(EngineError::NoGgufTokenizer { .. }) => {}
        Err(other) => return Err(other),
    }
    Ok(files)
}

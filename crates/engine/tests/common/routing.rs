//! Which experts a model's routers choose, seen from outside: a storage that records what is read from it.
#![allow(dead_code)] // Tests and examples use their own parts.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use engine::{Engine, EngineOptions, Request};
use storage::{
    CompletionQueue, FileId, FileStorage, IoMode, ReadRequest, Storage, StorageError, StorageOptions,
};

/// Passes everything on and keeps the offset of each read from a file of expert records.
struct Recorder {
    inner: Arc<dyn Storage>,
    reads: Mutex<Vec<u64>>,
}

impl Storage for Recorder {
    fn open(&self, path: &Path) -> Result<FileId, StorageError> {
        self.inner.open(path)
    }
    fn path(&self, file: FileId) -> PathBuf {
        self.inner.path(file)
    }
    fn len_bytes(&self, file: FileId) -> Result<u64, StorageError> {
        self.inner.len_bytes(file)
    }
    fn mode(&self, file: FileId) -> IoMode {
        self.inner.mode(file)
    }
    fn fallback_reason(&self) -> Option<String> {
        self.inner.fallback_reason()
    }
    fn submit(&self, request: ReadRequest, queue: &CompletionQueue) {
        let segment = &request.segments[0];
        let path = self.inner.path(segment.file);
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("experts-")) {
            self.reads.lock().unwrap().push(segment.offset);
        }
        self.inner.submit(request, queue);
    }
    fn bytes_read(&self) -> u64 {
        self.inner.bytes_read()
    }
    fn busy_us(&self) -> u64 {
        self.inner.busy_us()
    }
}

/// Choices of a run: for each token and layer the experts.
pub(crate) struct Routing {
    pub(crate) layers: usize,
    pub(crate) experts: usize,
    pub(crate) per_token: usize,
    /// [token][layer][rank], flat; ranks in no order.
    pub(crate) choices: Vec<u32>,
}

/// Feeds `tokens` one by one to the model in `dir`, which has at least two layers. With as many slots as a token uses
/// experts, each layer throws the previous one's out, so every choice is read.
pub(crate) fn record(dir: &Path, tokens: &[u32]) -> Routing {
    let opened = checkpoint::Checkpoint::open(dir).unwrap();
    let record_bytes = opened.packed().unwrap().table.layers[0].extents[0][0].bytes;
    let per_token = opened.config()["text_config"]["num_experts_per_tok"].as_u64().unwrap() as usize;
    let options = StorageOptions { mode: IoMode::Buffered, ..StorageOptions::default() };
    let recorder = Arc::new(Recorder { inner: FileStorage::new(options).unwrap(), reads: Mutex::default() });
    let storage: Arc<dyn Storage> = recorder.clone();
    let options = EngineOptions {
        memory_bytes: Some(8 << 30),
        slots: Some(per_token),
        ctx: Some(tokens.len().max(15) + 1),
        lookahead: Some(false),
        storage: Some(storage),
        ..EngineOptions::default()
    };
    let engine = Engine::open(dir, options, &mut |_| ()).unwrap();
    // Logits that are not finite would be an error.
    let forced = tokens[1..].to_vec();
    let request = Request { forced, max_tokens: tokens.len(), ..engine.request(&tokens[..1]) };
    engine.generate(request, |_| ControlFlow::Continue(())).unwrap();
    let config = engine.config();
    let (layers, experts, per_token) = (config.num_layers(), config.experts_max(), config.per_token_max());
    let reads = recorder.reads.lock().unwrap();
    assert_eq!(reads.len(), tokens.len() * layers * per_token, "every choice is a read");
    let choices = reads.iter().map(|offset| (offset / record_bytes) as u32).collect();
    Routing { layers, experts, per_token, choices }
}

impl Routing {
    /// Experts of one token in one layer.
    pub(crate) fn chosen(&self, token: usize, layer: usize) -> &[u32] {
        &self.choices[(token * self.layers + layer) * self.per_token..][..self.per_token]
    }

    pub(crate) fn tokens(&self) -> usize {
        self.choices.len() / self.layers / self.per_token
    }

    /// Entropy of a layer's use of its experts, against the largest possible; mean over layers.
    pub(crate) fn entropy(&self) -> f64 {
        let of_layer = |layer: usize| {
            let mut counts = vec![0u32; self.experts];
            (0..self.tokens()).for_each(|token| {
                self.chosen(token, layer).iter().for_each(|expert| counts[*expert as usize] += 1);
            });
            let all = f64::from(counts.iter().sum::<u32>());
            let share = |count: &u32| f64::from(*count) / all;
            let entropy: f64 = counts.iter().filter(|c| **c > 0).map(|c| -share(c) * share(c).ln()).sum();
            entropy / (self.experts as f64).ln()
        };
        (0..self.layers).map(of_layer).sum::<f64>() / self.layers as f64
    }

    /// Share of a token's experts that the token before used in the same layer.
    pub(crate) fn repeated(&self) -> f64 {
        let mut same = 0;
        for token in 1..self.tokens() {
            for layer in 0..self.layers {
                let before = self.chosen(token - 1, layer);
                same += self.chosen(token, layer).iter().filter(|expert| before.contains(expert)).count();
            }
        }
        same as f64 / ((self.tokens() - 1) * self.layers * self.per_token) as f64
    }

    /// Hit rate of one least-recently-used cache of `slots` experts for all layers, from token `first` on.
    pub(crate) fn lru(&self, slots: usize, first: usize) -> f64 {
        let mut used = vec![0u64; self.layers * self.experts];
        let mut by_time = std::collections::BTreeMap::new();
        let (mut time, mut hits, mut requests) = (0u64, 0u64, 0u64);
        for token in 0..self.tokens() {
            for layer in 0..self.layers {
                for expert in self.chosen(token, layer) {
                    let id = layer * self.experts + *expert as usize;
                    time += 1;
                    let hit = used[id] > 0 && by_time.remove(&used[id]).is_some();
                    if !hit && by_time.len() >= slots {
                        by_time.pop_first();
                    }
                    by_time.insert(time, id);
                    used[id] = time;
                    if token >= first {
                        requests += 1;
                        hits += u64::from(hit);
                    }
                }
            }
        }
        hits as f64 / requests as f64
    }
}

/// Random token ids, no seed twice the same.
pub(crate) fn random_tokens(seed: u64, count: usize, vocab: usize) -> Vec<u32> {
    let mut rng = pack::synth::Rng::new(&[seed]);
    (0..count).map(|_| rng.below(vocab) as u32).collect()
}

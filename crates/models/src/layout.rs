//! Which tensors a model has, and what a checkpoint has of them.
//!
//! The list of dense tensors follows from the configuration alone, whatever the architecture; where the routed experts
//! lie follows from the container. Everything is checked here once, so that loading and packing need not.

use std::collections::BTreeMap;

use checkpoint::{Checkpoint, ExpertPart, ExpertTable, Kind, LayerExperts, TensorInfo};
use ops::AttentionShape;

use crate::ModelError;
use crate::config::{Config, LayerType, MlpType, RopeFactors};
use crate::gguf_names::shown_name;

/// Prefix of the text model in published multi-modal layouts.
pub(crate) const PUBLISHED_PREFIX: &str = "model.language_model.";
/// Prefix of text-only layouts, and of GGUF files once they are adopted.
pub(crate) const TEXT_PREFIX: &str = "model.";
/// What each rotary frequency is divided by, where the checkpoint stores it: as in GGUF files.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Tensors that belong to parts that the text model does not use, by the beginning of their names.
const IGNORED: [(&str, &str); 3] =
    [("model.visual.", "vision tower"), ("visual.", "vision tower"), ("mtp.", "multi-token prediction head")];
/// Frequencies that old checkpoints store and that the configuration says anyway.
const IGNORED_SUFFIX: &str = ".rotary_emb.inv_freq";
/// What they are called.
const IGNORED_FREQUENCIES: &str = "rotary frequencies";

/// What a dense tensor is for, which decides the format it is packed in.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Token embedding table (and the head, when tied).
    Embedding,
    /// Output head.
    Head,
    /// Projections of attention and DeltaNet, and the shared expert.
    Dense,
    /// Router and other small matrices that decide much: never below bf16.
    Router,
    /// Norms, biases, convolution taps, decay parameters: f32.
    Small,
}

/// A dense tensor that the architecture needs.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Full name in this checkpoint.
    pub name: String,
    /// Shape, `[out, in]` for matrices.
    pub shape: Vec<usize>,
    /// What it is for.
    pub tier: Tier,
}

/// The tensors of a checkpoint, sorted out: what the text model uses and what it leaves alone.
#[derive(Debug)]
pub struct Layout {
    /// Prefix of the text model's tensor names.
    pub prefix: &'static str,
    /// Dense tensors in model order.
    pub dense: Vec<Expected>,
    /// Where the routed experts lie.
    pub experts: ExpertTable,
    /// Parts that are recognised and left alone, with the number of their tensors and bytes.
    pub ignored: BTreeMap<&'static str, (usize, u64)>,
}

/// Checks every tensor of a checkpoint against the configuration.
///
/// Layers without routed experts have none in the table; a model without any has no layers there.
///
/// # Errors
/// Missing tensors, unknown tensors, wrong shapes: each named.
pub fn layout(checkpoint: &Checkpoint, config: &Config) -> Result<Layout, ModelError> {
    let has = |prefix: &&&str| checkpoint.tensor(&format!("{prefix}embed_tokens.weight")).is_some();
    let prefixes = config.architecture.prefixes();
    let prefix = prefixes.iter().find(has).copied().unwrap_or(prefixes[0]);
    let dense = dense_tensors(prefix, config);
    let mut claims = Claims::new(checkpoint);
    for expected in &dense {
        claims.claim(&expected.name, &expected.shape);
    }
    if config.tie_word_embeddings {
        claims.tolerate("lm_head.weight");
    }
    let experts = match checkpoint.packed() {
        Some(packed) => packed.table.clone(),
        None if config.num_experts == 0 => ExpertTable { layers: Vec::new() },
        None => ExpertTable {
            layers: (0..config.num_layers())
                .map(|layer| claims.layer_experts(prefix, layer, config))
                .collect(),
        },
    };
    let ignored = claims.finish(config.architecture.name())?;
    check_table(checkpoint, &experts, config)?;
    Ok(Layout { prefix, dense, experts, ignored })
}

/// Every dense tensor of a published checkpoint with this configuration, in model order.
pub fn published_dense(config: &Config) -> Vec<Expected> {
    dense_tensors(PUBLISHED_PREFIX, config)
}

/// Every dense tensor of the text model, in model order.
pub(crate) fn dense_tensors(prefix: &str, config: &Config) -> Vec<Expected> {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let mut list = Vec::new();
    let mut add =
        |name: String, shape: &[usize], tier| list.push(Expected { name, shape: shape.to_vec(), tier });
    add(format!("{prefix}embed_tokens.weight"), &[vocab, hidden], Tier::Embedding);
    for (layer, kind) in config.layer_types.iter().enumerate() {
        let base = format!("{prefix}layers.{layer}.");
        add(format!("{base}input_layernorm.weight"), &[hidden], Tier::Small);
        match kind {
            LayerType::FullAttention => attention_tensors(&base, config, &mut add),
            LayerType::LinearAttention => delta_net_tensors(&base, config, &mut add),
        }
        add(format!("{base}post_attention_layernorm.weight"), &[hidden], Tier::Small);
        match config.mlp_types[layer] {
            MlpType::Moe => moe_tensors(&base, config, &mut add),
            MlpType::Dense => mlp_tensors(&base, "mlp", hidden, config.intermediate_size, &mut add),
        }
    }
    if config.rope_factors == RopeFactors::Stored {
        add(ROPE_FACTORS.into(), &[config.attention.rotary_dim / 2], Tier::Small);
    }
    add(format!("{prefix}norm.weight"), &[hidden], Tier::Small);
    if !config.tie_word_embeddings {
        add("lm_head.weight".into(), &[vocab, hidden], Tier::Head);
    }
    list
}

/// Router and shared expert; the routed experts are in the [`ExpertTable`].
fn moe_tensors(base: &str, config: &Config, add: &mut impl FnMut(String, &[usize], Tier)) {
    let hidden = config.hidden_size;
    add(format!("{base}mlp.gate.weight"), &[config.num_experts, hidden], Tier::Router);
    mlp_tensors(base, "mlp.shared_expert", hidden, config.shared_expert_intermediate_size, add);
    add(format!("{base}mlp.shared_expert_gate.weight"), &[1, hidden], Tier::Router);
}

fn mlp_tensors(
    base: &str,
    name: &str,
    hidden: usize,
    inner: usize,
    add: &mut impl FnMut(String, &[usize], Tier),
) {
    add(format!("{base}{name}.gate_proj.weight"), &[inner, hidden], Tier::Dense);
    add(format!("{base}{name}.up_proj.weight"), &[inner, hidden], Tier::Dense);
    add(format!("{base}{name}.down_proj.weight"), &[hidden, inner], Tier::Dense);
}

fn attention_tensors(base: &str, config: &Config, add: &mut impl FnMut(String, &[usize], Tier)) {
    let AttentionShape { heads, kv_heads, head_dim, .. } = config.attention;
    let (hidden, bias) = (config.hidden_size, config.attention_bias);
    let projections = [
        ("q_proj", heads * config.attention.query_len(), hidden, bias.qkv),
        ("k_proj", kv_heads * head_dim, hidden, bias.qkv),
        ("v_proj", kv_heads * head_dim, hidden, bias.qkv),
        ("o_proj", hidden, heads * head_dim, bias.output),
    ];
    for (name, rows, cols, bias) in projections {
        add(format!("{base}self_attn.{name}.weight"), &[rows, cols], Tier::Dense);
        if bias {
            add(format!("{base}self_attn.{name}.bias"), &[rows], Tier::Small);
        }
    }
    if config.qk_norm {
        add(format!("{base}self_attn.q_norm.weight"), &[head_dim], Tier::Small);
        add(format!("{base}self_attn.k_norm.weight"), &[head_dim], Tier::Small);
    }
}

fn delta_net_tensors(base: &str, config: &Config, add: &mut impl FnMut(String, &[usize], Tier)) {
    let Some(shape) = &config.delta_net else { return };
    let (hidden, values, channels) = (config.hidden_size, shape.value_len(), shape.conv_channels());
    let base = format!("{base}linear_attn.");
    add(format!("{base}in_proj_qkv.weight"), &[channels, hidden], Tier::Dense);
    add(format!("{base}in_proj_z.weight"), &[values, hidden], Tier::Dense);
    add(format!("{base}in_proj_b.weight"), &[shape.value_heads, hidden], Tier::Router);
    add(format!("{base}in_proj_a.weight"), &[shape.value_heads, hidden], Tier::Router);
    add(format!("{base}conv1d.weight"), &[channels, 1, shape.conv_kernel], Tier::Small);
    add(format!("{base}A_log"), &[shape.value_heads], Tier::Small);
    add(format!("{base}dt_bias"), &[shape.value_heads], Tier::Small);
    add(format!("{base}norm.weight"), &[shape.value_dim], Tier::Small);
    add(format!("{base}out_proj.weight"), &[hidden, values], Tier::Dense);
}

/// Book-keeping of which tensors of a checkpoint have been accounted for.
struct Claims<'a> {
    checkpoint: &'a Checkpoint,
    open: BTreeMap<&'a str, &'a TensorInfo>,
    missing: Vec<String>,
    wrong: Option<ModelError>,
}

impl<'a> Claims<'a> {
    fn new(checkpoint: &'a Checkpoint) -> Self {
        let open = checkpoint.tensors().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Self { checkpoint, open, missing: Vec::new(), wrong: None }
    }

    fn tolerate(&mut self, name: &str) {
        self.open.remove(name);
    }

    /// Accounts for one tensor; what is wrong is kept for [`Claims::finish`], so that missing tensors are counted whole.
    fn claim(&mut self, name: &str, shape: &[usize]) -> Option<&'a TensorInfo> {
        let Some(info) = self.open.remove(name) else {
            self.missing.push(name.to_string());
            return None;
        };
        if info.shape != shape && self.wrong.is_none() {
            self.wrong = Some(ModelError::WrongShape {
                path: self.checkpoint.root().to_path_buf(),
                name: shown_name(self.checkpoint, name),
                got: info.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        Some(info)
    }

    /// The experts of one layer, fused or one tensor each. An empty layer when tensors are missing, or when it has none.
    fn layer_experts(&mut self, prefix: &str, layer: usize, config: &Config) -> LayerExperts {
        let base = format!("{prefix}layers.{layer}.mlp.experts.");
        if config.mlp_types[layer] == MlpType::Dense {
            return LayerExperts::none();
        }
        let fused = self.open.contains_key(format!("{base}gate_up_proj").as_str());
        let found = match (fused, self.checkpoint.kind()) {
            (true, _) => self.fused_experts(&base, config),
            (false, Kind::Gguf) => self.stacked_experts(&base, config),
            (false, _) => self.single_experts(&base, config),
        };
        found.unwrap_or_else(|| LayerExperts {
            parts: expert_parts(config, [tensor::Format::F32; 3], fused),
            extents: Vec::new(),
            checksums: None,
        })
    }

    /// `gate_up_proj` [E, 2F, H] (gate rows, then up rows) and `down_proj` [E, H, F]: two extents an expert.
    fn fused_experts(&mut self, base: &str, config: &Config) -> Option<LayerExperts> {
        let (count, hidden, inner) = (config.num_experts, config.hidden_size, config.moe_intermediate_size);
        let gate_up = self.claim(&format!("{base}gate_up_proj"), &[count, 2 * inner, hidden]);
        let down = self.claim(&format!("{base}down_proj"), &[count, hidden, inner]);
        let (gate_up, down) = (gate_up?, down?);
        let slice = |info, expert| expert_slice(info, expert, count);
        Some(LayerExperts {
            parts: expert_parts(config, [gate_up.format, gate_up.format, down.format], true),
            extents: (0..count).map(|expert| vec![slice(gate_up, expert), slice(down, expert)]).collect(),
            checksums: None,
        })
    }

    /// `gate_proj`, `up_proj` [E, F, H] and `down_proj` [E, H, F], as GGUF has them: three extents an expert.
    fn stacked_experts(&mut self, base: &str, config: &Config) -> Option<LayerExperts> {
        let (count, hidden, inner) = (config.num_experts, config.hidden_size, config.moe_intermediate_size);
        let gate = self.claim(&format!("{base}gate_proj"), &[count, inner, hidden]);
        let up = self.claim(&format!("{base}up_proj"), &[count, inner, hidden]);
        let down = self.claim(&format!("{base}down_proj"), &[count, hidden, inner]);
        let stacks = [gate?, up?, down?];
        let slices = |expert| stacks.iter().map(|info| expert_slice(info, expert, count)).collect();
        Some(LayerExperts {
            parts: expert_parts(config, stacks.map(|info| info.format), false),
            extents: (0..count).map(slices).collect(),
            checksums: None,
        })
    }

    /// `E.{gate,up,down}_proj.weight`: three extents an expert.
    fn single_experts(&mut self, base: &str, config: &Config) -> Option<LayerExperts> {
        let (hidden, inner) = (config.hidden_size, config.moe_intermediate_size);
        let mut extents = Vec::with_capacity(config.num_experts);
        let mut formats = None;
        for expert in 0..config.num_experts {
            let mut claim =
                |name: &str, shape: [usize; 2]| self.claim(&format!("{base}{expert}.{name}.weight"), &shape);
            let gate = claim("gate_proj", [inner, hidden]);
            let up = claim("up_proj", [inner, hidden]);
            let down = claim("down_proj", [hidden, inner]);
            let (Some(gate), Some(up), Some(down)) = (gate, up, down) else { continue };
            formats.get_or_insert([gate.format, up.format, down.format]);
            extents.push(vec![gate.extent, up.extent, down.extent]);
        }
        Some(LayerExperts { parts: expert_parts(config, formats?, false), extents, checksums: None })
    }

    /// Reports what is wrong, or the parts that were left alone.
    fn finish(self, architecture: &'static str) -> Result<BTreeMap<&'static str, (usize, u64)>, ModelError> {
        let path = self.checkpoint.root().to_path_buf();
        if let Some(first) = self.missing.first() {
            let first = shown_name(self.checkpoint, first);
            return Err(ModelError::MissingTensors { path, count: self.missing.len(), first });
        }
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let mut ignored = BTreeMap::new();
        let mut unknown = Vec::new();
        for (name, info) in self.open {
            match ignored_part(name) {
                Some(part) => {
                    let entry: &mut (usize, u64) = ignored.entry(part).or_default();
                    entry.0 += 1;
                    entry.1 += info.extent.bytes;
                }
                None => unknown.push(name.to_string()),
            }
        }
        match unknown.first().cloned() {
            Some(first) => {
                Err(ModelError::UnknownTensors { path, count: unknown.len(), first, architecture })
            }
            None => Ok(ignored),
        }
    }
}

/// What a tensor that the text model does not use belongs to.
fn ignored_part(name: &str) -> Option<&'static str> {
    let begins = IGNORED.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, part)| *part);
    begins.or(name.ends_with(IGNORED_SUFFIX).then_some(IGNORED_FREQUENCIES))
}

/// The bytes of one of `count` experts in a tensor that has them one after the other.
fn expert_slice(info: &TensorInfo, expert: usize, count: usize) -> checkpoint::Extent {
    let bytes = info.extent.bytes / count as u64;
    checkpoint::Extent { offset: info.extent.offset + expert as u64 * bytes, bytes, ..info.extent }
}

fn expert_parts(config: &Config, formats: [tensor::Format; 3], fused: bool) -> [ExpertPart; 3] {
    let (hidden, inner) = (config.hidden_size, config.moe_intermediate_size);
    let part = |format, rows, cols, extent, offset| ExpertPart { format, rows, cols, extent, offset };
    let up_offset = formats[0].row_bytes(hidden).map_or(0, |bytes| (bytes * inner) as u64);
    match fused {
        true => [
            part(formats[0], inner, hidden, 0, 0),
            part(formats[1], inner, hidden, 0, up_offset),
            part(formats[2], hidden, inner, 1, 0),
        ],
        false => [
            part(formats[0], inner, hidden, 0, 0),
            part(formats[1], inner, hidden, 1, 0),
            part(formats[2], hidden, inner, 2, 0),
        ],
    }
}

/// A packed container's table must be this configuration's; a Hugging Face one is by construction.
fn check_table(checkpoint: &Checkpoint, table: &ExpertTable, config: &Config) -> Result<(), ModelError> {
    let (hidden, inner) = (config.hidden_size, config.moe_intermediate_size);
    let wrong = |what: String, got: Vec<usize>, expected: Vec<usize>| ModelError::WrongShape {
        path: checkpoint.root().to_path_buf(),
        name: what,
        got,
        expected,
    };
    let layers = if config.num_experts == 0 { 0 } else { config.num_layers() };
    if table.layers.len() != layers {
        return Err(wrong("experts (layers)".into(), vec![table.layers.len()], vec![layers]));
    }
    let shapes = [[inner, hidden], [inner, hidden], [hidden, inner]];
    for (index, layer) in table.layers.iter().enumerate() {
        let experts = if config.mlp_types[index] == MlpType::Moe { config.num_experts } else { 0 };
        if layer.extents.len() != experts {
            return Err(wrong(format!("experts of layer {index}"), vec![layer.extents.len()], vec![experts]));
        }
        if experts == 0 {
            continue;
        }
        for (part, (shape, name)) in layer.parts.iter().zip(shapes.iter().zip(["gate", "up", "down"])) {
            if [part.rows, part.cols] != *shape {
                let what = format!("layer {index} experts.{name}_proj");
                return Err(wrong(what, vec![part.rows, part.cols], shape.to_vec()));
            }
        }
    }
    Ok(())
}

//! Qwen3.5-MoE, the text model (`qwen3_5_moe`, `qwen3_5_moe_text`).
//!
//! Source: transformers 5.23 `models/qwen3_5_moe`. This file knows the configuration keys and the tensor names and
//! shapes; the arithmetic is in [`crate::layers`]. Two directory layouts exist: the published one (text model nested
//! under `text_config`, prefix `model.language_model.`, experts fused per layer) and the flat text-only one (prefix
//! `model.`, one tensor per expert and matrix); each part is recognised by the tensors that are there. GGUF files get the
//! flat layout's names in [`crate::qwen35moe_gguf`] first.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoint::{Checkpoint, ExpertPart, ExpertTable, Kind, LayerExperts, TensorInfo};
use kernels::backend::{AttentionShape, DeltaNetShape};
use serde_json::Value;

use crate::ModelError;
use crate::config::{Config, LayerType, Section};
use crate::qwen35moe_gguf;

/// Name used in messages.
pub const NAME: &str = "Qwen3.5-MoE";
/// `model_type` values of this architecture.
const MODEL_TYPES: [&str; 2] = ["qwen3_5_moe", "qwen3_5_moe_text"];
/// Tensor name prefixes of the text model, published layout first.
const PREFIXES: [&str; 2] = [PUBLISHED_PREFIX, "model."];
/// Prefix of the published layout.
pub(crate) const PUBLISHED_PREFIX: &str = "model.language_model.";
/// Tensors that belong to parts that the text model does not use.
const IGNORED: [(&str, &str); 3] =
    [("model.visual.", "vision tower"), ("visual.", "vision tower"), ("mtp.", "multi-token prediction head")];

/// Reads the configuration of a checkpoint.
///
/// # Errors
/// Another architecture, a missing key or a value out of range, each naming the key.
pub fn config(path: &Path, json: &Value) -> Result<Config, ModelError> {
    let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
    if !MODEL_TYPES.contains(&model_type) {
        return Err(ModelError::UnknownArchitecture {
            path: path.to_path_buf(),
            got: model_type.chars().take(80).collect(),
            known: "qwen3_5_moe and qwen3_5_moe_text",
        });
    }
    let root = Section::new(path, NAME, json);
    let text = root.section("text_config");
    let text = text.as_ref().unwrap_or(&root);
    let layers = text.layers()?;
    let num_experts = text.experts("num_experts", u64::MAX)?;
    let eps = text.positive("rms_norm_eps", 1e-6, 1.0)? as f32;
    Ok(Config {
        vocab_size: text.dim("vocab_size", None)?,
        hidden_size: text.dim("hidden_size", None)?,
        layer_types: text.layer_types(layers)?,
        attention: attention_shape(text, eps)?,
        attention_bias: text.flag("attention_bias", false)?,
        delta_net: delta_net_shape(text, eps)?,
        num_experts,
        num_experts_per_tok: text.experts("num_experts_per_tok", num_experts as u64)?,
        moe_intermediate_size: text.dim("moe_intermediate_size", None)?,
        shared_expert_intermediate_size: text.dim("shared_expert_intermediate_size", Some(512))?,
        rms_norm_eps: eps,
        // The published files carry the flag at the top level, text-only ones in the same (only) section.
        tie_word_embeddings: text.flag("tie_word_embeddings", root.flag("tie_word_embeddings", false)?)?,
        max_position_embeddings: text.dim("max_position_embeddings", Some(32_768))?,
        eos_token_ids: text.token_ids("eos_token_id")?,
        weight_form: text.weight_form()?,
    })
}

fn attention_shape(text: &Section<'_>, eps: f32) -> Result<AttentionShape, ModelError> {
    let heads = text.dim("num_attention_heads", None)?;
    let kv_heads = text.dim("num_key_value_heads", None)?;
    if heads % kv_heads != 0 {
        return Err(text.bad(
            "num_key_value_heads",
            kv_heads,
            format!("a divisor of num_attention_heads = {heads}"),
        ));
    }
    let head_dim = text.dim("head_dim", Some(256))?;
    // Newer files gather the rotary keys in one object, older ones have them at the top of the section.
    let rope = text.section("rope_parameters").or_else(|| text.section("rope_scaling"));
    let rope = rope.as_ref();
    if let Some(kind) = rope.and_then(|rope| rope.text("rope_type")).filter(|kind| *kind != "default") {
        return Err(text.bad("rope_type", kind, "default (scaled rotary embeddings are not supported yet)"));
    }
    let theta = text.positive("rope_theta", 1e7, 1e15)?;
    let theta = rope.map_or(Ok(theta), |rope| rope.positive("rope_theta", theta, 1e15))?;
    let factor = text.positive("partial_rotary_factor", 0.25, 1.0)?;
    let factor = rope.map_or(Ok(factor), |rope| rope.positive("partial_rotary_factor", factor, 1.0))?;
    let rotary_dim = (head_dim as f64 * factor) as usize;
    if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
        return Err(text.bad(
            "partial_rotary_factor",
            factor,
            "one that rotates an even number of dimensions",
        ));
    }
    Ok(AttentionShape { heads, kv_heads, head_dim, rotary_dim, rope_theta: theta as f32, eps })
}

fn delta_net_shape(text: &Section<'_>, eps: f32) -> Result<DeltaNetShape, ModelError> {
    let key_heads = text.dim("linear_num_key_heads", Some(16))?;
    let value_heads = text.dim("linear_num_value_heads", Some(32))?;
    if value_heads % key_heads != 0 {
        let expected = format!("a multiple of linear_num_key_heads = {key_heads}");
        return Err(text.bad("linear_num_value_heads", value_heads, expected));
    }
    Ok(DeltaNetShape {
        key_heads,
        value_heads,
        value_head_order: text.weight_form()?.value_head_order(),
        key_dim: text.dim("linear_key_head_dim", Some(128))?,
        value_dim: text.dim("linear_value_head_dim", Some(128))?,
        conv_kernel: text.count("linear_conv_kernel_dim", Some(4), 64)?,
        eps,
    })
}

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
/// # Errors
/// Missing tensors, unknown tensors, wrong shapes: each named.
pub fn layout(checkpoint: &Checkpoint, config: &Config) -> Result<Layout, ModelError> {
    let has = |prefix: &&&str| checkpoint.tensor(&format!("{prefix}embed_tokens.weight")).is_some();
    let prefix = PREFIXES.iter().find(has).copied().unwrap_or(PREFIXES[0]);
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
        None => ExpertTable {
            layers: (0..config.num_layers())
                .map(|layer| claims.layer_experts(prefix, layer, config))
                .collect(),
        },
    };
    let ignored = claims.finish()?;
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
        add(format!("{base}mlp.gate.weight"), &[config.num_experts, hidden], Tier::Router);
        let shared = config.shared_expert_intermediate_size;
        add(format!("{base}mlp.shared_expert.gate_proj.weight"), &[shared, hidden], Tier::Dense);
        add(format!("{base}mlp.shared_expert.up_proj.weight"), &[shared, hidden], Tier::Dense);
        add(format!("{base}mlp.shared_expert.down_proj.weight"), &[hidden, shared], Tier::Dense);
        add(format!("{base}mlp.shared_expert_gate.weight"), &[1, hidden], Tier::Router);
    }
    add(format!("{prefix}norm.weight"), &[hidden], Tier::Small);
    if !config.tie_word_embeddings {
        add("lm_head.weight".into(), &[vocab, hidden], Tier::Head);
    }
    list
}

fn attention_tensors(base: &str, config: &Config, add: &mut impl FnMut(String, &[usize], Tier)) {
    let AttentionShape { heads, kv_heads, head_dim, .. } = config.attention;
    let hidden = config.hidden_size;
    let projections = [
        ("q_proj", heads * 2 * head_dim, hidden),
        ("k_proj", kv_heads * head_dim, hidden),
        ("v_proj", kv_heads * head_dim, hidden),
        ("o_proj", hidden, heads * head_dim),
    ];
    for (name, rows, cols) in projections {
        add(format!("{base}self_attn.{name}.weight"), &[rows, cols], Tier::Dense);
        if config.attention_bias {
            add(format!("{base}self_attn.{name}.bias"), &[rows], Tier::Small);
        }
    }
    add(format!("{base}self_attn.q_norm.weight"), &[head_dim], Tier::Small);
    add(format!("{base}self_attn.k_norm.weight"), &[head_dim], Tier::Small);
}

fn delta_net_tensors(base: &str, config: &Config, add: &mut impl FnMut(String, &[usize], Tier)) {
    let shape = &config.delta_net;
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
                name: qwen35moe_gguf::shown_name(self.checkpoint, name),
                got: info.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        Some(info)
    }

    /// The experts of one layer, fused or one tensor each. An empty layer when tensors are missing.
    fn layer_experts(&mut self, prefix: &str, layer: usize, config: &Config) -> LayerExperts {
        let base = format!("{prefix}layers.{layer}.mlp.experts.");
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
    fn finish(self) -> Result<BTreeMap<&'static str, (usize, u64)>, ModelError> {
        let path = self.checkpoint.root().to_path_buf();
        if let Some(first) = self.missing.first() {
            let first = qwen35moe_gguf::shown_name(self.checkpoint, first);
            return Err(ModelError::MissingTensors { path, count: self.missing.len(), first });
        }
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let mut ignored = BTreeMap::new();
        let mut unknown = Vec::new();
        for (name, info) in self.open {
            match IGNORED.iter().find(|(prefix, _)| name.starts_with(prefix)) {
                Some((_, part)) => {
                    let entry: &mut (usize, u64) = ignored.entry(*part).or_default();
                    entry.0 += 1;
                    entry.1 += info.extent.bytes;
                }
                None => unknown.push(name.to_string()),
            }
        }
        match unknown.first().cloned() {
            Some(first) => {
                Err(ModelError::UnknownTensors { path, count: unknown.len(), first, architecture: NAME })
            }
            None => Ok(ignored),
        }
    }
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
    if table.layers.len() != config.num_layers() {
        return Err(wrong("experts (layers)".into(), vec![table.layers.len()], vec![config.num_layers()]));
    }
    let shapes = [[inner, hidden], [inner, hidden], [hidden, inner]];
    for (index, layer) in table.layers.iter().enumerate() {
        if layer.extents.len() != config.num_experts {
            let what = format!("experts of layer {index}");
            return Err(wrong(what, vec![layer.extents.len()], vec![config.num_experts]));
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

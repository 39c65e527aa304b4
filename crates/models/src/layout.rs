//! The tensors that a model must have, and those that a checkpoint has of them.
//!
//! The list of dense tensors follows from the specification alone, whatever the family; where the
//! routed experts lie follows from the container. Everything is checked here once, so that loading
//! and packing need not.

use std::collections::BTreeMap;

use checkpoint::{Checkpoint, ExpertPart, ExpertTable, Kind, LayerExperts, TensorInfo};
use ops::{AttentionShape, DeltaNetShape};

use crate::ModelError;
use crate::families::shown_name;
pub use crate::names::PUBLISHED_PREFIX;
use crate::names::{POST_NORM, ROPE_FACTORS, ROUTER, ROUTER_BIAS, ROUTER_CORRECTION, TEXT_PREFIX};
use crate::spec::{AttentionSpec, FeedSpec, MixerSpec, ModelSpec, MoeSpec, RopeFactors};

/// Tensors that belong to parts that the text model does not use, by the beginning of their names.
const IGNORED: [(&str, &str); 3] =
    [("model.visual.", "vision tower"), ("visual.", "vision tower"), ("mtp.", "multi-token prediction head")];
/// Frequencies that old checkpoints store and that the configuration says anyway.
const IGNORED_SUFFIX: &str = ".rotary_emb.inv_freq";
/// Name of that part.
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

/// The part of a model that a dense tensor belongs to.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Token embedding table.
    Embedding,
    /// Output head.
    Head,
    /// Token mixer of a layer.
    Mixer,
    /// Router of a layer with experts.
    Router,
    /// Shared expert and its gate: computed for every token while routed experts are being read.
    SharedExpert,
    /// MLP of a layer without experts.
    Mlp,
    /// Norms, and what all layers share.
    Norm,
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
    /// The part of the model that it belongs to.
    pub role: Role,
    /// The layer that it belongs to, if any.
    pub layer: Option<usize>,
}

/// The tensors of a checkpoint, sorted into those that the text model uses and those that it ignores.
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

/// Checks every tensor of a checkpoint against the specification.
///
/// Layers without routed experts have none in the table; a model without any has no layers there.
///
/// # Errors
/// Missing tensors, unknown tensors, wrong shapes: each named.
pub fn layout(checkpoint: &Checkpoint, spec: &ModelSpec) -> Result<Layout, ModelError> {
    let published = checkpoint.tensors().any(|tensor| tensor.name.starts_with(PUBLISHED_PREFIX));
    let prefix = if published { PUBLISHED_PREFIX } else { TEXT_PREFIX };
    let dense = dense_tensors(prefix, spec);
    let mut claims = Claims::new(checkpoint);
    for expected in &dense {
        claims.claim(&expected.name, &expected.shape);
    }
    if spec.tie_word_embeddings {
        claims.tolerate("lm_head.weight");
    }
    let experts = match checkpoint.packed() {
        Some(packed) => padded(packed.table.clone(), spec),
        None if spec.moe_layers() == 0 => ExpertTable { layers: Vec::new() },
        None => ExpertTable {
            layers: (0..spec.num_layers()).map(|layer| claims.layer_experts(prefix, layer, spec)).collect(),
        },
    };
    let ignored = claims.finish(spec.family)?;
    check_table(checkpoint, &experts, spec)?;
    Ok(Layout { prefix, dense, experts, ignored })
}

/// A container lists layers up to the last that has experts; the table has all, where there are
/// any.
fn padded(mut table: ExpertTable, spec: &ModelSpec) -> ExpertTable {
    while !table.layers.is_empty() && table.layers.len() < spec.num_layers() {
        table.layers.push(LayerExperts::none());
    }
    table
}

/// Every dense tensor of a published checkpoint with this specification, in model order.
pub fn published_dense(spec: &ModelSpec) -> Vec<Expected> {
    dense_tensors(PUBLISHED_PREFIX, spec)
}

/// Every dense tensor of the text model, in model order.
pub(crate) fn dense_tensors(prefix: &str, spec: &ModelSpec) -> Vec<Expected> {
    let (hidden, vocab) = (spec.hidden_size, spec.vocab_size);
    let mut list = List { tensors: Vec::new(), role: Role::Embedding, layer: None };
    list.add(format!("{prefix}embed_tokens.weight"), &[vocab, hidden], Tier::Embedding);
    for (index, layer) in spec.layers.iter().enumerate() {
        let base = format!("{prefix}layers.{index}.");
        list.layer = Some(index);
        list.of(Role::Norm).add(format!("{base}input_layernorm.weight"), &[hidden], Tier::Small);
        match &layer.mixer {
            MixerSpec::Attention(attention) => list.of(Role::Mixer).attention(&base, hidden, attention),
            MixerSpec::DeltaNet(shape) => list.of(Role::Mixer).delta_net(&base, hidden, shape),
        }
        list.of(Role::Norm).add(format!("{base}{POST_NORM}"), &[hidden], Tier::Small);
        match &layer.feed {
            FeedSpec::Moe(moe) => list.moe(&base, hidden, moe),
            FeedSpec::Dense(mlp) => list.of(Role::Mlp).mlp(&format!("{base}mlp."), hidden, mlp.inner),
        }
    }
    list.layer = None;
    list.role = Role::Norm;
    if let (RopeFactors::Stored, Some(attention)) = (&spec.rope_factors, spec.attention().next()) {
        list.add(ROPE_FACTORS.into(), &[attention.shape.rotary_dim / 2], Tier::Small);
    }
    list.add(format!("{prefix}norm.weight"), &[hidden], Tier::Small);
    if !spec.tie_word_embeddings {
        list.of(Role::Head).add("lm_head.weight".into(), &[vocab, hidden], Tier::Head);
    }
    list.tensors
}

/// A list of tensors that grows part by part.
struct List {
    tensors: Vec<Expected>,
    /// Of those that are added.
    role: Role,
    layer: Option<usize>,
}

impl List {
    /// Tensors that are added from now on are of this role.
    fn of(&mut self, role: Role) -> &mut Self {
        self.role = role;
        self
    }

    fn add(&mut self, name: String, shape: &[usize], tier: Tier) {
        let Self { role, layer, .. } = *self;
        self.tensors.push(Expected { name, shape: shape.to_vec(), tier, role, layer });
    }

    /// Router and shared expert; the routed experts are in the [`ExpertTable`].
    fn moe(&mut self, base: &str, hidden: usize, moe: &MoeSpec) {
        self.of(Role::Router).add(format!("{base}{ROUTER}"), &[moe.experts, hidden], Tier::Router);
        if moe.router.bias {
            self.add(format!("{base}{ROUTER_BIAS}"), &[moe.experts], Tier::Small);
        }
        if moe.router.correction {
            self.add(format!("{base}{ROUTER_CORRECTION}"), &[moe.experts], Tier::Small);
        }
        let Some(shared) = &moe.shared else { return };
        self.of(Role::SharedExpert).mlp(&format!("{base}mlp.shared_expert."), hidden, shared.inner);
        if shared.gate {
            self.add(format!("{base}mlp.shared_expert_gate.weight"), &[1, hidden], Tier::Router);
        }
    }

    fn mlp(&mut self, base: &str, hidden: usize, inner: usize) {
        self.add(format!("{base}gate_proj.weight"), &[inner, hidden], Tier::Dense);
        self.add(format!("{base}up_proj.weight"), &[inner, hidden], Tier::Dense);
        self.add(format!("{base}down_proj.weight"), &[hidden, inner], Tier::Dense);
    }

    fn attention(&mut self, base: &str, hidden: usize, attention: &AttentionSpec) {
        let AttentionShape { heads, kv_heads, head_dim, .. } = attention.shape;
        let bias = attention.bias;
        let projections = [
            ("q_proj", heads * attention.shape.query_len(), hidden, bias.qkv),
            ("k_proj", kv_heads * head_dim, hidden, bias.qkv),
            ("v_proj", kv_heads * head_dim, hidden, bias.qkv),
            ("o_proj", hidden, heads * head_dim, bias.output),
        ];
        for (name, rows, cols, bias) in projections {
            self.add(format!("{base}self_attn.{name}.weight"), &[rows, cols], Tier::Dense);
            if bias {
                self.add(format!("{base}self_attn.{name}.bias"), &[rows], Tier::Small);
            }
        }
        if attention.qk_norm {
            self.add(format!("{base}self_attn.q_norm.weight"), &[head_dim], Tier::Small);
            self.add(format!("{base}self_attn.k_norm.weight"), &[head_dim], Tier::Small);
        }
    }

    fn delta_net(&mut self, base: &str, hidden: usize, shape: &DeltaNetShape) {
        let (values, channels) = (shape.value_len(), shape.conv_channels());
        let base = format!("{base}linear_attn.");
        self.add(format!("{base}in_proj_qkv.weight"), &[channels, hidden], Tier::Dense);
        self.add(format!("{base}in_proj_z.weight"), &[values, hidden], Tier::Dense);
        self.add(format!("{base}in_proj_b.weight"), &[shape.value_heads, hidden], Tier::Router);
        self.add(format!("{base}in_proj_a.weight"), &[shape.value_heads, hidden], Tier::Router);
        self.add(format!("{base}conv1d.weight"), &[channels, 1, shape.conv_kernel], Tier::Small);
        self.add(format!("{base}A_log"), &[shape.value_heads], Tier::Small);
        self.add(format!("{base}dt_bias"), &[shape.value_heads], Tier::Small);
        self.add(format!("{base}norm.weight"), &[shape.value_dim], Tier::Small);
        self.add(format!("{base}out_proj.weight"), &[hidden, values], Tier::Dense);
    }
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

    /// Accounts for one tensor; what is wrong is kept for [`Claims::finish`], so that missing
    /// tensors are counted whole.
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

    /// The experts of one layer, fused or one tensor each. An empty layer when tensors are missing,
    /// or when it has none.
    fn layer_experts(&mut self, prefix: &str, layer: usize, spec: &ModelSpec) -> LayerExperts {
        let base = format!("{prefix}layers.{layer}.mlp.experts.");
        let Some(moe) = spec.layers[layer].moe() else { return LayerExperts::none() };
        let size = ExpertSize { count: moe.experts, hidden: spec.hidden_size, inner: moe.expert.inner };
        let is_there = |name: &str| self.open.contains_key(format!("{base}{name}").as_str());
        // Of a GGUF file without any experts it is the stacked ones that are missed.
        let single = self.checkpoint.kind() != Kind::Gguf || is_there("0.down_proj.weight");
        let found = match (is_there("gate_up_proj"), single) {
            (true, _) => self.fused_experts(&base, size),
            (false, false) => self.stacked_experts(&base, size),
            (false, true) => self.single_experts(&base, size),
        };
        found.unwrap_or_else(LayerExperts::none)
    }

    /// `gate_up_proj` [E, 2F, H] (gate rows, then up rows) and `down_proj` [E, H, F]: two extents
    /// an expert.
    fn fused_experts(&mut self, base: &str, size: ExpertSize) -> Option<LayerExperts> {
        let ExpertSize { count, hidden, inner } = size;
        let gate_up = self.claim(&format!("{base}gate_up_proj"), &[count, 2 * inner, hidden]);
        let down = self.claim(&format!("{base}down_proj"), &[count, hidden, inner]);
        let (gate_up, down) = (gate_up?, down?);
        let slice = |info, expert| expert_slice(info, expert, count);
        Some(LayerExperts {
            parts: size.parts([gate_up.format, gate_up.format, down.format], true),
            extents: (0..count).map(|expert| vec![slice(gate_up, expert), slice(down, expert)]).collect(),
            checksums: None,
        })
    }

    /// `gate_proj`, `up_proj` [E, F, H] and `down_proj` [E, H, F], as GGUF has them: three extents
    /// an expert.
    fn stacked_experts(&mut self, base: &str, size: ExpertSize) -> Option<LayerExperts> {
        let ExpertSize { count, hidden, inner } = size;
        let gate = self.claim(&format!("{base}gate_proj"), &[count, inner, hidden]);
        let up = self.claim(&format!("{base}up_proj"), &[count, inner, hidden]);
        let down = self.claim(&format!("{base}down_proj"), &[count, hidden, inner]);
        let stacks = [gate?, up?, down?];
        let slices = |expert| stacks.iter().map(|info| expert_slice(info, expert, count)).collect();
        Some(LayerExperts {
            parts: size.parts(stacks.map(|info| info.format), false),
            extents: (0..count).map(slices).collect(),
            checksums: None,
        })
    }

    /// `E.{gate,up,down}_proj.weight`: three extents an expert.
    fn single_experts(&mut self, base: &str, size: ExpertSize) -> Option<LayerExperts> {
        let ExpertSize { count, hidden, inner } = size;
        let mut extents = Vec::with_capacity(count);
        let mut formats = None;
        for expert in 0..count {
            let mut claim =
                |name: &str, shape: [usize; 2]| self.claim(&format!("{base}{expert}.{name}.weight"), &shape);
            let gate = claim("gate_proj", [inner, hidden]);
            let up = claim("up_proj", [inner, hidden]);
            let down = claim("down_proj", [hidden, inner]);
            let (Some(gate), Some(up), Some(down)) = (gate, up, down) else { continue };
            formats.get_or_insert([gate.format, up.format, down.format]);
            extents.push(vec![gate.extent, up.extent, down.extent]);
        }
        Some(LayerExperts { parts: size.parts(formats?, false), extents, checksums: None })
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

/// Experts of one layer in numbers.
#[derive(Copy, Clone)]
struct ExpertSize {
    count: usize,
    hidden: usize,
    inner: usize,
}

impl ExpertSize {
    fn parts(self, formats: [tensor::Format; 3], fused: bool) -> [ExpertPart; 3] {
        let Self { hidden, inner, .. } = self;
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
}

/// A packed container's table must be this specification's; others are by construction.
fn check_table(checkpoint: &Checkpoint, table: &ExpertTable, spec: &ModelSpec) -> Result<(), ModelError> {
    let wrong = |what: String, got: Vec<usize>, expected: Vec<usize>| ModelError::WrongShape {
        path: checkpoint.root().to_path_buf(),
        name: what,
        got,
        expected,
    };
    let layers = if spec.moe_layers() == 0 { 0 } else { spec.num_layers() };
    if table.layers.len() != layers {
        return Err(wrong("experts (layers)".into(), vec![table.layers.len()], vec![layers]));
    }
    for (index, (found, layer)) in table.layers.iter().zip(&spec.layers).enumerate() {
        let experts = layer.moe().map_or(0, |moe| moe.experts);
        if found.extents.len() != experts {
            return Err(wrong(format!("experts of layer {index}"), vec![found.extents.len()], vec![experts]));
        }
        let Some(moe) = layer.moe() else { continue };
        let (hidden, inner) = (spec.hidden_size, moe.expert.inner);
        let shapes = [[inner, hidden], [inner, hidden], [hidden, inner]];
        for (part, (shape, name)) in found.parts.iter().zip(shapes.iter().zip(["gate", "up", "down"])) {
            if [part.rows, part.cols] != *shape {
                let what = format!("layer {index} experts.{name}_proj");
                return Err(wrong(what, vec![part.rows, part.cols], shape.to_vec()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ops::{AttentionShape, RopePairing};

    use super::*;
    use crate::spec::{
        AttentionBias, LayerSpec, MlpSpec, NormSpec, RouterSpec, Score, SharedSpec, WeightForm,
    };

    fn model(layers: Vec<FeedSpec>) -> ModelSpec {
        let shape = AttentionShape {
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            rotary_dim: 4,
            rope_theta: 1e4,
            pairing: RopePairing::Halves,
            gated: false,
            eps: 1e-6,
        };
        let bias = AttentionBias { qkv: true, output: false };
        let mixer = MixerSpec::Attention(AttentionSpec { shape, qk_norm: false, bias });
        ModelSpec {
            family: "test",
            vocab_size: 16,
            hidden_size: 8,
            layers: layers.into_iter().map(|feed| LayerSpec { mixer: mixer.clone(), feed }).collect(),
            norm: NormSpec { eps: 1e-6, offset: 0.0 },
            rope_factors: RopeFactors::Stored,
            tie_word_embeddings: true,
            max_position_embeddings: 64,
            eos_token_ids: Vec::new(),
            weight_form: WeightForm::HuggingFace,
        }
    }

    #[test]
    fn every_layer_has_the_tensors_of_its_own_parts() {
        let router =
            RouterSpec { score: Score::Sigmoid, bias: true, correction: true, ..RouterSpec::SOFTMAX };
        let shared = Some(SharedSpec { inner: 6, gate: false });
        let moe = MoeSpec { experts: 4, per_token: 2, expert: MlpSpec { inner: 3 }, router, shared };
        let spec = model(vec![FeedSpec::Dense(MlpSpec { inner: 12 }), FeedSpec::Moe(moe)]);
        let tensors = dense_tensors(TEXT_PREFIX, &spec);
        let found =
            |name: &str| tensors.iter().find(|tensor| tensor.name == name).map(|t| (&t.shape[..], t.tier));
        let small = |len: &'static [usize]| Some((len, Tier::Small));
        assert_eq!(found("model.layers.0.mlp.up_proj.weight"), Some((&[12, 8][..], Tier::Dense)));
        assert_eq!(found("model.layers.0.mlp.gate.weight"), None);
        assert_eq!(found("model.layers.1.mlp.gate.weight"), Some((&[4, 8][..], Tier::Router)));
        assert_eq!(found("model.layers.1.mlp.gate.bias"), small(&[4]));
        assert_eq!(found("model.layers.1.mlp.gate.e_score_correction_bias"), small(&[4]));
        assert_eq!(
            found("model.layers.1.mlp.shared_expert.down_proj.weight"),
            Some((&[8, 6][..], Tier::Dense))
        );
        assert_eq!(found("model.layers.1.mlp.shared_expert_gate.weight"), None);
        assert_eq!(found("model.layers.1.mlp.up_proj.weight"), None);
        assert_eq!(found("model.layers.1.self_attn.v_proj.bias"), small(&[4]));
        assert_eq!(found("model.layers.1.self_attn.o_proj.bias"), None);
        assert_eq!(found(ROPE_FACTORS), small(&[2]));
        assert_eq!(found("lm_head.weight"), None);
    }
}

//! Tensor names: our own, which are those that Hugging Face directories use most, and tables of
//! others' for the same tensors.
//!
//! A table is a list of pairs, theirs and ours, of names as they stand behind a layer's number. `*`
//! stands for a number, the same in both.

/// Prefix of the text model in published multi-modal layouts.
pub const PUBLISHED_PREFIX: &str = "model.language_model.";
/// Prefix of text-only layouts, and of GGUF files once they are adopted.
pub(crate) const TEXT_PREFIX: &str = "model.";
/// Divisors of the rotary frequencies, where the checkpoint stores them: as in GGUF files.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// The norm before the position-wise part.
pub(crate) const POST_NORM: &str = "post_attention_layernorm.weight";
/// The router's matrix.
pub(crate) const ROUTER: &str = "mlp.gate.weight";
/// Added to the router's logits.
pub(crate) const ROUTER_BIAS: &str = "mlp.gate.bias";
/// Added to the router's scores for the choice alone.
pub(crate) const ROUTER_CORRECTION: &str = "mlp.gate.e_score_correction_bias";

/// Pairs of names for the same tensors: theirs, ours.
pub(crate) type Names = [(&'static str, &'static str)];

/// Our name for what `table` knows as `name`.
pub(crate) fn ours(table: &Names, name: &str) -> Option<String> {
    table.iter().find_map(|(theirs, ours)| translated(theirs, ours, name))
}

/// Their name for our `name`.
pub(crate) fn theirs(table: &Names, name: &str) -> Option<String> {
    table.iter().find_map(|(theirs, ours)| translated(ours, theirs, name))
}

/// `name`, which has the form `from`, in the form `to`; `None` if it has another form.
fn translated(from: &str, to: &str, name: &str) -> Option<String> {
    let Some((before, after)) = from.split_once('*') else {
        return (from == name).then(|| to.to_string());
    };
    let number = name.strip_prefix(before)?.strip_suffix(after)?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| to.replacen('*', number, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &Names =
        &[("ffn_up.*.weight", "mlp.experts.*.up_proj.weight"), ("ssm_a", "linear_attn.A_log")];

    #[test]
    fn names_go_there_and_back() {
        assert_eq!(ours(TABLE, "ssm_a").as_deref(), Some("linear_attn.A_log"));
        assert_eq!(theirs(TABLE, "linear_attn.A_log").as_deref(), Some("ssm_a"));
        let one = ("ffn_up.17.weight", "mlp.experts.17.up_proj.weight");
        assert_eq!(ours(TABLE, one.0).as_deref(), Some(one.1));
        assert_eq!(theirs(TABLE, one.1).as_deref(), Some(one.0));
    }

    #[test]
    fn other_names_are_left_to_others() {
        for name in
            ["ffn_up..weight", "ffn_up.x.weight", "ffn_up.weight", "ffn_up.1.bias", "ssm_a.weight", ""]
        {
            assert_eq!(ours(TABLE, name), None, "{name}");
        }
    }
}

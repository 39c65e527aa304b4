//! One timeline of tokens in a loaded model.

use std::any::Any;

/// What a sequence has seen, and the state that it left behind.
///
/// The caller always hands in the whole token prefix ([`crate::Engine::sync`]); whether to extend the state or to rebuild it
/// is decided in one place, because a recurrent state cannot be rewound as a key/value cache can.
pub struct Session {
    pub(crate) state: Box<dyn Any>,
    /// Tokens that the state has seen.
    pub(crate) tokens: Vec<u32>,
    /// Logits after the last of them, [V].
    pub(crate) logits: Vec<f32>,
    pub(crate) ctx: usize,
    /// A step failed halfway: layers disagree about how much they have seen.
    pub(crate) broken: bool,
}

/// How a state gets to a wanted prefix.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Compute tokens from this position on.
    Extend(usize),
    /// Start over.
    Rebuild,
    /// It is there, with the logits.
    Ready,
}

impl Session {
    /// Tokens seen so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Most tokens that it can hold.
    pub fn ctx(&self) -> usize {
        self.ctx
    }

    /// Logits after the last token, [V]; empty before the first.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    pub(crate) fn reuse(&self, prefix: &[u32]) -> Reuse {
        reuse(&self.tokens, self.broken, prefix)
    }
}

fn reuse(seen: &[u32], broken: bool, prefix: &[u32]) -> Reuse {
    match seen.len() {
        _ if broken => Reuse::Rebuild,
        0 => Reuse::Extend(0),
        len if prefix == seen => {
            debug_assert!(len > 0);
            Reuse::Ready
        }
        len if prefix.starts_with(seen) => Reuse::Extend(len),
        _ => Reuse::Rebuild,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_extended_rebuilt_or_ready() {
        assert_eq!(reuse(&[], false, &[1, 2]), Reuse::Extend(0));
        assert_eq!(reuse(&[1], false, &[1, 2]), Reuse::Extend(1));
        assert_eq!(reuse(&[1, 2], false, &[1, 2]), Reuse::Ready);
        assert_eq!(reuse(&[1, 3], false, &[1, 2]), Reuse::Rebuild);
        assert_eq!(reuse(&[1, 2, 3], false, &[1, 2]), Reuse::Rebuild);
        assert_eq!(reuse(&[1], true, &[1, 2]), Reuse::Rebuild);
    }
}

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
    /// Whether the state can go back to an earlier token.
    pub(crate) can_rewind: bool,
}

/// Which positions of a chunk the caller wants logits of.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: a chunk of a prompt that is not its last.
    None,
    /// The last position only.
    Last,
    /// Every position.
    All,
}

/// How a state gets to a wanted prefix.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Compute tokens from this position on, which may be before the last one seen.
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
        reuse(&self.tokens, (self.broken, self.can_rewind), prefix)
    }
}

fn reuse(seen: &[u32], (broken, can_rewind): (bool, bool), prefix: &[u32]) -> Reuse {
    if can_rewind && (broken || prefix != seen) {
        // What a step that failed wrote lies behind the tokens seen. The last token is computed for its logits.
        let common = seen.iter().zip(prefix).take_while(|(a, b)| a == b).count();
        return Reuse::Extend(common.min(prefix.len().saturating_sub(1)));
    }
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
        let whole = |seen: &[u32], broken| reuse(seen, (broken, false), &[1, 2]);
        assert_eq!(whole(&[], false), Reuse::Extend(0));
        assert_eq!(whole(&[1], false), Reuse::Extend(1));
        assert_eq!(whole(&[1, 2], false), Reuse::Ready);
        assert_eq!(whole(&[1, 3], false), Reuse::Rebuild);
        assert_eq!(whole(&[1, 2, 3], false), Reuse::Rebuild);
        assert_eq!(whole(&[1], true), Reuse::Rebuild);
    }

    #[test]
    fn what_can_be_rewound_goes_back_to_the_first_difference() {
        let back = |seen: &[u32], broken| reuse(seen, (broken, true), &[1, 2, 3]);
        assert_eq!(back(&[], false), Reuse::Extend(0));
        assert_eq!(back(&[1, 2], false), Reuse::Extend(2));
        assert_eq!(back(&[1, 2, 3], false), Reuse::Ready);
        assert_eq!(back(&[1, 2, 3], true), Reuse::Extend(2));
        assert_eq!(back(&[1, 2, 3, 4], false), Reuse::Extend(2));
        assert_eq!(back(&[1, 9, 3, 4], false), Reuse::Extend(1));
        assert_eq!(back(&[1, 2], true), Reuse::Extend(2));
    }
}

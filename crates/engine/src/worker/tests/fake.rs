//! A runtime whose logits say everything that a model's could depend on: the tokens of each page,
//! the recurrent state, and the layers that each row went through.

use experts::{LookaheadStats, StoreStats};
use models::{Failures, ModelError, Phases, Step};
use ops::{PAGE_TOKENS, Rows};
use storage::{AlignedBuf, SplitMix64};

use crate::runtime::Runtime;

pub(super) const LAYERS: usize = 3;
pub(super) const VOCAB: usize = 32;

/// What goes wrong, per mille of the entries and of the passes.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) seed: u64,
    pub(super) entries: u64,
    pub(super) passes: u64,
}

pub(super) struct Fake {
    recurrent: bool,
    pass_max: usize,
    /// `[layer][page][token]`
    keys: Vec<Vec<Vec<u64>>>,
    /// `[layer][slot]`
    states: Vec<Vec<u64>>,
    /// Tokens and streams of a prompt part between two passes, and its next layer.
    parked: Option<(Vec<u32>, Vec<u64>, usize)>,
    faults: Faults,
    random: SplitMix64,
    stats: StoreStats,
    lookahead: LookaheadStats,
    /// Decoding rows and prompt rows times layers of each pass.
    pub(super) passes: std::sync::Arc<std::sync::Mutex<Vec<(usize, usize)>>>,
    /// Called before each pass.
    pub(super) before: Option<Box<dyn FnMut() + Send>>,
    /// What every logit is instead, after a token.
    pub(super) poison: Option<(u32, f32)>,
}

fn mix(a: u64, b: u64) -> u64 {
    SplitMix64::new(a.rotate_left(17) ^ b).next_u64()
}

impl Fake {
    pub(super) fn new(pages: usize, slots: usize, pass_max: usize, faults: Faults) -> Self {
        Self {
            recurrent: slots > 0,
            pass_max,
            keys: vec![vec![vec![0; PAGE_TOKENS]; pages]; LAYERS],
            states: vec![vec![99; slots]; LAYERS],
            parked: None,
            faults,
            random: SplitMix64::new(faults.seed),
            stats: StoreStats::default(),
            lookahead: LookaheadStats::default(),
            passes: Default::default(),
            before: None,
            poison: None,
        }
    }

    /// One layer over the rows of one entry.
    fn layer(&mut self, layer: usize, rows: &Rows, pages: &[u32], x: &mut [u64]) {
        let pages = &pages[rows.pages.0 as usize..][..rows.pages.1 as usize];
        assert_eq!(pages.len(), (rows.pos() + rows.len()).div_ceil(PAGE_TOKENS));
        for row in 0..rows.len() {
            let (pos, x) = (rows.pos() + row, &mut x[rows.first() + row]);
            self.keys[layer][pages[pos / PAGE_TOKENS] as usize][pos % PAGE_TOKENS] = *x;
            let seen = (0..=pos).map(|p| self.keys[layer][pages[p / PAGE_TOKENS] as usize][p % PAGE_TOKENS]);
            *x = mix(seen.fold(*x, mix), layer as u64);
            if self.recurrent {
                let state = &mut self.states[layer][rows.state()];
                *state = mix(*state, *x);
                *x = mix(*x, *state);
            }
        }
        if let Some(keep) = rows.keep {
            self.states[layer][keep as usize] = self.states[layer][rows.state()];
        }
    }

    fn unlucky(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.random.below(1000) < per_mille
    }

    /// The streams of all rows, in layer 0 or from where the part was parked.
    fn enter(&mut self, step: &Step<'_>) -> Vec<u64> {
        let mut x: Vec<u64> = step.tokens.iter().map(|token| u64::from(*token)).collect();
        if let Some(prompt) = &step.prompt {
            match self.parked.take() {
                _ if prompt.layers.start == 0 => {
                    x.extend(prompt.tokens.iter().map(|token| u64::from(*token)))
                }
                Some((tokens, parked, layer)) => {
                    assert_eq!((&tokens[..], layer), (prompt.tokens, prompt.layers.start));
                    x.extend(parked);
                }
                None => panic!("nothing is parked"),
            }
        }
        x
    }

    fn logits(&self, step: &Step<'_>, x: &[u64], sink: &mut dyn FnMut(u32, &[f32])) {
        assert!(step.wanted.is_sorted_by(|a, b| a < b));
        for &row in step.wanted {
            let all = || step.tokens.iter().chain(step.prompt.iter().flat_map(|prompt| prompt.tokens));
            let poison = self.poison.filter(|(token, _)| all().nth(row as usize) == Some(token));
            let one = |id: usize| (mix(x[row as usize], id as u64) % 1000) as f32 / 100.0;
            let logits: Vec<f32> = (0..VOCAB).map(|id| poison.map_or(one(id), |(_, value)| value)).collect();
            sink(row, &logits);
        }
    }
}

impl Runtime for Fake {
    fn forward(
        &mut self,
        step: &Step<'_>,
        cancel: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(u32, &[f32]),
    ) -> Result<Failures, ModelError> {
        if let Some(before) = &mut self.before {
            before();
        }
        let prompt_rows = step.prompt.as_ref().map_or(&[][..], |prompt| prompt.rows);
        let layers = step.prompt.as_ref().map_or(0..0, |prompt| prompt.layers.clone());
        let mut x = self.enter(step);
        assert!(x.len() <= self.pass_max && !x.is_empty());
        self.passes.lock().unwrap().push((step.tokens.len(), (x.len() - step.tokens.len()) * layers.len()));
        let entries: Vec<Rows> = step.rows.iter().chain(prompt_rows).copied().collect();
        let ends: Vec<usize> = entries.iter().map(Rows::end).collect();
        assert_eq!(ends.last(), Some(&x.len()));
        assert!(entries.iter().skip(1).zip(&ends).all(|(rows, end)| rows.first() == *end));
        let mut failures = Failures::default();
        for layer in 0..LAYERS {
            let here = layers.contains(&layer);
            if (!step.rows.is_empty() || here) && cancel() {
                return Err(ModelError::Cancelled);
            }
            for (index, rows) in entries.iter().enumerate() {
                if index >= step.rows.len() && !here {
                    continue;
                }
                self.layer(layer, rows, step.pages, &mut x);
                if self.unlucky(self.faults.entries) {
                    failures.add(index, ModelError::RouterNotFinite { layer });
                    x[rows.first()] ^= 1;
                }
            }
        }
        if self.unlucky(self.faults.passes) {
            return Err(ModelError::RouterNotFinite { layer: LAYERS });
        }
        self.parked = step
            .prompt
            .as_ref()
            .filter(|_| layers.end < LAYERS)
            .map(|prompt| (prompt.tokens.to_vec(), x[step.tokens.len()..].to_vec(), layers.end));
        self.logits(step, &x, sink);
        Ok(failures)
    }

    fn clear_state(&mut self, slot: u32) {
        self.states.iter_mut().for_each(|states| states[slot as usize] = 0);
    }

    fn copy_state(&mut self, from: u32, to: u32) {
        self.states.iter_mut().for_each(|states| states[to as usize] = states[from as usize]);
    }

    fn copy_page(&mut self, from: u32, to: u32, tokens: u32) {
        for pages in &mut self.keys {
            let from = pages[from as usize][..tokens as usize].to_vec();
            pages[to as usize][..tokens as usize].copy_from_slice(&from);
        }
    }

    fn save_page(&mut self, page: u32, out: &mut Vec<u8>) -> Result<(), ModelError> {
        let keys = self.keys.iter().flat_map(|pages| &pages[page as usize]);
        keys.for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
        Ok(())
    }

    fn load_page(&mut self, page: u32, bytes: &[u8]) -> Result<(), ModelError> {
        let expected = LAYERS * PAGE_TOKENS * 8;
        if bytes.len() != expected {
            return Err(ModelError::StateLength { what: "page", expected, got: bytes.len() });
        }
        let mut keys = bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        for pages in &mut self.keys {
            pages[page as usize].iter_mut().zip(&mut keys).for_each(|(key, new)| *key = new);
        }
        Ok(())
    }

    fn save_state(&mut self, slot: u32, out: &mut Vec<u8>) -> Result<(), ModelError> {
        self.states.iter().for_each(|states| out.extend_from_slice(&states[slot as usize].to_le_bytes()));
        Ok(())
    }

    fn load_state(&mut self, slot: u32, bytes: &[u8]) -> Result<(), ModelError> {
        let expected = LAYERS * 8;
        if bytes.len() != expected {
            return Err(ModelError::StateLength { what: "state", expected, got: bytes.len() });
        }
        let new = bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        self.states.iter_mut().zip(new).for_each(|(states, new)| states[slot as usize] = new);
        Ok(())
    }

    fn store_stats(&self) -> &StoreStats {
        &self.stats
    }

    fn lookahead_stats(&self) -> &LookaheadStats {
        &self.lookahead
    }

    fn phases(&self) -> Phases {
        Phases::default()
    }

    fn preload(&mut self, _: &dyn Fn() -> bool) -> Result<usize, ModelError> {
        Ok(0)
    }

    fn resize_slots(&mut self, slots: usize) -> Result<usize, ModelError> {
        Ok(slots)
    }

    fn flush_trace(&mut self) -> Result<(), ModelError> {
        Ok(())
    }

    fn lend_buffers(&mut self, _: usize, _: &mut dyn FnMut(&mut Vec<AlignedBuf>)) -> Result<(), ModelError> {
        Ok(())
    }
}

//! Which token rows of a pass belong to which sequence, and where their state lies.

/// Tokens of one page of a key/value pool. Attention computes one partial softmax for each page.
pub const PAGE_TOKENS: usize = 128;

/// Tokens of one block of the chunked gated delta rule; blocks begin at multiples of it.
pub const DELTA_BLOCK_TOKENS: usize = 64;

/// What a row belongs to.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A prompt: all its rows are known in advance.
    Prefill,
    /// Generation: each row depends on the one before it.
    Decode,
}

/// Consecutive token rows of one sequence in a pass.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Its first row in the batch.
    pub first: u32,
    /// Number of rows, at least 1.
    pub len: u32,
    /// Position of the first row in the sequence.
    pub pos: u32,
    /// Prompt or generation.
    pub phase: Phase,
    /// Whether the gated delta rule takes [`DELTA_BLOCK_TOKENS`] tokens at a time, cut at multiples of
    /// that many positions. Otherwise it goes token by token. The two forms round differently, so a
    /// sequence's form must not depend on its company.
    pub chunked: bool,
    /// Slot of the sequence in the pools of recurrent states.
    pub state: u32,
    /// Slot that takes a copy of the recurrent state after the last row: a place to go back to. A prompt is cut into several
    /// entries where its state is kept, and still goes through the layers at once.
    pub keep: Option<u32>,
    /// First of the sequence's page numbers in [`Batch::pages`], and how many there are: one for each
    /// [`PAGE_TOKENS`] positions up to the last row's.
    pub pages: (u32, u32),
}

impl Rows {
    /// First row, as an index.
    pub fn first(&self) -> usize {
        self.first as usize
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none, which no op allows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Position of the first row.
    pub fn pos(&self) -> usize {
        self.pos as usize
    }

    /// Slot of the recurrent state.
    pub fn state(&self) -> usize {
        self.state as usize
    }

    /// The row behind the last.
    pub fn end(&self) -> usize {
        self.first() + self.len()
    }
}

/// The token rows of one pass, or of some layers of it: rows `0 .. n`, each in one entry of `rows`.
#[derive(Copy, Clone, Debug)]
pub struct Batch<'a> {
    /// Token rows.
    pub n: usize,
    /// The sequences that they belong to, in the order of their rows and without gaps.
    pub rows: &'a [Rows],
    /// Page numbers of all sequences. A page has one number in the pools of all layers.
    pub pages: &'a [u32],
}

impl<'a> Batch<'a> {
    /// The pages of a sequence, in the order of its positions.
    pub fn pages_of(&self, rows: &Rows) -> &'a [u32] {
        let (first, count) = (rows.pages.0 as usize, rows.pages.1 as usize);
        &self.pages[first..first + count]
    }

    /// Rows that decode, before the first row of a prompt.
    pub fn decoding(&self) -> usize {
        let decoding = self.rows.iter().take_while(|rows| rows.phase == Phase::Decode);
        decoding.map(|rows| rows.len as usize).sum()
    }

    /// [`Phase::Prefill`] if any row is of a prompt.
    pub fn phase(&self) -> Phase {
        match self.rows.iter().any(|rows| rows.phase == Phase::Prefill) {
            true => Phase::Prefill,
            false => Phase::Decode,
        }
    }
}

/// The parts of positions `pos .. pos + len` that lie in one page each: (row from the first, index of the page in the
/// sequence, first token in the page, tokens).
pub fn page_parts(pos: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let mut row = 0;
    std::iter::from_fn(move || {
        if row == len {
            return None;
        }
        let (page, start) = ((pos + row) / PAGE_TOKENS, (pos + row) % PAGE_TOKENS);
        let tokens = (PAGE_TOKENS - start).min(len - row);
        let part = (row, page, start, tokens);
        row += tokens;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_cut_at_page_bounds() {
        let parts: Vec<_> = page_parts(100, 300).collect();
        assert_eq!(parts, [(0, 0, 100, 28), (28, 1, 0, 128), (156, 2, 0, 128), (284, 3, 0, 16)]);
        assert_eq!(page_parts(127, 1).collect::<Vec<_>>(), [(0, 0, 127, 1)]);
        assert_eq!(page_parts(5, 0).count(), 0);
    }

    #[test]
    fn one_row_of_a_prompt_makes_a_pass_prefill() {
        let decode = Rows {
            first: 0,
            len: 1,
            pos: 3,
            phase: Phase::Decode,
            chunked: false,
            state: 0,
            keep: None,
            pages: (0, 1),
        };
        let prompt = Rows { first: 1, len: 2, pos: 0, phase: Phase::Prefill, pages: (1, 1), ..decode };
        let batch = |rows| Batch { n: 3, rows, pages: &[7, 4] };
        let both = [decode, prompt];
        assert_eq!(batch(&both[..1]).phase(), Phase::Decode);
        assert_eq!(batch(&both).phase(), Phase::Prefill);
        assert_eq!(batch(&both).pages_of(&prompt), [4]);
    }
}

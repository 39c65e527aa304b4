//! Which sequences take part in the next pass, and with how many rows: pure functions.

use std::time::Duration;

use ops::DELTA_BLOCK_TOKENS;

use crate::Priority;

/// Rows of the first prompt part beside decoding sequences, before any part was timed.
const FIRST_ROWS: usize = 256;

/// Prompt parts after which a background prompt that got no rows is treated as an interactive one.
const ROUNDS_MAX: u64 = 8;

/// A prompt that wants to be computed.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Claim {
    /// Who it is.
    pub(crate) id: u64,
    pub(crate) priority: Priority,
    /// When it was served last.
    pub(crate) served: u64,
    /// Tokens computed.
    pub(crate) pos: usize,
    /// Tokens of the prompt.
    pub(crate) end: usize,
}

/// How far prompts may be cut: a cut is at a multiple of `grid` tokens, so a prompt's cuts do not
/// show in its results.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Grid(usize);

impl Grid {
    pub(crate) fn new(chunk_tokens: usize) -> Self {
        Self(chunk_tokens.clamp(1, DELTA_BLOCK_TOKENS))
    }

    /// Where a chunk that begins at `pos` and has at most `rows` tokens ends; `pos` if none fits.
    fn chunk_end(self, pos: usize, rows: usize, end: usize) -> usize {
        if end - pos <= rows {
            return end;
        }
        ((pos + rows) / self.0 * self.0).max(pos)
    }
}

/// Shares out the rows of prompt part number `round`: (id, first position, the one behind the
/// last). Everybody gets a fair share, as far as the grid allows; the rest goes to the interactive
/// ones and to those that were served longest ago.
pub(crate) fn share_out(
    mut claims: Vec<Claim>,
    round: u64,
    rows: usize,
    grid: Grid,
) -> Vec<(u64, usize, usize)> {
    let priority = |claim: &Claim| match round.saturating_sub(claim.served) > ROUNDS_MAX {
        true => Priority::Interactive,
        false => claim.priority,
    };
    claims.sort_by_key(|claim| (priority(claim), claim.served, claim.id));
    let share = rows / claims.len().max(1);
    let mut left = rows;
    let mut ends: Vec<usize> = Vec::with_capacity(claims.len());
    for claim in &claims {
        let end = grid.chunk_end(claim.pos, share.min(left), claim.end);
        left -= end - claim.pos;
        ends.push(end);
    }
    // The rest, and those for whom a fair share was less than the grid: served longest ago
    // first.
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|&index| (ends[index] > claims[index].pos, index));
    for index in order {
        let claim = &claims[index];
        let end = grid.chunk_end(claim.pos, left + ends[index] - claim.pos, claim.end);
        left -= end - ends[index];
        ends[index] = end;
    }
    let parts = claims.iter().zip(ends).map(|(claim, end)| (claim.id, claim.pos, end));
    parts.filter(|(_, pos, end)| end > pos).collect()
}

/// How long passes take, measured: it bounds what a prompt may add to a pass in which others
/// decode.
pub(crate) struct Pace {
    pass_max: Duration,
    /// A pass without any prompt.
    decode: Duration,
    /// A layer of a prompt part, by the power of two that its rows fill.
    layer: [Option<Duration>; 32],
}

impl Pace {
    pub(crate) fn new(pass_max: Duration) -> Self {
        Self { pass_max, decode: Duration::ZERO, layer: [None; 32] }
    }

    fn class(rows: usize) -> usize {
        (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(31)
    }

    /// Time that a prompt may take of a pass. Reads take longer in one pass than in another, so a
    /// fifth of the bound is left free.
    fn room(&self) -> Duration {
        (self.pass_max * 4 / 5).saturating_sub(self.decode)
    }

    /// Rows of a new part in company, at most `most`: as many as a layer can take in the time, by
    /// the layers timed so far.
    pub(crate) fn rows(&self, most: usize) -> usize {
        let fits = |class: &usize| self.layer[*class].is_some_and(|time| time <= self.room());
        let known = (0..32).rev().find(fits);
        let rows = match known {
            // Twice as many were not tried, or took too long.
            Some(class) if self.layer.get(class + 1).is_some_and(Option::is_none) => 2 << class,
            Some(class) => 1 << class,
            None if self.layer.iter().all(Option::is_none) => FIRST_ROWS,
            // Everything that was tried took too long.
            None => 1 << self.layer.iter().position(Option::is_some).unwrap_or(0).saturating_sub(1),
        };
        rows.max(DELTA_BLOCK_TOKENS).min(most)
    }

    /// Layers of a part of `rows` rows that the next pass takes, of `left` that are to come.
    pub(crate) fn layers(&self, rows: usize, left: usize) -> usize {
        let class = Self::class(rows);
        // Not measured: as a smaller one, or a single layer to measure it.
        let known = self.layer[..=class].iter().rev().flatten().next();
        let layers = known.map_or(1, |time| self.room().as_nanos() / time.as_nanos().max(1));
        usize::try_from(layers).unwrap_or(left).clamp(1, left)
    }

    /// Notes how long a pass took, whether rows decoded in it, and the rows and layers of its
    /// prompt part.
    pub(crate) fn note(&mut self, time: Duration, decoding: bool, part: Option<(usize, usize)>) {
        match part {
            None => self.decode = time,
            Some((rows, layers)) => {
                let decode = if decoding { self.decode } else { Duration::ZERO };
                let layer = time.saturating_sub(decode) / layers.max(1) as u32;
                self.layer[Self::class(rows)] = Some(layer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(id: u64, pos: usize, end: usize) -> Claim {
        Claim { id, priority: Priority::Interactive, served: 0, pos, end }
    }

    #[test]
    fn short_prompts_do_not_wait_for_a_long_one() {
        let shared = share_out(vec![claim(1, 0, 5000), claim(2, 0, 100)], 1, 1000, Grid::new(1000));
        assert_eq!(shared, [(1, 0, 896), (2, 0, 100)]);
    }

    #[test]
    fn cuts_are_on_the_grid_and_depend_on_nobody_else_where_the_grid_is_a_chunk() {
        let grid = Grid::new(33);
        assert_eq!(share_out(vec![claim(1, 0, 100)], 1, 33, grid), [(1, 0, 33)]);
        assert_eq!(share_out(vec![claim(1, 99, 100), claim(2, 0, 100)], 1, 33, grid), [(1, 99, 100)]);
        let mut claims = vec![claim(1, 33, 100), claim(2, 0, 100)];
        claims[0].served = 1;
        assert_eq!(share_out(claims, 1, 33, grid), [(2, 0, 33)]);
        // From where a prefix was reused, to the next multiple.
        assert_eq!(share_out(vec![claim(1, 37, 500)], 1, 128, Grid::new(128)), [(1, 37, 128)]);
    }

    #[test]
    fn nobody_is_left_out_for_ever() {
        let grid = Grid::new(64);
        let mut claims: Vec<Claim> = (0..3).map(|id| claim(id, 0, 640)).collect();
        claims[2].priority = Priority::Background;
        let mut rounds = 0;
        while claims.iter().any(|claim| claim.pos < claim.end) {
            rounds += 1;
            assert!(rounds <= 30, "{claims:?}");
            let waiting = claims.iter().filter(|claim| claim.pos < claim.end).copied().collect();
            for (id, pos, end) in share_out(waiting, rounds, 64, grid) {
                let claim = &mut claims[id as usize];
                assert!(pos == claim.pos && end > pos && (end % 64 == 0 || end == claim.end));
                (claim.pos, claim.served) = (end, rounds);
            }
        }
        assert_eq!(rounds, 30);
    }

    #[test]
    fn a_part_takes_as_many_layers_as_the_time_allows() {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(1000));
        assert_eq!((pace.rows(4096), pace.layers(256, 60)), (256, 1));
        pace.note(ms(200), true, None);
        pace.note(ms(300), true, Some((256, 1)));
        assert_eq!((pace.layers(256, 60), pace.layers(256, 3)), (6, 3));
        assert_eq!(pace.rows(4096), 512);
        // Far too slow: one layer, and smaller parts from then on.
        pace.note(ms(2200), true, Some((512, 1)));
        assert_eq!((pace.layers(512, 60), pace.rows(4096)), (1, 256));
        pace.note(ms(2200), true, Some((256, 1)));
        assert_eq!(pace.rows(4096), 128);
        assert_eq!(pace.rows(16), 16);
    }
}

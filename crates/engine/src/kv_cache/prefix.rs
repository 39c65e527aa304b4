//! Prefixes that were computed before: a tree with one node for each page of tokens.

use ops::PAGE_TOKENS;

use super::BlockManager;

/// Why a recurrent state was kept, from the least useful to the most.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Keep {
    /// Somewhere within a long prompt.
    Periodic,
    /// The end of a prompt or of an answer.
    Turn,
    /// A position that the caller named, such as the end of a system prompt.
    Mark,
}

/// A recurrent state at a position of its node's page.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Tokens of the page that it has seen, 1 to [`PAGE_TOKENS`].
    tokens: usize,
    pub(crate) slot: u32,
    keep: Keep,
    used: u64,
}

#[derive(Debug, Default)]
struct Node {
    parent: usize,
    children: Vec<usize>,
    /// At most [`PAGE_TOKENS`]; fewer only in a leaf.
    tokens: Vec<u32>,
    page: u32,
    snapshots: Vec<Snapshot>,
    used: u64,
}

/// A computed prefix that a request can start from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Match {
    /// Tokens that need not be computed.
    pub(crate) len: usize,
    /// Pages of these tokens; the last one is in part another's unless `len` is a multiple of
    /// [`PAGE_TOKENS`].
    pub(crate) pages: Vec<u32>,
    /// Slot of the recurrent state after `len` tokens, in models that have one.
    pub(crate) slot: Option<u32>,
}

/// The tree. It holds one reference to each of its pages, and owns the slots of its snapshots.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    /// The first is the root, which has no page.
    nodes: Vec<Node>,
    unused: Vec<usize>,
    recurrent: bool,
    clock: u64,
}

const ROOT: usize = 0;

impl PrefixCache {
    /// An empty cache, of a model with recurrent layers or without.
    pub(crate) fn new(recurrent: bool) -> Self {
        Self { nodes: vec![Node::default()], unused: Vec::new(), recurrent, clock: 0 }
    }

    /// Pages held.
    pub(crate) fn pages(&self) -> usize {
        self.nodes.len() - 1 - self.unused.len()
    }

    /// Snapshots held.
    pub(crate) fn snapshots(&self) -> usize {
        self.nodes.iter().map(|node| node.snapshots.len()).sum()
    }

    /// The longest prefix of `tokens` that was computed, at most `limit` tokens of it. In a
    /// recurrent model, the longest that has a snapshot. The caller takes references to the pages
    /// before it changes anything.
    pub(crate) fn lookup(&mut self, tokens: &[u32], limit: usize) -> Match {
        self.clock += 1;
        let (mut path, mut best, mut end) = (vec![], Match::default(), None);
        let mut at = ROOT;
        loop {
            let from = path.len() * PAGE_TOKENS;
            let rest = &tokens[from.min(limit)..limit.min(tokens.len())];
            let mut next: Option<(usize, usize)> = None;
            for &child in &self.nodes[at].children {
                let common = common(&self.nodes[child].tokens, rest);
                if let Some((len, slot)) = self.usable(child, common)
                    && from + len > best.len
                {
                    best = Match { len: from + len, pages: path.clone(), slot };
                    best.pages.push(self.nodes[child].page);
                    end = Some(child);
                }
                if next.is_none_or(|(_, most)| common > most) {
                    next = Some((child, common));
                }
            }
            match next {
                Some((child, PAGE_TOKENS)) => {
                    path.push(self.nodes[child].page);
                    at = child;
                }
                _ => break,
            }
        }
        if let Some(node) = end {
            self.touch(node, best.slot);
        }
        best
    }

    /// Tokens of a node's page that can be used if the first `common` agree, and the state after
    /// them.
    fn usable(&self, node: usize, common: usize) -> Option<(usize, Option<u32>)> {
        if !self.recurrent {
            return (common > 0).then_some((common, None));
        }
        let fitting = self.nodes[node].snapshots.iter().filter(|snapshot| snapshot.tokens <= common);
        let last = fitting.max_by_key(|snapshot| snapshot.tokens)?;
        Some((last.tokens, Some(last.slot)))
    }

    fn touch(&mut self, mut node: usize, slot: Option<u32>) {
        let clock = self.clock;
        let snapshots = self.nodes[node].snapshots.iter_mut();
        snapshots.filter(|snapshot| Some(snapshot.slot) == slot).for_each(|snapshot| snapshot.used = clock);
        while node != ROOT {
            self.nodes[node].used = clock;
            node = self.nodes[node].parent;
        }
    }

    /// Remembers that `pages` hold the keys and values of `tokens`, and that a snapshot is of the
    /// state after them. Gives back the snapshot's slot if there is one of that position already.
    pub(crate) fn insert(
        &mut self,
        tokens: &[u32],
        pages: &[u32],
        snapshot: Option<(u32, Keep)>,
        blocks: &mut BlockManager,
    ) -> Option<u32> {
        self.clock += 1;
        let mut at = ROOT;
        for (chunk, &page) in tokens.chunks(PAGE_TOKENS).zip(pages) {
            at = self.descend(at, chunk, page, blocks);
        }
        let (slot, keep) = snapshot?;
        if at == ROOT {
            return Some(slot);
        }
        let seen = tokens.len() - (tokens.len() - 1) / PAGE_TOKENS * PAGE_TOKENS;
        let used = self.clock;
        let snapshots = &mut self.nodes[at].snapshots;
        if let Some(known) = snapshots.iter_mut().find(|snapshot| snapshot.tokens == seen) {
            (known.used, known.keep) = (used, known.keep.max(keep));
            return Some(slot);
        }
        snapshots.push(Snapshot { tokens: seen, slot, keep, used });
        None
    }

    /// The child of `at` that begins with `chunk`: one that is there, one that `chunk` goes on
    /// from, or a new one.
    fn descend(&mut self, at: usize, chunk: &[u32], page: u32, blocks: &mut BlockManager) -> usize {
        let clock = self.clock;
        let fits = |child: &usize| {
            let tokens = &self.nodes[*child].tokens;
            common(tokens, chunk) == tokens.len().min(chunk.len())
        };
        let known = self.nodes[at].children.iter().copied().find(fits);
        let Some(child) = known else {
            let node = Node { parent: at, tokens: chunk.to_vec(), page, used: clock, ..Node::default() };
            blocks.retain(page);
            let index = self.unused.pop().unwrap_or(self.nodes.len());
            match self.nodes.get_mut(index) {
                Some(unused) => *unused = node,
                None => self.nodes.push(node),
            }
            self.nodes[at].children.push(index);
            return index;
        };
        let node = &mut self.nodes[child];
        node.used = clock;
        if node.tokens.len() < chunk.len() {
            node.tokens = chunk.to_vec();
            blocks.retain(page);
            blocks.release(std::mem::replace(&mut node.page, page));
        }
        child
    }

    /// Gives up the least useful page that nobody else holds, with its snapshots, whose slots go to
    /// `slots`. Returns whether there was one.
    pub(crate) fn evict_page(&mut self, blocks: &mut BlockManager, slots: &mut Vec<u32>) -> bool {
        let evictable = |node: &Node| node.children.is_empty() && blocks.refs(node.page) == 1;
        let leaves = self.nodes.iter().enumerate().skip(1).filter(|(_, node)| !node.tokens.is_empty());
        // Without a snapshot behind them, pages of a recurrent model are of no use.
        let useful = |node: &Node| !self.recurrent || !node.snapshots.is_empty();
        let least =
            leaves.filter(|(_, node)| evictable(node)).min_by_key(|(_, node)| (useful(node), node.used));
        let Some(index) = least.map(|(index, _)| index) else { return false };
        let node = std::mem::take(&mut self.nodes[index]);
        self.nodes[node.parent].children.retain(|child| *child != index);
        self.unused.push(index);
        blocks.release(node.page);
        slots.extend(node.snapshots.iter().map(|snapshot| snapshot.slot));
        true
    }

    /// Gives up the least useful snapshot that is not `but` and not worth more than `keep`; its
    /// slot.
    pub(crate) fn evict_snapshot(&mut self, keep: Keep, but: Option<u32>) -> Option<u32> {
        let all = self
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(index, node)| node.snapshots.iter().map(move |snapshot| (index, snapshot)));
        let candidates = all.filter(|(_, snapshot)| snapshot.keep <= keep && Some(snapshot.slot) != but);
        let least = candidates.min_by_key(|(_, snapshot)| (snapshot.keep > Keep::Periodic, snapshot.used));
        let (index, slot) = least.map(|(index, snapshot)| (index, snapshot.slot))?;
        self.nodes[index].snapshots.retain(|snapshot| snapshot.slot != slot);
        Some(slot)
    }

    /// Gives up the snapshot in `slot`, whose state the caller goes on from.
    pub(crate) fn adopt(&mut self, slot: u32) {
        for node in &mut self.nodes {
            node.snapshots.retain(|snapshot| snapshot.slot != slot);
        }
    }
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// A sequence's pages, filled with tokens of its own.
    fn pages(blocks: &mut BlockManager, tokens: usize) -> Vec<u32> {
        (0..tokens.div_ceil(PAGE_TOKENS)).map(|_| blocks.take().unwrap()).collect()
    }

    fn add(
        cache: &mut PrefixCache,
        blocks: &mut BlockManager,
        tokens: &[u32],
        snapshot: Option<u32>,
    ) -> Vec<u32> {
        let pages = pages(blocks, tokens.len());
        cache.insert(tokens, &pages, snapshot.map(|slot| (slot, Keep::Turn)), blocks);
        pages.iter().for_each(|page| blocks.release(*page));
        pages
    }

    #[test]
    fn the_longest_common_prefix_is_found_to_the_token() {
        let (mut cache, mut blocks) = (PrefixCache::new(false), BlockManager::new(10));
        let first: Vec<u32> = (0..300).collect();
        let pages = add(&mut cache, &mut blocks, &first, None);
        assert_eq!(cache.lookup(&first, 299), Match { len: 299, pages: pages.clone(), slot: None });
        let mut second = first.clone();
        second[200] = 9;
        assert_eq!(cache.lookup(&second, 299), Match { len: 200, pages: pages[..2].to_vec(), slot: None });
        assert_eq!(cache.lookup(&[7], 1), Match::default());
        // The second shares its first page, and has its own from there on.
        let other = add(&mut cache, &mut blocks, &second, None);
        assert_eq!(cache.lookup(&second, 300).pages, [pages[0], other[1], other[2]]);
        assert_eq!((cache.pages(), blocks.free()), (5, 5));
    }

    #[test]
    fn a_page_that_was_half_full_grows() {
        let (mut cache, mut blocks) = (PrefixCache::new(false), BlockManager::new(4));
        let tokens: Vec<u32> = (0..100).collect();
        let pages = pages(&mut blocks, 100);
        cache.insert(&tokens[..64], &pages, None, &mut blocks);
        cache.insert(&tokens, &pages, None, &mut blocks);
        blocks.release(pages[0]);
        assert_eq!((cache.pages(), blocks.refs(pages[0])), (1, 1));
        assert_eq!(cache.lookup(&tokens, 99).len, 99);
    }

    #[test]
    fn a_recurrent_model_goes_back_to_a_snapshot() {
        let (mut cache, mut blocks) = (PrefixCache::new(true), BlockManager::new(8));
        let tokens: Vec<u32> = (0..300).collect();
        add(&mut cache, &mut blocks, &tokens, Some(7));
        assert_eq!(cache.lookup(&tokens, 299), Match::default());
        let mut longer = tokens.clone();
        longer.push(1);
        assert_eq!(cache.lookup(&longer, 300).slot, Some(7));
        add(&mut cache, &mut blocks, &tokens[..192], Some(5));
        let found = cache.lookup(&tokens, 299);
        assert_eq!((found.len, found.slot, found.pages.len()), (192, Some(5), 2));
        // The same position again: its slot comes back.
        let pages = pages(&mut blocks, 192);
        assert_eq!(cache.insert(&tokens[..192], &pages, Some((6, Keep::Turn)), &mut blocks), Some(6));
        assert_eq!(cache.evict_snapshot(Keep::Mark, Some(5)), Some(7));
        assert_eq!(cache.evict_snapshot(Keep::Mark, Some(5)), None);
        cache.adopt(5);
        assert_eq!(cache.lookup(&tokens, 299), Match::default());
    }

    #[test]
    fn the_least_useful_goes_first_and_nothing_that_is_in_use() {
        let (mut cache, mut blocks) = (PrefixCache::new(true), BlockManager::new(8));
        let old: Vec<u32> = (0..130).collect();
        let new: Vec<u32> = (1000..1130).collect();
        let bare: Vec<u32> = (2000..2100).collect();
        let old_pages = add(&mut cache, &mut blocks, &old, Some(1));
        add(&mut cache, &mut blocks, &new, Some(2));
        add(&mut cache, &mut blocks, &bare, None);
        let mut slots = Vec::new();
        assert!(cache.evict_page(&mut blocks, &mut slots), "the one without a snapshot");
        assert_eq!((cache.pages(), slots.len()), (4, 0));
        // A running request holds the older one's last page.
        blocks.retain(old_pages[1]);
        assert!(cache.evict_page(&mut blocks, &mut slots) && cache.evict_page(&mut blocks, &mut slots));
        assert_eq!((cache.pages(), &slots[..]), (2, &[2][..]));
        assert!(!cache.evict_page(&mut blocks, &mut slots));
        blocks.release(old_pages[1]);
        assert!(cache.evict_page(&mut blocks, &mut slots) && cache.evict_page(&mut blocks, &mut slots));
        assert_eq!((cache.pages(), blocks.free(), &slots[..]), (0, 8, &[2, 1][..]));
    }
}

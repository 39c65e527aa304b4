//! After a few passes a fetch allocates nothing but what storage takes for the reads themselves, on any
//! thread.
#![allow(clippy::unwrap_used)]

mod bank;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bank::{Bank, Container, file_storage};
use experts::{Demand, ExpertStore, Hint, Phase, PolicyKind, StoreOptions, Verify};
use storage::{AlignedBuf, CompletionQueue, FileId, IoMode, ReadRequest, Storage, Widened, widen_into};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: forwards to the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about `data` and `layout`.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The least of a few: another thread may allocate meanwhile.
fn allocations(mut work: impl FnMut()) -> usize {
    let counts = (0..7).map(|_| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        work();
        ALLOCATIONS.load(Ordering::Relaxed) - before
    });
    counts.min().unwrap()
}

const EXPERTS: u32 = 8;

fn store(bank: &Bank, storage: Arc<dyn Storage>, slots: usize, policy: PolicyKind) -> ExpertStore {
    let files = bank.open(storage.as_ref());
    let options = StoreOptions { slots, verify: Verify::EveryLoad, lookahead: true, policy };
    ExpertStore::new(bank.table.clone(), &files, storage, options).unwrap()
}

/// Fetches every expert of both layers, half of them in each demand, with prefetches if `hints`.
fn pass(store: &mut ExpertStore, hints: bool) -> usize {
    let experts: [u32; EXPERTS as usize] = std::array::from_fn(|expert| expert as u32);
    let mut bytes = 0;
    for layer in [0, 1] {
        for half in experts.chunks(EXPERTS as usize / 2) {
            store
                .start(&Demand { layer, experts: half, phase: Phase::Decode, tokens: 3, prompt: None })
                .unwrap();
            if hints {
                let hint = Hint { layer: 1 - layer, phase: Phase::Decode, tokens: 3 };
                store.hint(&hint, &mut |ranked| ranked.extend_from_slice(half)).unwrap();
            }
            loop {
                let ready = store.next_batch(3, true);
                if ready.is_empty() {
                    break;
                }
                bytes += ready.map(|loaded| loaded.parts[0].bytes.len()).sum::<usize>();
            }
            store.end();
            assert!(store.failures().is_empty());
        }
    }
    bytes
}

/// Ten passes; bytes seen.
fn passes(store: &mut ExpertStore, hints: bool) -> usize {
    (0..10).map(|_| pass(store, hints)).sum()
}

/// One test, so that no other one allocates beside it.
#[test]
fn fetches_allocate_nothing() {
    a_fetch_of_resident_experts_allocates_nothing();
    a_fetch_that_reads_allocates_only_for_its_reads();
}

fn a_fetch_of_resident_experts_allocates_nothing() {
    let bank = Bank::new(Container::Packed, &[EXPERTS as usize; 2], 1);
    for &policy in PolicyKind::ALL {
        let mut store = store(&bank, file_storage(IoMode::Direct), 16, policy);
        pass(&mut store, false);
        let mut bytes = 0;
        let count = allocations(|| bytes += passes(&mut store, true));
        assert_eq!(count, 0, "{policy}");
        assert!(bytes > 0 && store.stats().misses == 16);
    }
}

/// Allocations of `reads` reads of one expert each, without a store.
fn allocations_of_reads(bank: &Bank, storage: &dyn Storage, reads: usize) -> usize {
    let files = bank.open(storage);
    let extents = &bank.table.layers[0].extents[0];
    let ranges: Vec<(FileId, u64, u64)> =
        extents.iter().map(|extent| (files[extent.file as usize], extent.offset, extent.bytes)).collect();
    let mut widened = Widened::default();
    widen_into(ranges.iter().copied(), storage.block_bytes(), &mut widened).unwrap();
    let mut buf = AlignedBuf::new(widened.buf_bytes).unwrap();
    let queue = CompletionQueue::new();
    let mut segments = widened.segments;
    allocations(|| {
        for tag in 0..reads as u64 {
            let own = (std::mem::replace(&mut buf, AlignedBuf::empty()), std::mem::take(&mut segments));
            storage.submit(ReadRequest { tag, buf: own.0, segments: own.1 }, &queue);
            let done = queue.wait();
            done.result.unwrap();
            (buf, segments) = (done.buf, done.segments);
        }
    })
}

fn a_fetch_that_reads_allocates_only_for_its_reads() {
    for container in [Container::Packed, Container::Apart] {
        let bank = Bank::new(container, &[EXPERTS as usize; 2], 1);
        for &policy in PolicyKind::ALL {
            let storage = file_storage(IoMode::Direct);
            let mut store = store(&bank, storage.clone(), 5, policy);
            for hints in [false, true] {
                let (mut bytes, mut reads) = (passes(&mut store, hints), 0);
                let per_read = allocations_of_reads(&bank, storage.as_ref(), 100);
                let count = allocations(|| {
                    let before = (store.stats().misses, store.lookahead_stats().reads);
                    bytes += passes(&mut store, hints);
                    let after = (store.stats().misses, store.lookahead_stats().reads);
                    reads = reads.max(after.0 - before.0 + after.1 - before.1);
                });
                let allowed = per_read * reads as usize;
                assert!(
                    bytes > 0 && reads > 40 && 100 * count <= allowed + 99,
                    "{container:?}, {policy}, hints {hints}: {count} allocations, {reads} reads, \
                     {per_read} allocations of 100 reads"
                );
            }
        }
    }
}

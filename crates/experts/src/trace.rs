//! Router decisions on file: which experts each layer demanded, in order, for how many tokens.
//!
//! `docs/trace-format.md` describes the bytes. The writer streams and flushes at each turn of the
//! layers, so a run that is killed leaves a trace that ends in the middle of a record at worst; the
//! reader says so and keeps what came before.

mod error;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::{Demand, Used};

pub use error::TraceError;

/// First bytes of a trace.
const MAGIC: &[u8; 8] = b"FMTRACE2";
/// Magic, layers, slots, bytes of a slot, experts.
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8;
/// No trace is larger: it would not be read into memory.
const TRACE_BYTES_MAX: u64 = 4 << 30;
/// More layers or experts of a layer than these are not believed.
const LAYERS_MAX: u32 = 1 << 16;
const EXPERTS_MAX: u32 = 1 << 20;

/// Sizes of the model and the run that a trace was recorded from.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceHeader {
    /// Layers of the model.
    pub layers: u32,
    /// Slots that the recording run had.
    pub slots: u32,
    /// Memory of one slot, bytes.
    pub slot_bytes: u64,
    /// Routed experts of the model.
    pub experts: u64,
}

/// One fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFetch {
    /// The layer.
    pub layer: u32,
    /// Tokens that the fetch was for.
    pub tokens: u32,
    /// Those of them that are of prompts.
    pub prompt_tokens: u32,
    /// Experts in the order of the fetch.
    pub experts: Vec<u32>,
    /// Of each expert: tokens of prompts that chose it, 0 where a decoding token did; empty without prompts.
    pub rows: Vec<u32>,
}

impl TraceFetch {
    /// Evidence of the fetch about the expert at `position`.
    pub(crate) fn used(&self, position: usize) -> Used {
        let rows = self.rows.get(position).copied().unwrap_or(0);
        Used::new(self.tokens as usize, self.prompt_tokens as usize, rows)
    }

    /// Appends the record.
    fn put(layer: u32, tokens: u32, prompt_tokens: u32, lists: [&[u32]; 2], target: &mut Vec<u8>) {
        let [experts, rows] = lists;
        let count = u32::try_from(experts.len()).unwrap_or(u32::MAX); // Fewer than records.
        [layer, tokens, prompt_tokens, count].into_iter().for_each(|number| put(target, number));
        experts.iter().for_each(|expert| put(target, *expert));
        if prompt_tokens > 0 {
            (0..experts.len()).for_each(|at| put(target, rows.get(at).copied().unwrap_or(0)));
        }
    }
}

/// A trace in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Sizes of the model and the run.
    pub header: TraceHeader,
    /// The fetches in order.
    pub fetches: Vec<TraceFetch>,
    /// The file ends in the middle of a record, which was left out.
    pub cut_off: bool,
}

/// Observes demands and records them if it was told to.
#[derive(Default)]
pub(crate) struct TraceObserver {
    writer: Option<TraceWriter>,
    error: Option<TraceError>,
}

impl TraceObserver {
    /// Records every demand from now on in a new file.
    pub(crate) fn start(&mut self, path: &Path, header: TraceHeader) -> Result<(), TraceError> {
        self.writer = Some(TraceWriter::create(path, header)?);
        Ok(())
    }

    /// Records a demand. An error ends the trace and is kept for [`TraceObserver::flush`]: no demand
    /// fails because it cannot be recorded.
    pub(crate) fn demanded(&mut self, demand: &Demand<'_>) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = writer.record(demand) {
            (self.writer, self.error) = (None, Some(error));
        }
    }

    /// Writes the rest of the trace.
    ///
    /// # Errors
    /// It, or an earlier part of the trace, could not be written; said once.
    pub(crate) fn flush(&mut self) -> Result<(), TraceError> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.writer.as_mut().map_or(Ok(()), TraceWriter::flush),
        }
    }
}

/// Writes a trace.
struct TraceWriter {
    path: PathBuf,
    file: BufWriter<File>,
    record: Vec<u8>,
    last_layer: u32,
}

impl TraceWriter {
    fn create(path: &Path, header: TraceHeader) -> Result<Self, TraceError> {
        let failed = |source| TraceError::Io { path: path.to_path_buf(), source };
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&header.layers.to_le_bytes());
        bytes.extend_from_slice(&header.slots.to_le_bytes());
        bytes.extend_from_slice(&header.slot_bytes.to_le_bytes());
        bytes.extend_from_slice(&header.experts.to_le_bytes());
        file.write_all(&bytes).and_then(|()| file.flush()).map_err(failed)?;
        Ok(TraceWriter { path: path.to_path_buf(), file, record: Vec::new(), last_layer: 0 })
    }

    fn record(&mut self, demand: &Demand<'_>) -> Result<(), TraceError> {
        self.record.clear();
        let [tokens, prompt_tokens] = [demand.tokens, demand.prompt.map_or(0, |prompt| prompt.tokens)]
            .map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
        let rows = demand.prompt.map_or(&[][..], |prompt| prompt.rows);
        let lists = [demand.experts, rows];
        TraceFetch::put(demand.layer, tokens, prompt_tokens, lists, &mut self.record);
        // The layers begin anew: what the last token chose is worth keeping.
        let turn = demand.layer < self.last_layer;
        self.last_layer = demand.layer;
        let flushed = if turn { self.file.flush() } else { Ok(()) };
        flushed
            .and_then(|()| self.file.write_all(&self.record))
            .map_err(|source| TraceError::Io { path: self.path.clone(), source })
    }

    fn flush(&mut self) -> Result<(), TraceError> {
        self.file.flush().map_err(|source| TraceError::Io { path: self.path.clone(), source })
    }
}

/// Seven bits a byte, least first; the high bit says that more come.
fn put(target: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        target.push(number as u8 | 0x80); // The low 7 bits and the mark.
        number >>= 7;
    }
    target.push(number as u8); // Less than 0x80.
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// The file cannot be read, is no trace, or names layers and experts that cannot be.
    pub fn read(path: &Path) -> Result<Trace, TraceError> {
        let failed = |source| TraceError::Io { path: path.to_path_buf(), source };
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        if bytes > TRACE_BYTES_MAX {
            return Err(failed(io::Error::other("larger than 4 GiB, too large for a trace")));
        }
        Self::parse(&std::fs::read(path).map_err(failed)?).map_err(|(offset, reason)| TraceError::Damaged {
            path: path.to_path_buf(),
            offset,
            reason,
        })
    }

    /// Reads the bytes of a trace. The error says where and what.
    ///
    /// # Errors
    /// As [`Trace::read`].
    pub fn parse(bytes: &[u8]) -> Result<Trace, (usize, &'static str)> {
        let header = bytes.get(..HEADER_BYTES).ok_or((bytes.len(), "the header is cut off"))?;
        if &header[..8] != MAGIC {
            return Err((0, "not a trace, or one of another version"));
        }
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let header =
            TraceHeader { layers: word(8), slots: word(12), slot_bytes: long(16), experts: long(24) };
        if header.layers == 0 || header.layers > LAYERS_MAX {
            return Err((8, "a number of layers that cannot be"));
        }
        let mut trace = Trace { header, ..Trace::default() };
        let mut reader = Reader { bytes, at: HEADER_BYTES };
        let mut seen = std::collections::HashSet::new();
        while reader.at < bytes.len() {
            let start = reader.at;
            match reader.fetch(header.layers, &mut seen) {
                Ok(Some(fetch)) => trace.fetches.push(fetch),
                Ok(None) => {
                    trace.cut_off = true;
                    break;
                }
                Err(reason) => return Err((start, reason)),
            }
        }
        Ok(trace)
    }

    /// The trace as bytes: what a writer would have written.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = self.header;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&header.layers.to_le_bytes());
        bytes.extend_from_slice(&header.slots.to_le_bytes());
        bytes.extend_from_slice(&header.slot_bytes.to_le_bytes());
        bytes.extend_from_slice(&header.experts.to_le_bytes());
        for fetch in &self.fetches {
            let lists = [&fetch.experts[..], &fetch.rows];
            TraceFetch::put(fetch.layer, fetch.tokens, fetch.prompt_tokens, lists, &mut bytes);
        }
        bytes
    }

    /// Demanded experts.
    pub fn requests(&self) -> u64 {
        self.fetches.iter().map(|fetch| fetch.experts.len() as u64).sum()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next fetch, None if the bytes end in the middle of it.
    fn fetch(
        &mut self,
        layers: u32,
        seen: &mut std::collections::HashSet<u32>,
    ) -> Result<Option<TraceFetch>, &'static str> {
        let Some(layer) = self.number()? else { return Ok(None) };
        let Some(tokens) = self.number()? else { return Ok(None) };
        let Some(prompt_tokens) = self.number()? else { return Ok(None) };
        let Some(count) = self.number()? else { return Ok(None) };
        if prompt_tokens > tokens {
            return Err("more tokens of prompts than tokens");
        }
        if layer >= layers {
            return Err("a layer that the model does not have");
        }
        if count > EXPERTS_MAX {
            return Err("a number of experts that cannot be");
        }
        if count as usize > self.bytes.len() - self.at {
            return Ok(None); // Each takes a byte at least: nothing is allocated for what is not there.
        }
        let mut experts = Vec::with_capacity(count as usize);
        seen.clear();
        for _ in 0..count {
            let Some(expert) = self.number()? else { return Ok(None) };
            if expert >= EXPERTS_MAX {
                return Err("an expert that cannot be");
            }
            if !seen.insert(expert) {
                return Err("an expert listed twice in one fetch");
            }
            experts.push(expert);
        }
        let mut rows = Vec::new();
        if prompt_tokens > 0 {
            for _ in 0..count {
                let Some(count) = self.number()? else { return Ok(None) };
                if count > prompt_tokens {
                    return Err("an expert that more tokens chose than there are");
                }
                rows.push(count);
            }
        }
        Ok(Some(TraceFetch { layer, tokens, prompt_tokens, experts, rows }))
    }

    fn number(&mut self) -> Result<Option<u32>, &'static str> {
        let mut number = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let Some(&byte) = self.bytes.get(self.at) else { return Ok(None) };
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(number).map(Some).map_err(|_| "a number of more than 32 bits");
            }
        }
        Err("a number of more than 32 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::SplitMix64;

    use crate::{Phase, PromptUse};

    fn random_trace(random: &mut SplitMix64) -> Trace {
        let header = TraceHeader { layers: 5, slots: 7, slot_bytes: 1 << 33, experts: 5 << 14 };
        let fetch = |random: &mut SplitMix64| {
            let tokens = random.below(1 << 20) as u32;
            let prompt_tokens = [0, tokens / 2, tokens][random.below(3) as usize];
            let experts: Vec<u32> =
                (0..random.below(9) as u32).map(|n| n * 1000 + random.below(1000) as u32).collect();
            let rows = experts.iter().filter(|_| prompt_tokens > 0);
            let rows = rows.map(|_| random.below(u64::from(prompt_tokens) + 1) as u32).collect();
            TraceFetch { layer: random.below(5) as u32, tokens, prompt_tokens, experts, rows }
        };
        let fetches = (0..50).map(|_| fetch(random)).collect();
        Trace { header, fetches, cut_off: false }
    }

    #[test]
    fn a_trace_comes_back_from_its_file() {
        let trace = random_trace(&mut SplitMix64::new(1));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let mut writer = TraceWriter::create(&path, trace.header).unwrap();
        for fetch in &trace.fetches {
            let prompt = PromptUse { tokens: fetch.prompt_tokens as usize, rows: &fetch.rows };
            let (phase, tokens) = (Phase::Prefill, fetch.tokens as usize);
            let prompt = Some(prompt).filter(|prompt| prompt.tokens > 0);
            let demand = Demand { layer: fetch.layer, experts: &fetch.experts, phase, tokens, prompt };
            writer.record(&demand).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), trace.to_bytes());
        assert_eq!(Trace::read(&path).unwrap(), trace);
        assert!(Trace::read(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn the_documented_example() {
        // docs/trace-format.md, byte by byte.
        let bytes =
            b"FMTRACE2\x02\0\0\0\x08\0\0\0\0\x10\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0\x01\x01\x00\x03\x05\x96\x01\x00\
              \x00\x09\x08\x02\x07\x05\x00\x06";
        let trace = Trace::parse(bytes).unwrap();
        assert_eq!(trace.header, TraceHeader { layers: 2, slots: 8, slot_bytes: 4096, experts: 512 });
        let decoding = TraceFetch { layer: 1, tokens: 1, experts: vec![5, 150, 0], ..TraceFetch::default() };
        let (experts, rows) = (vec![7, 5], vec![0, 6]);
        let both = TraceFetch { layer: 0, tokens: 9, prompt_tokens: 8, experts, rows };
        assert_eq!(trace.fetches, [decoding, both]);
    }

    #[test]
    fn cut_off_anywhere_it_keeps_what_came_before() {
        let trace = random_trace(&mut SplitMix64::new(2));
        let bytes = trace.to_bytes();
        for end in 0..bytes.len() {
            match Trace::parse(&bytes[..end]) {
                Ok(part) => {
                    assert!(end >= HEADER_BYTES && trace.fetches.starts_with(&part.fetches), "{end}");
                }
                Err(_) => assert!(end < HEADER_BYTES, "{end}"),
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_allocate() {
        let good = random_trace(&mut SplitMix64::new(3)).to_bytes();
        for seed in 0..20_000 {
            let mut random = SplitMix64::new(seed);
            let mut bytes = good.clone();
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len() as u64) as usize;
                match random.below(3) {
                    0 => bytes[at] = random.next_u64() as u8,
                    1 => bytes[at] = 0xff,
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if let Ok(trace) = Trace::parse(&bytes) {
                assert!(trace.requests() <= bytes.len() as u64, "seed {seed}");
            }
        }
        for (bytes, part) in [
            (&b"FMTRACE2"[..], "cut off"),
            (b"FMTRACE1\x01\0\0\0\x08\0\0\0\0\x10\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0", "version"),
            (b"FMTRACE2\0\0\0\0\x08\0\0\0\0\x10\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0", "layers"),
            (
                b"FMTRACE2\x01\0\0\0\x08\0\0\0\0\x10\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0\x01\x01\x00\x00",
                "layer that",
            ),
            (
                b"FMTRACE2\x01\0\0\0\x08\0\0\0\0\x10\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0\x00\x01\x00\x02\x05\x05",
                "twice",
            ),
        ] {
            assert!(Trace::parse(bytes).unwrap_err().1.contains(part));
        }
    }
}

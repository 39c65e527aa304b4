//! What can be wrong with a format's name, a shape or the length of some bytes.

use crate::Format;

/// Everything that the codecs and views refuse.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A name that no format has.
    #[error("unknown weight format {name:?}; known formats: {known}")]
    UnknownFormat {
        /// The name as it was given.
        name: String,
        /// All known names, separated by spaces.
        known: String,
    },
    /// A row that does not consist of whole blocks.
    #[error(
        "{format} stores blocks of {block_len} weights, so a row of {cols} weights does not fit it; \
         use {instead} for this row"
    )]
    PartialBlock {
        /// The format that was asked for.
        format: Format,
        /// Weights in one of its blocks.
        block_len: usize,
        /// Weights in the row.
        cols: usize,
        /// A format that can hold the row.
        instead: Format,
    },
    /// A shape whose size in bytes is no number that this machine can address.
    #[error("a {format} matrix of {rows} x {cols} weights has more bytes than can be addressed")]
    SizeOverflow {
        /// Format of the rows.
        format: Format,
        /// Rows.
        rows: usize,
        /// Weights per row.
        cols: usize,
    },
    /// Bytes that are too many or too few for the shape.
    #[error("a {format} matrix of {rows} x {cols} weights takes {expected} bytes, got {got}")]
    ByteLength {
        /// Format of the rows.
        format: Format,
        /// Rows.
        rows: usize,
        /// Weights per row.
        cols: usize,
        /// Bytes that the shape takes.
        expected: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// A format that files are read in but not written in.
    #[error("weights cannot be stored as {format}, only read; choose one of {known}")]
    NoEncoder {
        /// The format that was asked for.
        format: Format,
        /// All formats with an encoder, separated by spaces.
        known: String,
    },
    /// A weight that is infinite or not a number cannot be quantised.
    #[error("weight {index} of the row is {value}, which {format} cannot hold; the source tensor is damaged")]
    NotFinite {
        /// The format that was asked for.
        format: Format,
        /// Position in the row.
        index: usize,
        /// The offending value.
        value: f32,
    },
}

//! What is wrong with a tensor that a header or manifest lists.

/// What is wrong with a tensor that a header or manifest lists.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A name that occurs twice.
    #[error("tensor {tensor} is listed twice; the file is damaged, download it again")]
    Duplicate {
        /// The tensor.
        tensor: String,
    },
    /// A tensor name longer than any real one.
    #[error("tensor {tensor}: name too long: expected at most {limit} bytes, got {got}")]
    NameTooLong {
        /// The start of the name.
        tensor: String,
        /// The limit in bytes.
        limit: usize,
        /// Its length in bytes.
        got: usize,
    },
    /// More dimensions than any real tensor has.
    #[error("tensor {tensor}: expected at most {limit} dimensions, got {got}")]
    RankTooHigh {
        /// The tensor.
        tensor: String,
        /// The limit.
        limit: usize,
        /// What the file says.
        got: usize,
    },
    /// A shape whose size does not fit in 64 bits, or that its format cannot hold.
    #[error("tensor {tensor}: impossible shape {shape:?}: {reason}; the file is damaged")]
    BadShape {
        /// The tensor.
        tensor: String,
        /// The shape in the file.
        shape: Vec<u64>,
        /// Why it cannot be.
        reason: String,
    },
    /// A tensor whose bytes are not as many as its shape and format need.
    #[error(
        "tensor {tensor} at offset {offset}: expected {expected} bytes for its shape and \
         dtype, got {got}; the file is damaged, download it again"
    )]
    SizeMismatch {
        /// The tensor.
        tensor: String,
        /// Its first byte in the file.
        offset: u64,
        /// Bytes that the shape needs.
        expected: u64,
        /// Bytes that the header gives it.
        got: u64,
    },
    /// A tensor that lies outside the data section.
    #[error(
        "tensor {tensor} at offset {offset} is out of range: expected an end of at most \
         {expected}, got {got}; the file is damaged, download it again"
    )]
    OutOfRange {
        /// The tensor.
        tensor: String,
        /// Its first byte in the file.
        offset: u64,
        /// End of the file.
        expected: u64,
        /// End of the tensor.
        got: u64,
    },
    /// Two tensors that share bytes.
    #[error(
        "tensor {tensor} overlaps {other}: expected an offset of at least {expected}, got \
         {got}; the file is damaged, download it again"
    )]
    Overlap {
        /// The tensor.
        tensor: String,
        /// The tensor before it.
        other: String,
        /// End of the tensor before it.
        expected: u64,
        /// First byte of the tensor.
        got: u64,
    },
    /// A shard that ends before its last tensor does.
    #[error(
        "truncated: tensor {tensor} at offset {offset} is cut off; expected a file of \
         {expected} bytes, got {got}; download it again"
    )]
    Truncated {
        /// The first tensor that is not whole.
        tensor: String,
        /// Its first byte in the file.
        offset: u64,
        /// Size the file should have.
        expected: u64,
        /// Size the file has.
        got: u64,
    },
}

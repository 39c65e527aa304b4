//! The flash-moe command line.
#![forbid(unsafe_code)]
fn main() {}

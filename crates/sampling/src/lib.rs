//! Logits to token id.
#![forbid(unsafe_code)]

//! Layers and architectures.
#![forbid(unsafe_code)]

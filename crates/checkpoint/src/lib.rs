//! What is in a model on disk and where: headers only.
#![forbid(unsafe_code)]

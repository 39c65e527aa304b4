//! Ids and text, chat templates.
#![forbid(unsafe_code)]

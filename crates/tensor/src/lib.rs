//! Element types and quantised block formats with their scalar codecs.
#![forbid(unsafe_code)]

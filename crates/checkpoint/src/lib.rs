//! What is in a model on disk and where: headers only.
#![forbid(unsafe_code)]

mod table;

pub use table::{Extent, ExpertPart, ExpertTable, LayerExperts, TensorInfo};

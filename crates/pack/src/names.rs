//! Names that a container is given while it is made.

/// The program that writes; encoders may change from version to version, so only the same one
/// resumes.
pub(crate) const CREATED_BY: &str = concat!("flash-moe ", env!("CARGO_PKG_VERSION"));
/// How files are called while they are written.
pub(crate) const PARTIAL: &str = ".partial";

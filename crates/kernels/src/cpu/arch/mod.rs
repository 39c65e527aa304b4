//! Intrinsics, one folder per architecture. Nothing outside this module uses any.

//! The oracle (to come).

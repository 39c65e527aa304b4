//! Which experts are in memory: slots, policy, loader, statistics, packing.
#![forbid(unsafe_code)]

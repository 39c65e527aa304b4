//! Bytes from disk: aligned buffers, direct reads in parallel, a fault-injecting twin.

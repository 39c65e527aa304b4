//! The ops contract, its scalar oracle and the CPU implementation.

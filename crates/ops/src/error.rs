//! Errors of a back-end.

/// Why a back-end cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// The system or the device has no room.
    #[error("no memory for {bytes} bytes of {what}")]
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: u64,
        /// Their use.
        what: &'static str,
    },
    /// The device is gone; everything that lies on it is lost.
    #[error("the device was lost: {reason}")]
    DeviceLost {
        /// The driver's words.
        reason: String,
    },
}

//! What can go wrong in the store. Absence is never an error: look-ups answer `Option`.

/// Bytes that are not what their table says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub &'static str);

/// A read or a write that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A row that cannot be read: its bytes do not decode or their checksum is wrong.
    #[error("table {table}, key {key}: {reason}")]
    Corrupt {
        /// The table's name.
        table: &'static str,
        /// The key in hexadecimal.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store does not take work now: it is read-only after a background error, or closed.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The operating system or the engine failed.
    #[error("the store failed: {0}")]
    Io(String),
}

/// Why a batch was not committed. Nothing of it was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// A check of the batch did not hold: decide again on what is stored now.
    #[error("the batch was decided on rows that have changed since")]
    Conflict,
    /// The batch breaks a limit of the contract.
    #[error("the batch is too large: {0}")]
    TooLarge(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

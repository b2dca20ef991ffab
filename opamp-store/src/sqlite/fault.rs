//! What a database error means to a caller.

use crate::{CommitError, FaultKind, LeaseError, ReadError, StorageFault};

/// Primary result codes, <https://www.sqlite.org/rescode.html>.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;

/// A transaction that came to nothing.
#[derive(Clone, Debug)]
pub(super) enum WriteFault {
    /// Nothing was written.
    NotWritten(StorageFault),
    /// Perhaps it was.
    Unknown(StorageFault),
}

impl WriteFault {
    /// The meaning of an error of COMMIT itself.
    ///
    /// A lock leaves the transaction open. Without space, the frame that marks the commit was not completely written,
    /// and the log is valid only up to the frame before. After any other error that frame may be in the file, though
    /// perhaps not on the disk, and the next start may or may not find it.
    pub(super) fn of_commit(error: &sqlx::Error) -> Self {
        let fault = fault(error);
        match fault.kind {
            FaultKind::Busy | FaultKind::Full => Self::NotWritten(fault),
            FaultKind::Corrupt | FaultKind::Io | FaultKind::Other | FaultKind::ReadOnly => {
                Self::Unknown(fault)
            }
        }
    }

    pub(super) fn fault(&self) -> &StorageFault {
        match self {
            Self::NotWritten(fault) | Self::Unknown(fault) => fault,
        }
    }
}

/// An error before COMMIT.
impl From<sqlx::Error> for WriteFault {
    fn from(error: sqlx::Error) -> Self {
        Self::NotWritten(fault(&error))
    }
}

/// A look-up before COMMIT that failed.
impl From<ReadError> for WriteFault {
    fn from(error: ReadError) -> Self {
        Self::NotWritten(match error {
            ReadError::Unavailable(fault) => fault,
            ReadError::Closed => StorageFault { kind: FaultKind::Other, detail: error.to_string() },
            ReadError::Corrupt { .. } => StorageFault { kind: FaultKind::Corrupt, detail: error.to_string() },
        })
    }
}

impl From<WriteFault> for CommitError {
    fn from(fault: WriteFault) -> Self {
        match fault {
            WriteFault::NotWritten(fault) => Self::Unavailable(fault),
            WriteFault::Unknown(fault) => Self::OutcomeUnknown(fault),
        }
    }
}

impl From<WriteFault> for LeaseError {
    fn from(fault: WriteFault) -> Self {
        match fault {
            WriteFault::NotWritten(fault) => Self::Unavailable(fault),
            WriteFault::Unknown(fault) => Self::OutcomeUnknown(fault),
        }
    }
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(fault(&error))
    }
}

/// The class and the words of a database error.
pub(super) fn fault(error: &sqlx::Error) -> StorageFault {
    let kind = match error {
        sqlx::Error::Database(error) => {
            let code = error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default();
            // The low byte of an extended result code is the primary one.
            match code & 0xff {
                BUSY | LOCKED => FaultKind::Busy,
                CORRUPT | NOTADB => FaultKind::Corrupt,
                FULL => FaultKind::Full,
                IOERR | CANTOPEN => FaultKind::Io,
                READONLY => FaultKind::ReadOnly,
                _ => FaultKind::Other,
            }
        }
        sqlx::Error::Io(_) => FaultKind::Io,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => FaultKind::Corrupt,
        _ => FaultKind::Other,
    };
    StorageFault { kind, detail: error.to_string() }
}

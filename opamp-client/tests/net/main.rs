//! The drivers over loopback.

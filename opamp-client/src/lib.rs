//! The agent side of OpAMP.

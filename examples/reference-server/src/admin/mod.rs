//! The admin port below HTTP.

pub(crate) mod listener;

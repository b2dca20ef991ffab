//! The admin port below HTTP.

pub(crate) mod listener;
mod source;

pub(crate) use source::source;

//! One file for each target.

pub(crate) mod client_session;
pub(crate) mod decode;
pub(crate) mod equality;
pub(crate) mod frame;
pub(crate) mod http_answer;
pub(crate) mod http_request;
pub(crate) mod lazy;
pub(crate) mod pair;
pub(crate) mod selector;
pub(crate) mod server_session;

//! examples/reference-server
fn main() {}

//! examples/embed-axum
fn main() {}

//! Rights this program does not need.

/// Warns in one line if the program runs as root (R-SEC-02).
pub fn warn_of_root() {
    if rustix::process::geteuid().is_root() {
        tracing::warn!("running as root, which this agent never needs; run it as a user of its own");
    }
}

//! What must hold for whatever bytes come in, and whatever happens in whatever order.
//!
//! Each target takes any bytes, reads a situation off them, and panics if something is not as it must be: that is all a
//! fuzzer needs. `cargo xtask fuzz` runs them with libFuzzer, which looks for bytes that reach code no bytes before did. The
//! tests of this crate feed them the seeds in every ordinary build; `docs/fuzzing.md` says what each proves.
//!
//! A finding becomes a test of the crate at fault.

pub mod memory;
pub mod messages;
pub mod tape;
mod targets;

use opamp_proto::InstanceUid;

/// The identity of the agent that most inputs speak of.
pub const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);

/// One thing to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the program in `fuzz_targets`, and of the directory in `seeds`.
    pub name: &'static str,
    /// Takes any bytes; panics if what they mean breaks a rule.
    pub run: fn(&[u8]),
    /// Inputs to begin with, each with a name. They are written to `seeds` by the program of that name.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
}

/// Every target, by name.
pub const TARGETS: &[Target] = &[
    Target {
        name: "client_session",
        run: targets::client_session::run,
        seeds: targets::client_session::seeds,
    },
    Target { name: "decode", run: targets::decode::run, seeds: targets::decode::seeds },
    Target { name: "equality", run: targets::equality::run, seeds: targets::equality::seeds },
    Target { name: "frame", run: targets::frame::run, seeds: targets::frame::seeds },
    Target { name: "http_answer", run: targets::http_answer::run, seeds: targets::http_answer::seeds },
    Target { name: "http_request", run: targets::http_request::run, seeds: targets::http_request::seeds },
    Target { name: "lazy", run: targets::lazy::run, seeds: targets::lazy::seeds },
    Target { name: "pair", run: targets::pair::run, seeds: targets::pair::seeds },
    Target { name: "selector", run: targets::selector::run, seeds: targets::selector::seeds },
    Target {
        name: "server_session",
        run: targets::server_session::run,
        seeds: targets::server_session::seeds,
    },
];

/// Runs the target of this name.
///
/// # Panics
///
/// A rule is broken, or there is no such target.
pub fn run(name: &str, input: &[u8]) {
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => (target.run)(input),
        None => panic!("there is no target {name}"),
    }
}

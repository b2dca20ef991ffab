//! An agent's session and the sessions of two servers, joined by links that lose what they carry: whatever happens between
//! them, in the end the server the agent is with sees what is true, and then there is nothing to say.
//!
//! The model is the one of `opamp-client/tests/pair`; here the fuzzer chooses what happens, there chance does.

use std::time::Duration;

use opamp_client::Transport;

use crate::tape::Tape;

#[allow(
    dead_code,
    unused_imports,
    clippy::expect_used,
    reason = "support of tests, of which each user has its share"
)]
#[path = "../../../opamp-client/tests/pair/rest.rs"]
mod rest;
#[allow(
    dead_code,
    unused_imports,
    clippy::expect_used,
    reason = "support of tests, of which each user has its share"
)]
#[path = "../../../opamp-client/tests/pair/world/mod.rs"]
mod world;

use self::world::{Act, World};

/// Things that happen, of one input.
const ACTS_MAX: usize = 32;

pub(crate) fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    let transports: Vec<Transport> =
        (0..=tape.below(2)).map(|_| tape.pick(&[Transport::WebSocket, Transport::Http])).collect();
    let mut world = World::new(&transports, tape.number());
    let mut acts = Vec::new();
    while acts.len() < ACTS_MAX && !tape.is_empty() {
        let pause = Duration::from_millis(tape.byte().into()) * tape.pick(&[0, 1, 1, 10, 200]);
        world.run(pause);
        let act = act(&mut tape);
        world.act(&act);
        acts.push((pause, act));
    }
    if let Err(why) = rest::settled(&mut world) {
        panic!("{why}; {transports:?} {acts:?}");
    }
}

fn act(tape: &mut Tape<'_>) -> Act {
    match tape.below(20) {
        0 => Act::Health(tape.byte()),
        1 => Act::Describe(tape.byte()),
        2 => Act::EffectiveConfig(tape.byte()),
        3 => Act::Components(tape.byte() % 4),
        4 => Act::CustomCapabilities { sometimes: tape.flag() },
        5 => Act::Desire(tape.byte() % 8),
        6 => Act::DesirePackages(tape.byte() % 12),
        7 | 8 => Act::DesireSettings(tape.byte() % 20),
        9 => Act::CustomDown,
        10 => Act::CustomUp,
        11 | 12 => Act::Cut { silently: tape.flag() },
        13 => Act::Outage(tape.byte()),
        14 => Act::AgentCrash,
        15 => Act::AgentRestart,
        16 => Act::Reconnect,
        17 => Act::Rekey(tape.byte()),
        18 if tape.flag() => Act::RequestFullState,
        18 => Act::Restart,
        _ => Act::ServerCrash,
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    // Transports and a seed; then a pause, its unit, and what happens.
    let on = |transport: u8| [0, transport, 9];
    let changes = [[200, 4, 0, 1], [200, 3, 5, 1], [9, 1, 6, 2], [9, 4, 7, 5], [200, 4, 3, 2]].concat();
    let losses =
        [&[100, 4, 5, 4, 30, 1, 11, 1][..], &[100, 4, 7, 7, 10, 1, 14], &[5, 0, 19], &[1, 1, 6, 3]].concat();
    let moves =
        [&[100, 4, 7, 4][..], &[200, 4, 7, 2], &[90, 1, 16], &[30, 1, 17, 3], &[9, 1, 10], &[9, 1, 9]]
            .concat();
    let with = |transport, acts: &[u8]| [&on(transport)[..], acts].concat();
    vec![
        ("websocket-changes", with(0, &changes)),
        ("websocket-losses", with(0, &losses)),
        ("websocket-moves", with(0, &moves)),
        ("http-changes", with(1, &changes)),
        ("http-losses", with(1, &losses)),
        ("http-moves", with(1, &moves)),
    ]
}

//! Two peers with nothing to say.

use std::time::Duration;

use opamp_client::Transport;

use crate::rest::{LONG, at_rest, settled};
use crate::world::{Act, World};

/// More than eleven days.
const MILLION_S: Duration = Duration::from_secs(1_000_000);

/// Everything that can be switched on is, and has been used.
fn busy(transport: Transport) -> World {
    let mut world = World::new(&[transport], 1);
    for act in [
        Act::Health(1),
        Act::Describe(2),
        Act::EffectiveConfig(3),
        Act::Components(1),
        Act::CustomCapabilities { sometimes: true },
        Act::Desire(1),
        Act::DesirePackages(2),
        Act::DesireSettings(if transport == Transport::Http { 2 } else { 1 }),
        Act::CustomDown,
        Act::CustomUp,
    ] {
        world.run(Duration::from_secs(45));
        world.act(&act);
    }
    world
}

#[test]
fn two_quiet_peers_exchange_nothing_but_heartbeats_for_a_million_seconds() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut world = busy(transport);
        settled(&mut world).unwrap();
        for logged in [&mut world.log.saves, &mut world.log.connects] {
            *logged = 0;
        }
        world.log.messages.clear();
        world.log.answers.clear();
        world.run(MILLION_S);
        at_rest(&world, MILLION_S).unwrap();
        assert_eq!((world.log.saves, world.log.connects), (0, 0), "nothing is written, nobody leaves");
        // And they are still there.
        world.act(&Act::Health(9));
        settled(&mut world).unwrap();
    }
}

#[test]
fn failures_are_not_tried_again_and_again() {
    for transport in [Transport::WebSocket, Transport::Http] {
        for act in [
            Act::Desire(4),
            Act::DesirePackages(4),
            Act::DesirePackages(10),
            Act::DesireSettings(6),
            Act::DesireSettings(8),
        ] {
            let mut world = busy(transport);
            world.act(&act);
            world.run(LONG);
            (world.log.saves, world.log.connects) = (0, 0);
            settled(&mut world).unwrap();
            assert_eq!((world.log.saves, world.log.connects), (0, 0), "{act:?}");
        }
    }
}

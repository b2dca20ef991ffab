//! Any interleaving of changes, losses, reconnects, crashes and switches of server and transport.

use std::time::Duration;

use opamp_client::Transport;
use proptest::prelude::*;

use crate::rest::settled;
use crate::world::{Act, World};

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => any::<u8>().prop_map(Act::Health),
        2 => any::<u8>().prop_map(Act::Describe),
        2 => any::<u8>().prop_map(Act::EffectiveConfig),
        2 => (0..4_u8).prop_map(Act::Components),
        2 => any::<bool>().prop_map(|sometimes| Act::CustomCapabilities { sometimes }),
        3 => (0..8_u8).prop_map(Act::Desire),
        3 => (0..12_u8).prop_map(Act::DesirePackages),
        3 => (0..20_u8).prop_map(Act::DesireSettings),
        2 => Just(Act::CustomDown),
        2 => Just(Act::CustomUp),
        4 => any::<bool>().prop_map(|silently| Act::Cut { silently }),
        1 => any::<u8>().prop_map(Act::Outage),
        1 => Just(Act::AgentCrash),
        1 => Just(Act::AgentRestart),
        1 => Just(Act::Reconnect),
        1 => any::<u8>().prop_map(Act::Rekey),
        1 => Just(Act::RequestFullState),
        1 => Just(Act::Restart),
        1 => Just(Act::ServerCrash),
    ]
}

fn transports() -> impl Strategy<Value = Vec<Transport>> {
    let one = prop_oneof![Just(Transport::WebSocket), Just(Transport::Http)];
    proptest::collection::vec(one, 1..3)
}

proptest! {
    #[test]
    fn whatever_happens_in_the_end_the_server_sees_what_is_true(
        transports in transports(),
        acts in proptest::collection::vec((0..40_000_u64, act()), 0..25),
        seed: u64,
    ) {
        let mut world = World::new(&transports, seed);
        for (pause_ms, act) in &acts {
            world.run(Duration::from_millis(*pause_ms));
            world.act(act);
        }
        settled(&mut world).map_err(TestCaseError::fail)?;
    }

    /// Things that happen at once, or while others are still at work.
    #[test]
    fn however_close_together_it_happens_the_server_sees_what_is_true(
        transports in transports(),
        acts in proptest::collection::vec((0..700_u64, act()), 0..40),
        seed: u64,
    ) {
        let mut world = World::new(&transports, seed);
        world.run(Duration::from_secs(5));
        for (pause_ms, act) in &acts {
            world.run(Duration::from_millis(*pause_ms));
            world.act(act);
        }
        settled(&mut world).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_connection_cut_at_any_moment_loses_nothing(
        transports in transports(),
        cut_after_ms in 0..1_500_u64,
        silently: bool,
        agent_restarts: bool,
        settings in 0..20_u8,
        seed: u64,
    ) {
        let mut world = World::new(&transports, seed);
        world.run(Duration::from_secs(60));
        for act in [Act::Health(3), Act::Desire(1), Act::DesirePackages(1), Act::DesireSettings(settings)] {
            world.act(&act);
        }
        world.run(Duration::from_millis(cut_after_ms));
        world.act(&Act::Cut { silently });
        if agent_restarts {
            world.act(&Act::AgentCrash);
        }
        settled(&mut world).map_err(TestCaseError::fail)?;
    }

    /// R-CONN-11 and what follows from it: settings that lead somewhere are in use, others are gone without a trace.
    #[test]
    fn settings_that_nothing_disturbs_are_applied_exactly_if_they_work(
        transports in transports(),
        settings in proptest::collection::vec((0..20_u8, 0..200_u64), 1..6),
        seed: u64,
    ) {
        let mut world = World::new(&transports, seed);
        world.run(Duration::from_secs(60));
        for (number, pause_s) in settings {
            world.act(&Act::DesireSettings(number));
            world.run(Duration::from_secs(pause_s));
        }
        settled(&mut world).map_err(TestCaseError::fail)?;
    }
}

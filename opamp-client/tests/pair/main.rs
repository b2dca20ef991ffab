//! An agent's session against a server's session: whatever happens between them, in the end the server's view equals
//! the agent's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "support of tests")]

mod world;

use std::time::Duration;

use opamp_client::Transport;
use opamp_proto::{Part, material, pb};
use proptest::prelude::*;

use world::{Act, World, hash};

const PARTS: [Part; 4] =
    [Part::AgentDescription, Part::Health, Part::EffectiveConfig, Part::RemoteConfigStatus];
/// Longer than every deadline, back-off and interval of the defaults together.
const LONG: Duration = Duration::from_secs(1_200);

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => any::<u8>().prop_map(Act::Health),
        2 => any::<u8>().prop_map(Act::Describe),
        2 => any::<u8>().prop_map(Act::EffectiveConfig),
        3 => (0..8_u8).prop_map(Act::Desire),
        4 => any::<bool>().prop_map(|silently| Act::Cut { silently }),
        1 => any::<u8>().prop_map(Act::Outage),
        1 => Just(Act::AgentCrash),
        1 => Just(Act::AgentRestart),
        1 => Just(Act::RequestFullState),
        1 => Just(Act::Restart),
        1 => Just(Act::ServerCrash),
    ]
}

fn transports() -> impl Strategy<Value = Vec<Transport>> {
    let one = prop_oneof![Just(Transport::WebSocket), Just(Transport::Http)];
    proptest::collection::vec(one, 1..3)
}

/// The server sees what is true, and both have come to rest.
fn settled(world: &mut World) -> Result<(), TestCaseError> {
    world.run(LONG);
    prop_assert!(world.is_connected());
    for part in PARTS {
        let (view, truth) = (world.view(part).unwrap_or_default(), world.expected(part));
        prop_assert_eq!(material::digest(part, &view), material::digest(part, &truth), "{:?}", part);
    }
    if let Some(desired) = world.desired_hash() {
        let (hash, status) = world.reported().expect("a report");
        prop_assert_eq!(&hash, &desired);
        let broken = hash.as_bytes()[0] % 5 == 4;
        let expected =
            if broken { pb::RemoteConfigStatuses::Failed } else { pb::RemoteConfigStatuses::Applied };
        prop_assert_eq!(status, expected as i32);
    }
    let applied = world.log.applied.len();
    let twice = world.log.applied.windows(2).filter(|pair| pair[0] == pair[1]).count();
    prop_assert!(twice as u32 <= world.log.interruptions, "{applied} applications, {twice} in a row");
    world.log.messages.clear();
    world.log.answers.clear();
    world.run(LONG);
    for message in &world.log.messages {
        let bare = pb::AgentToServer {
            instance_uid: message.instance_uid.clone(),
            sequence_num: message.sequence_num,
            capabilities: message.capabilities,
            ..Default::default()
        };
        prop_assert_eq!(message, &bare, "two quiet peers exchange only heartbeats");
    }
    prop_assert!((38..=42).contains(&world.log.messages.len()), "{}", world.log.messages.len());
    for answer in &world.log.answers {
        prop_assert!(answer.remote_config.is_none() && answer.flags == 0, "{:?}", answer);
    }
    Ok(())
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
        settled(&mut world)?;
    }

    #[test]
    fn a_connection_cut_at_any_moment_loses_nothing(
        transports in transports(),
        cut_after_ms in 0..1_500_u64,
        silently: bool,
        agent_restarts: bool,
        seed: u64,
    ) {
        let mut world = World::new(&transports, seed);
        world.run(Duration::from_secs(60));
        world.act(&Act::Health(3));
        world.act(&Act::Desire(1));
        world.run(Duration::from_millis(cut_after_ms));
        world.act(&Act::Cut { silently });
        if agent_restarts {
            world.act(&Act::AgentCrash);
        }
        settled(&mut world)?;
    }
}

#[test]
fn a_restart_in_good_order_needs_no_question_and_no_second_application() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut world = World::new(&[transport], 1);
        world.run(Duration::from_secs(60));
        world.act(&Act::Desire(1));
        world.run(Duration::from_secs(60));
        world.act(&Act::AgentRestart);
        world.log.answers.clear();
        world.run(Duration::from_secs(60));
        assert!(world.log.answers.iter().all(|answer| answer.flags == 0 && answer.remote_config.is_none()));
        assert_eq!(world.log.applied, [hash(1)]);
    }
}

#[test]
fn a_restart_command_reaches_the_agent_once() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut world = World::new(&[transport], 1);
        world.run(Duration::from_secs(60));
        world.act(&Act::Restart);
        world.run(LONG);
        assert_eq!(world.log.restarts, 1);
    }
}

/// The same story over both transports, told by the parts in the messages.
#[test]
fn both_transports_carry_the_same_sequence_of_messages() {
    let story = |transport| {
        let mut world = World::new(&[transport], 1);
        for act in [Act::Health(1), Act::Describe(2), Act::EffectiveConfig(3), Act::Desire(1), Act::Desire(4)]
        {
            world.run(Duration::from_secs(45));
            world.act(&act);
        }
        world.run(Duration::from_secs(100));
        let parts = |message: &pb::AgentToServer| {
            format!(
                "{}{}{}{}",
                u8::from(message.agent_description.is_some()),
                u8::from(message.health.is_some()),
                u8::from(message.effective_config.is_some()),
                message.remote_config_status.as_ref().map_or(String::new(), |status| format!("{status:?}")),
            )
        };
        let told: Vec<String> = world.log.messages.iter().map(parts).collect();
        told.into_iter().filter(|parts| parts != "000").collect::<Vec<_>>()
    };
    assert_eq!(story(Transport::WebSocket), story(Transport::Http));
}

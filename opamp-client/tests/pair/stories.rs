//! Short stories with a known end.

use std::time::Duration;

use opamp_client::Transport;
use opamp_proto::pb;

use crate::rest::{LONG, settled};
use crate::world::{Act, World, config_hash};

#[test]
fn a_restart_in_good_order_needs_no_question_and_no_second_application() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut world = World::new(&[transport], 1);
        world.run(Duration::from_secs(60));
        world.act(&Act::Desire(1));
        world.act(&Act::DesirePackages(1));
        world.act(&Act::DesireSettings(9));
        world.run(Duration::from_secs(60));
        world.act(&Act::AgentRestart);
        world.log.answers.clear();
        world.run(Duration::from_secs(60));
        let offers = |answer: &pb::ServerToAgent| {
            answer.remote_config.is_some()
                || answer.connection_settings.is_some()
                || answer.packages_available.is_some()
        };
        assert!(world.log.answers.iter().all(|answer| answer.flags == 0 && !offers(answer)));
        assert_eq!(world.log.applied, [config_hash(1)]);
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

#[test]
fn ten_custom_messages_each_way_arrive_in_order() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut world = World::new(&[transport], 1);
        world.run(Duration::from_secs(60));
        for act in [Act::CustomDown, Act::CustomUp] {
            for _ in 0..10 {
                world.act(&act);
            }
        }
        world.run(LONG);
        let received = world.custom_received();
        assert_eq!(received[0], (0..10).collect::<Vec<_>>(), "to the agent over {transport:?}");
        assert_eq!(received[1], (10..20).collect::<Vec<_>>(), "to the server over {transport:?}");
    }
}

#[test]
fn components_are_asked_for_once_and_known_from_then_on() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut world = World::new(&[transport], 1);
        world.run(Duration::from_secs(120));
        let asks = |world: &World| world.log.answers.iter().filter(|answer| answer.flags & 2 != 0).count();
        assert_eq!(asks(&world), 1);
        world.act(&Act::Components(5));
        world.run(Duration::from_secs(120));
        assert_eq!(asks(&world), 2);
        // One that was there before is in the server's memory.
        world.act(&Act::Components(0));
        settled(&mut world).unwrap();
        assert_eq!(
            asks(&world),
            0,
            "the log was cleared when they came to rest, and nothing was asked since"
        );
    }
}

/// From one server to another by settings, and back; over each transport to each.
#[test]
fn agents_move_between_servers_and_transports_by_settings() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut world = World::new(&[transport], 1);
        for number in [4, 0, 5, 2, 14, 10] {
            world.run(Duration::from_secs(60));
            world.act(&Act::DesireSettings(number));
            settled(&mut world).unwrap();
        }
    }
}

#[test]
fn a_new_identity_is_taken_over_and_everything_told_again() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut world = World::new(&[transport], 1);
        world.act(&Act::Desire(1));
        world.run(Duration::from_secs(60));
        world.act(&Act::Rekey(1));
        settled(&mut world).unwrap();
        assert_eq!(world.log.applied, [config_hash(1)], "and nothing is applied twice");
    }
}

/// Some things happen to be told together, and are still not everything.
#[test]
fn a_report_that_looks_complete_does_not_keep_a_server_from_asking_for_the_rest() {
    for seed in [1, 3_428_996_578_472_707_803] {
        let mut world = World::new(&[Transport::Http], seed);
        world.run(Duration::from_secs(5));
        world.act(&Act::Desire(0));
        world.act(&Act::CustomUp);
        world.run(Duration::from_millis(40));
        for act in [Act::Cut { silently: true }, Act::ServerCrash, Act::Describe(0), Act::Health(0)] {
            world.act(&act);
        }
        settled(&mut world).unwrap();
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

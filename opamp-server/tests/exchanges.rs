//! Custom messages and components over sockets and polls.

#![allow(clippy::unwrap_used, reason = "support of tests")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{InstanceUid, pb};
use opamp_server::{
    ConnectionSettingsOffer, CustomCapabilities, CustomError, CustomMessage, Desired, Dispatch, Event,
    InsecureAcceptEveryone, PackagesOffer, ReceivedCustom, Seed, ServerSettings,
};
use prost::Message as _;

use common::{TestServer, full, numbered, uid};

const CAPABILITY: &str = "com.example.snapshots/v1";

fn settings() -> ServerSettings {
    let mut settings = ServerSettings::default();
    settings.session.custom_capabilities = CustomCapabilities::new([CAPABILITY]).unwrap();
    settings
}

async fn custom_server(settings: ServerSettings) -> TestServer {
    TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await
}

fn announcing() -> pb::AgentToServer {
    let custom_capabilities = Some(pb::CustomCapabilities { capabilities: vec![CAPABILITY.into()] });
    pb::AgentToServer { custom_capabilities, ..full() }
}

fn custom(number: u8) -> CustomMessage {
    let data = Bytes::copy_from_slice(&[0, 0xff, number]);
    CustomMessage { capability: CAPABILITY.into(), kind: "take".into(), data }
}

fn saying(number: u8) -> pb::AgentToServer {
    let CustomMessage { capability, kind, data } = custom(number);
    let custom_message = Some(pb::CustomMessage { capability, r#type: kind, data });
    pb::AgentToServer { custom_message, ..Default::default() }
}

async fn received(server: &TestServer) -> ReceivedCustom {
    server
        .event("a custom message", |event| match event {
            Event::Custom(received) => Some(*received),
            _ => None,
        })
        .await
}

/// R-CUST-12, R-CUST-13.
#[tokio::test]
async fn ten_custom_messages_arrive_in_order_and_once_both_ways_on_both_transports() {
    let server = custom_server(settings()).await;
    let mut agent = server.connect(None).await;
    let answer = agent.say(uid(1), announcing()).await;
    assert_eq!(answer.custom_capabilities.unwrap().capabilities, [CAPABILITY]);
    for number in 0..10 {
        assert_eq!(server.handle.send_custom(&uid(1), custom(number)), Ok(Dispatch::Pushed));
    }
    for number in 0..10 {
        let message = agent.receive().await.custom_message.unwrap();
        assert_eq!((&message.data[..], message.r#type.as_str()), (&[0, 0xff, number][..], "take"));
    }
    for number in 0..10 {
        agent.say(uid(1), saying(number)).await;
    }
    for number in 0..10 {
        let told = received(&server).await;
        assert_eq!((told.uid, told.message, told.dropped), (uid(1), custom(number), 0));
    }

    server.poll(None, &numbered(uid(2), 1, announcing())).await;
    for number in 0..10 {
        assert_eq!(server.handle.send_custom(&uid(2), custom(number)), Ok(Dispatch::NextPoll));
    }
    for number in 0..10 {
        let answer = server.poll(None, &numbered(uid(2), 2 + u64::from(number), saying(number))).await;
        assert_eq!(answer.message.unwrap().custom_message.unwrap().data[2], number);
        assert_eq!(received(&server).await.message, custom(number));
    }
    let copy = server.poll(None, &numbered(uid(2), 11, saying(9))).await;
    assert!(copy.message.unwrap().custom_message.is_none());
    let stats = server.handle.stats();
    assert_eq!((stats.custom_sent, stats.custom_received, stats.custom_dropped), (20, 20, 0));
}

#[tokio::test]
async fn what_cannot_be_sent_is_an_error_before_and_at_the_sending() {
    let server = custom_server(settings()).await;
    let both = |uid: InstanceUid, message: CustomMessage| {
        let checked = server.handle.check_custom(&uid, &message);
        assert_eq!(checked.clone().err(), server.handle.send_custom(&uid, message).err());
        checked
    };
    assert_eq!(both(uid(1), custom(0)), Err(CustomError::NoSession));
    let mut agent = server.connect(None).await;
    agent.say(uid(1), full()).await;
    assert!(matches!(both(uid(1), custom(0)), Err(CustomError::NotAnnounced { .. })));
    agent.say(uid(1), announcing()).await;
    let other = CustomMessage { capability: "com.example.other".into(), ..custom(0) };
    assert!(matches!(both(uid(1), other), Err(CustomError::NotOurs { .. })));
    assert_eq!(both(uid(1), custom(0)), Ok(()));
    drop(agent);
    server
        .until("it is gone", |handle| handle.send_custom(&uid(1), custom(1)) == Err(CustomError::NoSession))
        .await;
}

/// R-CUST-02, R-CUST-03.
#[tokio::test]
async fn a_change_of_our_capabilities_is_pushed_to_sockets_and_told_to_pollers_once() {
    let server = custom_server(settings()).await;
    let mut agent = server.connect(None).await;
    agent.say(uid(1), announcing()).await;
    server.poll(None, &numbered(uid(2), 1, announcing())).await;
    for names in [&["com.example.other"][..], &[]] {
        server.handle.set_custom_capabilities(CustomCapabilities::new(names.iter().copied()).unwrap());
        let pushed = agent.receive().await.custom_capabilities.unwrap();
        assert_eq!(pushed.capabilities, names);
        let number = if names.is_empty() { 3 } else { 2 };
        let polled = server.poll(None, &numbered(uid(2), number, full())).await.message.unwrap();
        assert_eq!(polled.custom_capabilities.unwrap().capabilities, names);
        assert!(agent.say(uid(1), full()).await.custom_capabilities.is_none());
    }
    assert!(matches!(server.handle.send_custom(&uid(1), custom(0)), Err(CustomError::NotOurs { .. })));
}

#[tokio::test]
async fn custom_messages_nobody_takes_are_bounded_and_the_next_one_tells_how_many_were_dropped() {
    let mut settings = settings();
    settings.custom_events_kept = 3;
    let server = custom_server(settings).await;
    let mut agent = server.connect(None).await;
    agent.say(uid(1), announcing()).await;
    for number in 0..8 {
        agent.say(uid(1), saying(number)).await;
    }
    assert_eq!(server.handle.stats().custom_dropped, 5);
    for number in 0..3 {
        assert_eq!(received(&server).await.message, custom(number));
    }
    agent.say(uid(1), saying(9)).await;
    let next = received(&server).await;
    assert_eq!((next.message, next.dropped), (custom(9), 5));
}

fn components(hash: &[u8], names: &[&str]) -> pb::AvailableComponents {
    let mut details = pb::ComponentDetails::default();
    for level in 0..10 {
        details = pb::ComponentDetails {
            sub_component_map: [(format!("level-{level}"), details)].into(),
            ..Default::default()
        };
    }
    let components = names.iter().map(|name| ((*name).to_owned(), details.clone())).collect();
    pb::AvailableComponents { hash: Bytes::copy_from_slice(hash), components }
}

fn with_components(list: pb::AvailableComponents) -> pb::AgentToServer {
    pb::AgentToServer { available_components: Some(list), ..full() }
}

/// R-COMP-04, R-COMP-07, R-COMP-09, R-COMP-13.
#[tokio::test]
async fn components_are_asked_for_once_for_all_agents_of_a_build() {
    let server = TestServer::start().await;
    let mut first = server.connect(None).await;
    let hash = [7; 40];
    assert_eq!(first.say(uid(1), with_components(components(&hash, &[]))).await.flags, 2);
    let list = components(&hash, &["receiver/otlp", "exporter/otlp"]);
    assert_eq!(first.say(uid(1), with_components(list.clone())).await.flags, 0);
    assert_eq!(
        first.say(uid(2), with_components(components(&hash, &[]))).await.flags,
        0,
        "of the same build"
    );
    let polled = server.poll(None, &numbered(uid(3), 1, with_components(components(&hash, &[])))).await;
    assert_eq!(polled.message.unwrap().flags, 0);
    let mut addresses = Vec::new();
    for number in 1..4 {
        let known = server.handle.agent(&uid(number)).unwrap().components.unwrap();
        assert_eq!(pb::AvailableComponents::decode(&known[..]).unwrap(), list, "nesting and all");
        addresses.push(known.as_ptr());
    }
    assert!(addresses.iter().all(|address| *address == addresses[0]), "one list in memory");
    let asked = first.say(uid(4), with_components(components(b"other", &[]))).await;
    assert_eq!(asked.flags, 2, "another build");
    assert_eq!(server.handle.stats().component_requests_sent, 2);
}

#[tokio::test]
async fn lists_of_an_earlier_process_need_not_be_asked_for() {
    let server = TestServer::start().await;
    let list = components(b"h", &["receiver/otlp"]).encode_to_vec();
    server.handle.restore([Seed { components: Some(list.into()), ..Seed::new(uid(1)) }]);
    let mut agent = server.connect(None).await;
    for number in 1..3 {
        let answer = agent.say(uid(number), with_components(components(b"h", &[]))).await;
        assert_eq!(answer.flags & 2, 0, "{number}");
        assert!(server.handle.agent(&uid(number)).unwrap().components.is_some());
    }
}

/// R-CONN-02, R-PKG-03, R-WS-23, R-HTTP-03: one handle, three kinds, both transports; what was offered shows.
#[tokio::test]
async fn settings_and_packages_reach_an_idle_socket_and_the_next_poll() {
    let server = TestServer::start().await;
    let telemetry = pb::TelemetryConnectionSettings {
        destination_endpoint: "https://example.com/v1/metrics".into(),
        ..Default::default()
    };
    let settings = pb::ConnectionSettingsOffers { own_metrics: Some(telemetry), ..Default::default() };
    let settings = ConnectionSettingsOffer::new(settings).unwrap();
    let packages = PackagesOffer::new(pb::PackagesAvailable::default()).unwrap();
    let desired = |generation| Desired {
        packages: Desired::packages(generation, packages.clone()).packages,
        ..Desired::connection_settings(generation, settings.clone())
    };
    let mut agent = server.connect(None).await;
    agent.say(uid(1), full()).await;
    assert_eq!(server.handle.set_desired(&uid(1), desired(1)), Dispatch::Pushed);
    let pushed = agent.receive().await;
    server.poll(None, &numbered(uid(2), 1, full())).await;
    assert_eq!(server.handle.set_desired(&uid(2), desired(1)), Dispatch::NextPoll);
    let polled = server.poll(None, &numbered(uid(2), 2, full())).await.message.unwrap();
    for (number, message) in [(1, pushed), (2, polled)] {
        assert_eq!(message.connection_settings.as_ref(), Some(settings.settings()));
        assert_eq!(message.packages_available.as_ref(), Some(packages.packages()));
        let snapshot = server.handle.agent(&uid(number)).unwrap();
        assert_eq!(snapshot.connection_settings.offered.unwrap().0, *settings.hash());
        assert_eq!(snapshot.packages.offered.unwrap().0, *packages.hash());
        assert_eq!((snapshot.connection_settings.generation, snapshot.remote_config.generation), (1, 0));
    }
    let stats = server.handle.stats();
    assert_eq!((stats.settings_offers_sent, stats.package_offers_sent, stats.offers_sent), (2, 2, 0));
}

/// R-COMP-01: what an agent does not announce is not used, for others neither.
#[tokio::test]
async fn a_list_of_components_that_was_not_announced_is_not_remembered() {
    let server = TestServer::start().await;
    let announcing_less = pb::AgentToServer {
        capabilities: 0xffff & !opamp_proto::AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS.bits(),
        ..numbered(uid(1), 1, with_components(components(b"h", &["receiver/otlp"])))
    };
    server.poll(None, &announcing_less).await;
    let answer = server.poll(None, &numbered(uid(2), 1, with_components(components(b"h", &[])))).await;
    assert_eq!(answer.message.unwrap().flags, 2, "asked for: nobody reported it");
    assert!(server.handle.agent(&uid(2)).unwrap().components.is_none());
}

/// R-ID-11: a custom message comes under the identity the reader knows its agent by, behind what changed.
#[tokio::test]
async fn a_custom_message_does_not_overtake_the_change_of_its_agents_identity() {
    for under_the_new_one in [false, true] {
        let server = custom_server(settings()).await;
        let mut agent = server.connect(None).await;
        agent.say(uid(1), announcing()).await;
        let flags = opamp_proto::AgentToServerFlags::REQUEST_INSTANCE_UID.bits();
        let answer = agent.say(uid(1), pb::AgentToServer { flags, ..Default::default() }).await;
        let fresh = answer.agent_identification.unwrap().new_instance_uid;
        let fresh = InstanceUid::try_from(&fresh[..]).unwrap();
        // Whoever reads events knows of everything so far; the turn is the custom messages'.
        let mut events = Vec::new();
        server.change("the agent", |change| change.snapshot.uid == uid(1)).await;
        if under_the_new_one {
            agent.say(fresh, saying(1)).await;
        } else {
            agent.say(uid(1), saying(1)).await;
            agent.say(fresh, pb::AgentToServer::default()).await;
        }
        while events.len() < 2 {
            events.push(server.event("what happened", Some).await);
        }
        let Event::Agent(change) = &events[0] else { panic!("{events:?}") };
        assert_eq!((change.snapshot.uid, change.previous_uid), (fresh, Some(uid(1))));
        let Event::Custom(received) = &events[1] else { panic!("{events:?}") };
        assert_eq!((received.uid, &received.message), (fresh, &custom(1)));
    }
}

//! R-CONF: remote configuration.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{ConfigHash, Part, hash, pb};
use opamp_server::{Desired, RemoteConfigOffer};

use super::common::*;

fn status(hash: &[u8], status: pb::RemoteConfigStatuses) -> pb::RemoteConfigStatus {
    pb::RemoteConfigStatus {
        last_remote_config_hash: Bytes::copy_from_slice(hash),
        status: status.into(),
        error_message: if status == pb::RemoteConfigStatuses::Failed {
            "no".to_owned()
        } else {
            String::new()
        },
    }
}

fn object(body: &[u8], content_type: &str, role: &str) -> pb::AgentConfigObject {
    pb::AgentConfigObject {
        body: Bytes::copy_from_slice(body),
        content_type: content_type.to_owned(),
        role: role.to_owned(),
    }
}

fn map(files: &[(&str, pb::AgentConfigObject)]) -> pb::AgentConfigMap {
    pb::AgentConfigMap {
        config_map: files.iter().map(|(name, file)| ((*name).to_owned(), file.clone())).collect(),
    }
}

/// Offers a configuration, has it applied, and returns what the agent got and what the server shows as effective.
async fn there_and_back(
    wire: Wire,
    config: &pb::AgentConfigMap,
) -> (pb::AgentRemoteConfig, pb::AgentConfigMap) {
    let server = TestServer::start().await;
    let mut agent = server.agent(wire, Persona::new(1)).await;
    server.assign(agent.persona.uid, config);
    let offer = agent.next_offer().await.unwrap();
    assert!(says_nothing(&agent.apply(&offer).await.unwrap()));
    let effective: pb::EffectiveConfig = server.part(agent.persona.uid, Part::EffectiveConfig).unwrap();
    let report = server.snapshot(agent.persona.uid).remote_config.report.unwrap();
    assert_eq!(report.hash.as_bytes(), &offer.config_hash[..]);
    assert_eq!(report.status, pb::RemoteConfigStatuses::Applied as i32);
    (offer, effective.config_map.unwrap())
}

on_both_transports! {
    /// R-CONF-01: a server that does not offer, does not offer.
    async fn remote_configuration_can_be_disabled(wire: Wire) {
        let server = TestServer::with(|setup| {
            setup.settings.session.capabilities.remove(ServerCapabilities::OFFERS_REMOTE_CONFIG);
        })
        .await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        server.assign(agent.persona.uid, &yaml("a: 1\n"));
        let outdated = status(b"old", pb::RemoteConfigStatuses::Applied);
        let answer = agent.report(|message| message.remote_config_status = Some(outdated)).await.unwrap();
        assert!(says_nothing(&answer));
    }

    /// R-CONF-02.
    async fn each_agent_gets_its_own_configuration(wire: Wire) {
        let server = TestServer::start().await;
        let mut agents = Vec::new();
        for number in 0..3 {
            let agent = server.agent(wire, Persona::new(number)).await;
            server.assign(agent.persona.uid, &yaml(&format!("number: {number}\n")));
            agents.push(agent);
        }
        for (number, agent) in agents.iter_mut().enumerate() {
            assert_eq!(agent.next_offer().await.unwrap().config, Some(yaml(&format!("number: {number}\n"))));
        }
    }

    /// R-CONF-04: whatever the hashes say.
    async fn no_offer_without_accepts_remote_config(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).without(AgentCapabilities::ACCEPTS_REMOTE_CONFIG)).await;
        server.assign(agent.persona.uid, &yaml("a: 1\n"));
        let differs = status(b"differs", pb::RemoteConfigStatuses::Applied);
        let answer = agent.report(|message| message.remote_config_status = Some(differs)).await.unwrap();
        assert!(says_nothing(&answer));
        assert!(says_nothing(&agent.report_full_state().await.unwrap()));
        assert_eq!(server.handle.stats().offers_sent, 0);
    }

    /// R-CONF-06.
    async fn no_effective_configuration_is_expected_without_its_bit(wire: Wire) {
        let server = TestServer::start().await;
        let persona = Persona::new(1).without(AgentCapabilities::REPORTS_EFFECTIVE_CONFIG);
        let (mut agent, answer) = server.connector(wire).start(persona).await.unwrap();
        assert!(says_nothing(&answer));
        server.assign(agent.persona.uid, &yaml("a: 1\n"));
        let offer = agent.next_offer().await.unwrap();
        let applied = agent.persona.applied(&offer);
        assert!(applied.effective_config.is_none());
        assert!(says_nothing(&agent.exchange(&applied).await.unwrap()));
        for _ in 0..5 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
    }

    /// R-CONF-12.
    async fn a_configuration_is_a_collection_of_named_files(wire: Wire) {
        let files = config(&[("a.yaml", "a: 1\n"), ("b/ä.yaml", "b: 2\n"), ("", "c: 3\n")]);
        let (offer, effective) = there_and_back(wire, &files).await;
        assert_eq!(offer.config.as_ref(), Some(&files));
        assert_eq!(effective, files);
    }

    /// R-CONF-15, R-CONF-16.
    async fn the_only_file_may_have_an_empty_name(wire: Wire) {
        let single = yaml("a: 1\n");
        assert_eq!(single.config_map.keys().collect::<Vec<_>>(), [""]);
        let (offer, effective) = there_and_back(wire, &single).await;
        assert_eq!((offer.config.as_ref(), &effective), (Some(&single), &single));
    }

    /// R-CONF-17.
    async fn bodies_are_bytes_and_stay_as_they_are(wire: Wire) {
        let every_byte: Vec<u8> = (0..=255).collect();
        let files = map(&[
            ("all", object(&every_byte, "application/octet-stream", "")),
            ("dos", object(b"a: 1\r\n\0\x1a", "", "")),
            ("utf-16", object(b"\xff\xfea\0", "", "")),
            ("empty", object(b"", "", "")),
        ]);
        let (offer, effective) = there_and_back(wire, &files).await;
        assert_eq!((offer.config.as_ref(), &effective), (Some(&files), &files));
    }

    /// R-CONF-18.
    async fn content_type_and_role_are_kept_and_may_be_absent(wire: Wire) {
        let files = map(&[
            ("typed", object(b"a", "text/yaml; charset=utf-8", "base")),
            ("strange", object(b"b", "no mime type at all", "")),
            ("untyped", object(b"c", "", "")),
        ]);
        let (offer, effective) = there_and_back(wire, &files).await;
        assert_eq!((offer.config.as_ref(), &effective), (Some(&files), &files));
    }

    /// R-CONF-19: whatever the application hands over, no offer goes out without a hash.
    async fn every_offer_has_a_hash(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let nameless = RemoteConfigOffer::new(ConfigHash::new(Bytes::new()), &yaml("a: 1\n"));
        let desired = Desired::remote_config(1, nameless);
        server.handle.set_desired(&agent.persona.uid, desired);
        assert!(!agent.next_offer().await.unwrap().config_hash.is_empty());
        server.assign(agent.persona.uid, &pb::AgentConfigMap::default());
        assert!(!agent.next_offer().await.unwrap().config_hash.is_empty());
    }

    /// R-CONF-23, R-CONF-24.
    async fn an_outdated_or_missing_hash_is_answered_with_the_offer(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let (hash, _) = server.assign(agent.persona.uid, &yaml("a: 1\n"));
        agent.next_offer().await.unwrap();
        for reported in [&b"outdated"[..], b""] {
            let outdated = status(reported, pb::RemoteConfigStatuses::Applied);
            let answer = agent.report(|message| message.remote_config_status = Some(outdated)).await.unwrap();
            let offer = answer.remote_config.expect("more than a bare acknowledgement");
            assert_eq!(&offer.config_hash[..], hash.as_bytes());
        }
        let right = status(hash.as_bytes(), pb::RemoteConfigStatuses::Applied);
        let answer = agent.report(|message| message.remote_config_status = Some(right)).await.unwrap();
        assert!(says_nothing(&answer), "none for the right one");
    }

    /// R-CONF-24: an agent that comes with the right hash is left alone, one with another hash is not.
    async fn the_first_report_decides_whether_there_is_an_offer(wire: Wire) {
        let server = TestServer::start().await;
        for (number, known) in [(1, true), (2, false)] {
            let mut persona = Persona::new(number);
            let (hash, _) = server.assign(persona.uid, &yaml("a: 1\n"));
            let reported = if known { hash.as_bytes() } else { b"another" };
            persona.remote_config_status = Some(status(reported, pb::RemoteConfigStatuses::Applied));
            let (_agent, answer) = server.connector(wire).start(persona).await.unwrap();
            assert_eq!(answer.remote_config.is_none(), known);
        }
    }

    /// R-CONF-25.
    async fn a_failed_configuration_is_not_offered_again_and_again(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let uid = agent.persona.uid;
        server.assign(uid, &yaml("broken: [\n"));
        let offer = agent.next_offer().await.unwrap();
        let failed = agent.persona.failed(&offer, "no such key");
        assert!(says_nothing(&agent.exchange(&failed).await.unwrap()));
        // Time, heartbeats, reconnects, and even the return to the old configuration change nothing about it.
        for round in 0..3 {
            server.clock.advance(Duration::from_secs(20));
            assert!(says_nothing(&agent.heartbeat().await.unwrap()), "round {round}");
            agent.reconnect().await.unwrap();
            let again = agent.report_full_state().await.unwrap();
            assert!(says_nothing(&again), "round {round}: {again:?}");
        }
        let back = status(b"what ran before", pb::RemoteConfigStatuses::Applied);
        let answer = agent.report(|message| message.remote_config_status = Some(back)).await.unwrap();
        assert!(answer.remote_config.is_none(), "no chase after an agent that rolls back by itself");
        let failure = server.snapshot(uid).remote_config.last_failure.unwrap();
        assert_eq!((failure.error.as_str(), failure.hash.as_bytes()), ("no such key", &offer.config_hash[..]));

        // Assigning it once more is a new order.
        server.assign(uid, &yaml("broken: [\n"));
        assert_eq!(agent.next_offer().await.unwrap().config_hash, offer.config_hash);
    }

    /// R-CONF-25: a pending offer is not repeated with every message either.
    async fn an_offer_that_is_being_applied_is_not_repeated(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        server.assign(agent.persona.uid, &yaml("slow: true\n"));
        let offer = agent.next_offer().await.unwrap();
        for _ in 0..3 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()), "the agent has it, and nothing has changed");
        }
        let applying = agent.persona.applying(&offer);
        assert!(says_nothing(&agent.exchange(&applying).await.unwrap()));
        for _ in 0..10 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
        assert!(says_nothing(&agent.apply(&offer).await.unwrap()));
        assert_eq!(server.handle.stats().offers_sent, 1);
    }

    /// R-CONF-29.
    async fn offers_depend_on_the_hash_and_not_on_the_effective_configuration(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        server.assign(agent.persona.uid, &yaml("a: 1\n"));
        let offer = agent.next_offer().await.unwrap();
        let mut applied = agent.persona.applied(&offer);
        let merged = pb::EffectiveConfig { config_map: Some(yaml("a: 1\nlocal: true\n")) };
        applied.effective_config = Some(merged.clone());
        assert!(says_nothing(&agent.exchange(&applied).await.unwrap()));
        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        assert_eq!(server.part(agent.persona.uid, Part::EffectiveConfig), Some(merged), "for display");
    }
}

/// R-CONF-13: in what is sent each name occurs once; in what is received the last entry of a name wins.
#[tokio::test]
async fn file_names_are_unique() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    let mut persona = Persona::new(1);
    let first = config(&[("same", "first\n")]).encode_to_vec();
    let second = config(&[("same", "second\n")]).encode_to_vec();
    let twice = pb::AgentConfigMap::decode(&[first, second].concat()[..]).unwrap();
    assert_eq!(twice, config(&[("same", "second\n")]));

    // AgentToServer.effective_config (6) { config_map (1) { the entry of "same" twice } }
    let map =
        [config(&[("same", "first\n")]).encode_to_vec(), config(&[("same", "second\n")]).encode_to_vec()]
            .concat();
    let effective = [&[0x0a, map.len() as u8], &map[..]].concat();
    let mut report = persona.full_state();
    report.effective_config = None;
    let report = [framed(&report), vec![0x32, effective.len() as u8], effective].concat();
    ws.send_binary(report).await.unwrap();
    assert!(ws.receive().await.unwrap().error_response.is_none());
    let kept: pb::EffectiveConfig = server.part(persona.uid, Part::EffectiveConfig).unwrap();
    assert_eq!(kept.config_map, Some(config(&[("same", "second\n")])));

    server.assign(persona.uid, &config(&[("a", "1"), ("b", "2")]));
    let Received::Binary(payload) = ws.next().await.unwrap() else { panic!("no offer") };
    let message = pb::ServerToAgent::decode(&payload[1..]).unwrap();
    assert_eq!(
        message.encoded_len(),
        payload.len() - 1,
        "an entry that occurred twice would be lost in decoding"
    );
}

/// R-CONF-20: different configurations have different hashes; the same has the same, in another process too.
#[tokio::test]
async fn hashes_identify_configurations() {
    let mut seen = BTreeSet::new();
    for number in 0..200 {
        let body = format!("n: {}\n", number / 4);
        let config = match number % 4 {
            0 => map(&[("a", object(body.as_bytes(), "", ""))]),
            1 => map(&[("b", object(body.as_bytes(), "", ""))]),
            2 => map(&[("a", object(body.as_bytes(), "text/yaml", ""))]),
            _ => map(&[("a", object(body.as_bytes(), "", "base"))]),
        };
        assert!(seen.insert(hash::config_hash(&config).to_hex()));
    }
    let mut offered = Vec::new();
    for _ in 0..2 {
        let server = TestServer::start().await;
        let mut agent = server.agent(Wire::Http, Persona::new(1)).await;
        server.assign(agent.persona.uid, &config(&[("a", "1"), ("b", "2")]));
        offered.push(agent.next_offer().await.unwrap().config_hash);
    }
    assert_eq!(offered[0], offered[1]);
}

/// R-CONF-10: ten changes in a row end with the newest, and an answer to none of them is required.
#[tokio::test]
async fn a_connected_agent_ends_on_the_newest_configuration() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1)).await;
    for number in 0..10 {
        server.assign(agent.persona.uid, &yaml(&format!("n: {number}\n")));
    }
    let newest = yaml("n: 9\n");
    loop {
        let offer = agent.next_offer().await.unwrap();
        if offer.config.as_ref() == Some(&newest) {
            break;
        }
    }
    assert_eq!(agent.ws().fence().await.unwrap(), [], "nothing after the newest");
}

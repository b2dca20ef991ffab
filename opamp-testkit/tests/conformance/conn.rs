//! R-CONN: connection settings, and R-HB-12: the heartbeat interval in them.

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::{hash, pb};
use opamp_server::{ConnectionSettingsOffer, OfferRules, StaticToken, StaticTokens};
use opamp_testkit::certs::Authority;

use super::common::*;
use super::offers::*;

use pb::ConnectionSettingsStatuses::{Applied, Applying, Failed};

on_both_transports! {
    /// R-CONN-01: who rejects settings is served on, and not pestered with them.
    async fn an_agent_may_reject_settings(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        let uid = agent.persona.uid;
        server.offer_settings(uid, &everything());
        let offer = agent.next_settings().await.unwrap();
        let failed = agent.persona.settings(&offer, Failed, "no such host");
        assert!(says_nothing(&agent.exchange(&failed).await.unwrap()));
        requires_silence(&server, &mut agent).await;
        let failure = server.snapshot(uid).connection_settings.last_failure.unwrap();
        assert_eq!((failure.error.as_str(), failure.hash.as_bytes()), ("no such host", &offer.hash[..]));
        let back = settings_status(b"what was used before", Applied);
        let answer = agent.report(|message| message.connection_settings_status = Some(back)).await.unwrap();
        assert!(says_nothing(&answer), "no chase after an agent that went back by itself: {answer:?}");

        // Deciding on the same once more is a new order; deciding on something else is none for these.
        server.assign(uid, &yaml("a: 1\n"));
        let config = agent.next_offer().await.unwrap();
        assert!(says_nothing(&agent.apply(&config).await.unwrap()), "no settings beside the configuration");
        server.offer_settings(uid, &everything());
        assert_eq!(agent.next_settings().await.unwrap().hash, offer.hash);
    }

    /// R-CONN-22, R-CONF-24, R-PKG-25: the agent stands by its failure, and whoever decides says: once more.
    async fn deciding_anew_on_what_failed_is_a_new_order(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings().with_packages()).await;
        let uid = agent.persona.uid;
        let wanted = packages(&[("agent", package("1", b"x"))]);
        for _ in 0..2 {
            server.assign(uid, &yaml("broken: [\n"));
            let offer = agent.next_offer().await.unwrap();
            let failed = agent.persona.failed(&offer, "no");
            assert!(says_nothing(&agent.exchange(&failed).await.unwrap()));
            server.offer_settings(uid, &everything());
            let offer = agent.next_settings().await.unwrap();
            let failed = agent.persona.settings(&offer, Failed, "no");
            assert!(says_nothing(&agent.exchange(&failed).await.unwrap()));
            server.offer_packages(uid, &wanted);
            let offer = agent.next_packages().await.unwrap();
            let failed = agent.persona.packages(&offer, pb::PackageStatusEnum::InstallFailed, "no");
            assert!(says_nothing(&agent.exchange(&failed).await.unwrap()));
        }
        requires_silence(&server, &mut agent).await;
    }

    /// R-CONN-02: each class alone, and all of them together.
    async fn settings_of_all_three_classes_are_offered(wire: Wire) {
        let all = everything();
        let none = pb::ConnectionSettingsOffers::default();
        let cases = [
            pb::ConnectionSettingsOffers { opamp: all.opamp.clone(), ..none.clone() },
            pb::ConnectionSettingsOffers { own_metrics: all.own_metrics.clone(), ..none.clone() },
            pb::ConnectionSettingsOffers { other_connections: all.other_connections.clone(), ..none },
            all,
        ];
        let server = TestServer::start().await;
        for (number, wanted) in (1..).zip(cases) {
            let mut agent = server.agent(wire, Persona::new(number).with_settings()).await;
            let (hash, _) = server.offer_settings(agent.persona.uid, &wanted);
            let offer = agent.next_settings().await.unwrap();
            assert_eq!(&offer.hash[..], hash.as_bytes());
            assert_eq!(pb::ConnectionSettingsOffers { hash: Default::default(), ..offer }, wanted);
        }
    }

    /// R-CONN-03: the endpoint may be any other.
    async fn an_offer_may_lead_to_another_server(wire: Wire) {
        let second = TestServer::start().await;
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        let endpoint = second.endpoint();
        let url = format!("ws://{}{}", endpoint.host, endpoint.path);
        server.offer_settings(agent.persona.uid, &only_opamp(opamp(&url)));
        let offered = agent.next_settings().await.unwrap().opamp.unwrap();
        assert_eq!(offered.destination_endpoint, url);
        agent.disconnect().await.unwrap();
        let (moved, answer) = second.connector(Wire::WebSocket).start(agent.persona).await.unwrap();
        assert!(answer.error_response.is_none());
        assert!(second.knows(moved.persona.uid));
    }

    /// R-CONN-16: what the agent has is left out of the message and still counts in the hash.
    async fn the_hash_is_over_all_settings_also_those_left_out(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        let uid = agent.persona.uid;
        server.offer_settings(uid, &everything());
        let whole = agent.next_settings().await.unwrap();
        assert_eq!(whole.hash[..], *hash::connection_settings_hash(&everything()).as_bytes());
        assert!(says_nothing(&agent.apply_settings(&whole).await.unwrap()));

        let changed = with_logs(everything(), "https://logs.example/v1/logs");
        server.offer_settings(uid, &changed);
        let offer = agent.next_settings().await.unwrap();
        assert_eq!(offer.hash[..], *hash::connection_settings_hash(&changed).as_bytes());
        assert_ne!(offer.hash, whole.hash);
        let alone = pb::ConnectionSettingsOffers {
            hash: offer.hash.clone(),
            own_logs: changed.own_logs.clone(),
            ..Default::default()
        };
        assert_eq!(offer, alone, "nothing but what changed");
        assert!(says_nothing(&agent.apply_settings(&offer).await.unwrap()));

        // The agent lost them, or another wrote to it: nothing it has is known any more.
        let lost = settings_status(b"something else", Applied);
        let answer = agent.report(|message| message.connection_settings_status = Some(lost)).await.unwrap();
        let again = answer.connection_settings.expect("an outdated hash");
        assert_eq!(pb::ConnectionSettingsOffers { hash: Default::default(), ..again }, changed);
    }

    /// R-CONN-21, R-CONN-22.
    async fn an_outdated_or_missing_hash_is_answered_with_the_settings(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        let (hash, _) = server.offer_settings(agent.persona.uid, &everything());
        agent.next_settings().await.unwrap();
        for reported in [&b"outdated"[..], b""] {
            let outdated = settings_status(reported, Applied);
            let answer =
                agent.report(|message| message.connection_settings_status = Some(outdated)).await.unwrap();
            let offer = answer.connection_settings.expect("more than a bare acknowledgement");
            assert_eq!(&offer.hash[..], hash.as_bytes());
        }
        let right = settings_status(hash.as_bytes(), Applied);
        let answer = agent.report(|message| message.connection_settings_status = Some(right)).await.unwrap();
        assert!(says_nothing(&answer), "none for the right one");
    }

    /// R-CONN-22: an agent that comes with the right hash is left alone, one with another hash is not.
    async fn the_first_report_decides_whether_settings_are_offered(wire: Wire) {
        let server = TestServer::start().await;
        for (number, known) in [(1, true), (2, false)] {
            let mut persona = Persona::new(number).with_settings();
            let (hash, _) = server.offer_settings(persona.uid, &everything());
            let reported = if known { hash.as_bytes() } else { b"another" };
            persona.connection_settings_status = Some(settings_status(reported, Applied));
            let (_agent, answer) = server.connector(wire).start(persona).await.unwrap();
            assert_eq!(answer.connection_settings.is_none(), known);
        }
    }

    /// R-CONN-22, A-21: no hash obliges to an offer that the capabilities forbid.
    async fn no_hash_brings_settings_to_an_agent_that_takes_none(wire: Wire) {
        let server = TestServer::start().await;
        let persona = Persona::new(1).and(AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS);
        let mut agent = server.agent(wire, persona).await;
        server.offer_settings(agent.persona.uid, &everything());
        let differs = settings_status(b"differs", Applied);
        let answer = agent.report(|message| message.connection_settings_status = Some(differs)).await.unwrap();
        assert!(says_nothing(&answer));
        requires_silence(&server, &mut agent).await;
    }

    /// R-CONN-22 in reason: what is being tried is not offered again meanwhile.
    async fn settings_that_are_being_tried_are_not_repeated(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        server.offer_settings(agent.persona.uid, &everything());
        let offer = agent.next_settings().await.unwrap();
        for _ in 0..3 {
            assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        }
        let applying = agent.persona.settings(&offer, Applying, "");
        assert!(says_nothing(&agent.exchange(&applying).await.unwrap()));
        // The trial is another connection.
        requires_silence(&server, &mut agent).await;
        assert!(says_nothing(&agent.apply_settings(&offer).await.unwrap()));
    }

    /// R-CONN-25: whatever the offer is meant to change, it says where the server is.
    async fn every_opamp_offer_has_an_endpoint(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        for url in [
            "ws://a.example/v1/opamp",
            "wss://a.example:4320/v1/opamp",
            "http://a.example/",
            "https://[::1]:4320/v1/opamp",
        ] {
            let settings = pb::OpAmpConnectionSettings {
                headers: headers(&[("Authorization", "Bearer new")]),
                ..opamp(url)
            };
            server.offer_settings(agent.persona.uid, &only_opamp(settings));
            let offer = agent.next_settings().await.unwrap();
            assert_eq!(offer.opamp.as_ref().unwrap().destination_endpoint, url);
            agent.apply_settings(&offer).await.unwrap();
        }
    }

    /// R-CONN-31: one certificate after the other, and then none.
    async fn certificates_are_rotated_and_taken_away_by_offers(wire: Wire) {
        let authority = Authority::new("fleet");
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        for generation in [Some("first"), Some("second"), None] {
            let certificate = generation.map(|name| certificate(&authority, name));
            let settings = pb::OpAmpConnectionSettings { certificate: certificate.clone(), ..opamp(ELSEWHERE) };
            server.offer_settings(agent.persona.uid, &only_opamp(settings));
            let offer = agent.next_settings().await.unwrap();
            assert_eq!(offer.opamp.as_ref().unwrap().certificate, certificate, "{generation:?}");
            assert!(says_nothing(&agent.apply_settings(&offer).await.unwrap()));
        }
    }

    /// R-HB-12, lesson "heartbeats turned off because an offer left the interval unset".
    async fn the_heartbeat_interval_is_always_filled_in(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        for (given, offered) in [(0, 30), (7, 7), (120, 120)] {
            let settings = pb::OpAmpConnectionSettings {
                destination_endpoint: format!("wss://{given}.example/v1/opamp"),
                heartbeat_interval_seconds: given,
                ..Default::default()
            };
            server.offer_settings(agent.persona.uid, &only_opamp(settings));
            let offer = agent.next_settings().await.unwrap();
            assert_eq!(offer.opamp.as_ref().unwrap().heartbeat_interval_seconds, offered);
            agent.apply_settings(&offer).await.unwrap();
        }
    }

    /// R-CONN-03 in time: who comes with the credentials it was offered is the agent that was offered them, and not a rival,
    /// even if its old connection still stands.
    async fn an_agent_that_moved_to_the_offered_credentials_is_known_by_the_hash(wire: Wire) {
        let tokens = StaticTokens::new(vec![StaticToken::new("old", "token-old"), StaticToken::new("new", "token-new")]);
        let server = TestServer::with(|setup| setup.auth = Arc::new(tokens)).await;
        let old = server.connector(Wire::WebSocket).with_token("token-old");
        let (mut agent, _) = old.start(Persona::new(1).with_settings()).await.unwrap();
        let uid = agent.persona.uid;
        let settings = pb::OpAmpConnectionSettings {
            headers: headers(&[("Authorization", "Bearer token-new")]),
            ..opamp(ELSEWHERE)
        };
        server.offer_settings(uid, &only_opamp(settings));
        let offer = agent.next_settings().await.unwrap();
        let new = server.connector(wire).with_token("token-new");
        let mut moved = new.connect(agent.persona.clone()).await.unwrap();
        let answer = moved.apply_settings(&offer).await.unwrap();
        assert!(answer.error_response.is_none(), "{answer:?}");
        let principal = server.snapshot(uid).connection.unwrap().principal.clone();
        assert_eq!(principal.to_string(), "token:new");
        assert_eq!(server.snapshot(uid).sticky.uid_conflicts, 0);
        assert!(server.refusals().is_empty());
    }

    /// R-RETRY-07: ten decisions while the agent is away are one offer.
    async fn an_agent_that_was_away_gets_the_newest_settings_alone(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        let uid = agent.persona.uid;
        agent.disconnect().await.unwrap();
        server.until(uid, |agent| agent.disconnect.is_some()).await;
        for number in 0..10 {
            server.offer_settings(uid, &only_opamp(opamp(&format!("wss://{number}.example/v1/opamp"))));
        }
        agent.reconnect().await.unwrap();
        let answer = agent.report_full_state().await.unwrap();
        let offer = answer.connection_settings.unwrap();
        assert_eq!(offer.opamp.as_ref().unwrap().destination_endpoint, "wss://9.example/v1/opamp");
        assert!(says_nothing(&agent.apply_settings(&offer).await.unwrap()));
    }
}

/// R-WS-23 for settings: an idle agent hears of them at once.
#[tokio::test]
async fn settings_are_pushed_over_websocket() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1).with_settings()).await;
    server.offer_settings(agent.persona.uid, &everything());
    assert!(agent.ws().receive().await.unwrap().connection_settings.is_some());
    assert_eq!(agent.ws().fence().await.unwrap(), []);
}

/// R-CONN-25: nothing but a WebSocket or HTTP URL becomes an offer.
#[test]
fn an_endpoint_for_opamp_is_a_websocket_or_http_url() {
    for wrong in [
        "",
        " ",
        "/v1/opamp",
        "a.example:4320",
        "ftp://a.example/",
        "wss://",
        "ws:///v1/opamp",
        "https:a.example",
    ] {
        let text = complaint(&only_opamp(opamp(wrong)));
        assert!(text.contains("opamp") && text.contains("destination_endpoint"), "{wrong:?}: {text}");
    }
    for right in
        ["ws://a.example", "WSS://a.example/v1/opamp", "http://10.0.0.1:4320/x", "https://[::1]/v1/opamp"]
    {
        assert!(judged(&only_opamp(opamp(right))).is_ok(), "{right:?}");
    }
}

/// R-CONN-32: a telemetry endpoint is complete, so that a client has nothing to append.
#[test]
fn an_endpoint_for_telemetry_is_a_full_url() {
    let with = |endpoint: &str| pb::ConnectionSettingsOffers {
        own_metrics: Some(telemetry(endpoint)),
        ..Default::default()
    };
    for wrong in [
        "",
        "otlp.example:4318",
        "https://otlp.example",
        "https://otlp.example/",
        "grpc://otlp.example/v1/metrics",
        "wss://otlp.example/v1/metrics",
        "https:///v1/metrics",
    ] {
        let text = complaint(&with(wrong));
        assert!(text.contains("own_metrics") && text.contains("destination_endpoint"), "{wrong:?}: {text}");
    }
    assert!(judged(&with("https://otlp.example:4318/v1/metrics")).is_ok());
    for (field, settings) in [
        (
            "own_traces",
            pb::ConnectionSettingsOffers { own_traces: Some(telemetry("x")), ..Default::default() },
        ),
        ("own_logs", pb::ConnectionSettingsOffers { own_logs: Some(telemetry("x")), ..Default::default() }),
    ] {
        assert!(complaint(&settings).contains(field));
    }
}

/// R-CONN-33: plaintext telemetry only if it is allowed expressly.
#[test]
fn a_telemetry_endpoint_is_https_unless_plaintext_is_allowed() {
    let plain = pb::ConnectionSettingsOffers {
        own_logs: Some(telemetry("http://otlp.example/v1/logs")),
        ..Default::default()
    };
    let text = complaint(&plain);
    assert!(text.contains("own_logs") && text.contains("https"), "{text}");
    let allowing = OfferRules { insecure_telemetry: true, ..OfferRules::default() };
    assert!(ConnectionSettingsOffer::with_rules(plain, allowing).is_ok());
}

/// R-HB-12: 0 goes out only if the caller says that there are to be no heartbeats.
#[tokio::test]
async fn heartbeats_are_switched_off_on_purpose_only() {
    let off = OfferRules { heartbeats_off: true, ..OfferRules::default() };
    let settings =
        only_opamp(pb::OpAmpConnectionSettings { heartbeat_interval_seconds: 0, ..opamp(ELSEWHERE) });
    let offer = ConnectionSettingsOffer::with_rules(settings.clone(), off).unwrap();
    assert_eq!(offer.settings().opamp.as_ref().unwrap().heartbeat_interval_seconds, 0);
    let filled = judged(&settings).unwrap();
    assert_eq!(filled.settings().opamp.as_ref().unwrap().heartbeat_interval_seconds, 30);
    assert_ne!(offer.hash(), filled.hash());
}

/// R-CONN-16: every single setting counts, and the same settings have the same hash in any process.
#[test]
fn any_setting_that_changes_changes_the_hash() {
    let base = everything();
    let mut seen = std::collections::BTreeSet::from([judged(&base).unwrap().hash().to_hex()]);
    let changes: [fn(&mut pb::ConnectionSettingsOffers); 9] = [
        |settings| settings.own_logs = None,
        |settings| settings.opamp.as_mut().unwrap().heartbeat_interval_seconds = 31,
        |settings| settings.opamp.as_mut().unwrap().headers = headers(&[("a", "b")]),
        |settings| settings.own_metrics = None,
        |settings| settings.own_traces.as_mut().unwrap().destination_endpoint += "x",
        |settings| std::mem::swap(&mut settings.own_logs, &mut settings.own_traces),
        |settings| {
            settings
                .other_connections
                .get_mut("archive")
                .unwrap()
                .other_settings
                .insert("k".into(), "v".into());
        },
        |settings| {
            let other = settings.other_connections.remove("archive").unwrap();
            settings.other_connections.insert("archive2".to_owned(), other);
        },
        |settings| {
            settings.opamp.as_mut().unwrap().tls =
                Some(pb::TlsConnectionSettings { min_version: "1.3".to_owned(), ..Default::default() });
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = base.clone();
        change(&mut changed);
        assert!(seen.insert(judged(&changed).unwrap().hash().to_hex()), "change {number}");
    }
    assert_eq!(judged(&base).unwrap().hash(), judged(&everything()).unwrap().hash());
}

/// R-WS-17 for settings: what is too large is not sent, and that shows.
#[tokio::test]
async fn settings_beyond_the_send_limit_are_never_sent_and_that_is_recorded() {
    let server = TestServer::with(|setup| setup.settings.session.send_bytes_max = 4_096).await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1).with_settings()).await;
    let uid = agent.persona.uid;
    let padding = "x".repeat(8_192);
    let settings =
        pb::OpAmpConnectionSettings { headers: headers(&[("X-Padding", &padding)]), ..opamp(ELSEWHERE) };
    server.offer_settings(uid, &only_opamp(settings));
    server.until(uid, |agent| agent.connection_settings.too_large).await;
    assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    server.assign(uid, &yaml("a: 1\n"));
    assert!(agent.next_offer().await.is_ok(), "smaller messages flow");
    server.clock.advance(Duration::from_secs(60));
    assert!(says_nothing(&agent.heartbeat().await.unwrap()));
}

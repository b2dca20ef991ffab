//! Settings of the OpAMP connection: tried, reported, kept.

use std::time::Duration;

use opamp_client::connection::SettingsPolicy;
use opamp_client::session::{Input, Output, Setup};
use opamp_client::{Event, Failure, FailureKind, SavedState, Transport};
use opamp_proto::pb;

use crate::bench::{ALL, Bench, Step, parts, seconds};

pub(crate) use opamp_proto::pb::ConnectionSettingsStatuses::{Applied, Applying, Failed};

/// An endpoint that is reached like the first one.
pub(crate) fn elsewhere(transport: Transport) -> &'static str {
    match transport {
        Transport::WebSocket => "wss://elsewhere/v1/opamp",
        Transport::Http => "https://elsewhere/v1/opamp",
    }
}

pub(crate) fn with_endpoint(endpoint: &str) -> pb::OpAmpConnectionSettings {
    pb::OpAmpConnectionSettings { destination_endpoint: endpoint.into(), ..Default::default() }
}

pub(crate) fn certificate(cert: &'static [u8], key: &'static [u8]) -> Option<pb::TlsCertificate> {
    Some(pb::TlsCertificate { cert: cert.into(), private_key: key.into(), ..Default::default() })
}

pub(crate) fn offer(hash: &[u8], opamp: pb::OpAmpConnectionSettings) -> pb::ServerToAgent {
    let offers =
        pb::ConnectionSettingsOffers { hash: hash.to_vec().into(), opamp: Some(opamp), ..Default::default() };
    pb::ServerToAgent { connection_settings: Some(offers), capabilities: ALL, ..Default::default() }
}

pub(crate) fn takes_settings(setup: &mut Setup) {
    setup.abilities.opamp_settings = true;
    setup.abilities.durable = true;
}

impl Bench {
    /// An agent that takes settings of its connection, and is connected.
    pub(crate) fn settable(transport: Transport) -> Self {
        let mut bench = Self::with(transport, takes_settings);
        bench.connect();
        bench
    }

    /// A new process of the same agent.
    pub(crate) fn restarted(saved: SavedState, transport: Transport) -> Self {
        Self::with(transport, |setup| {
            takes_settings(setup);
            setup.saved = saved;
        })
    }

    /// Offers settings and lets the agent leave the connection it has.
    pub(crate) fn offer_settings(&mut self, hash: &[u8], opamp: pb::OpAmpConnectionSettings) -> Step {
        let step = self.answer(offer(hash, opamp));
        self.left(step)
    }

    /// The server's half of the closing handshake, if there is one.
    pub(crate) fn left(&mut self, mut step: Step) -> Step {
        if step.outputs.iter().any(|output| matches!(output, Output::Close(_))) {
            step.extend(self.tell(Input::Closed { code: Some(1000), reason: String::new() }));
        }
        if step.sent.iter().any(|message| message.agent_disconnect.is_some()) && step.dialed().is_empty() {
            let wait = self.until_dial();
            assert!(wait <= seconds(1), "{step:?}");
            step.extend(self.pass(wait));
        }
        step
    }

    /// Comes back to the first endpoint as it was configured.
    pub(crate) fn come_back(&mut self) -> Step {
        let mut step = self.pass(seconds(2));
        assert_eq!(step.connects(), [0], "back within bounded time: {step:?}");
        step.extend(self.tell(Input::Connected));
        step
    }
}

/// The last status that was reported.
pub(crate) fn last_report(step: &Step) -> (Vec<u8>, pb::ConnectionSettingsStatuses, String) {
    step.settings_reports().pop().unwrap_or_else(|| panic!("no report: {step:?}"))
}

on_both_transports! {
    /// R-CONN-06, R-CONN-07, R-CONN-11, R-CONN-20, R-CONN-23, R-LIFE-16.
    fn settings_are_announced_then_left_for_and_applied_with_the_first_answer(transport) {
        let mut bench = Bench::settable(transport);
        let step = bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
        let said: Vec<_> = step.sent.iter().map(parts).collect();
        assert_eq!(said, [vec!["connection_settings_status"], vec!["agent_disconnect"]], "in this order");
        assert_eq!(last_report(&step), (b"h".to_vec(), Applying, String::new()));
        let candidate = step.dialed();
        assert_eq!((candidate.len(), candidate[0].endpoint.as_str()), (1, elsewhere(transport)));
        let saved = bench.session.saved().connections;
        assert!(saved.candidate.is_some() && saved.accepted.is_none(), "{saved:?}");
        bench.answers = false;
        let step = bench.tell(Input::Connected);
        assert!(step.message().agent_description.is_some(), "another server knows nothing");
        assert_eq!(last_report(&step).1, Applying, "nothing is proven yet");
        bench.answers = true;
        if transport == Transport::WebSocket {
            bench.tell(Input::Written);
        }
        let step = bench.ack();
        assert_eq!(last_report(&step), (b"h".to_vec(), Applied, String::new()));
        assert!(step.events.iter().any(|event| matches!(event, Event::ConnectionSettingsApplied { .. })));
        let saved = bench.session.saved().connections;
        assert_eq!((saved.accepted.unwrap().endpoint.as_str(), saved.candidate), (elsewhere(transport), None));
        assert!(bench.pass(seconds(29)).sent.iter().all(|message| parts(message).is_empty()), "told once");
    }

    /// R-CONN-10: what was accepted is used after a restart, and nothing else.
    fn accepted_settings_are_used_from_the_next_start_on(transport) {
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
        bench.tell(Input::Connected);
        for _ in 0..2 {
            bench = Bench::restarted(bench.session.saved(), transport);
            let step = bench.tell(Input::Start);
            assert_eq!((step.dialed().len(), step.connects().len()), (1, 0), "{step:?}");
            let step = bench.tell(Input::Connected);
            assert_eq!(last_report(&step), (b"h".to_vec(), Applied, String::new()), "the hash is known as well");
            let step = bench.lose();
            assert!(step.dialed().is_empty());
            let step = bench.pass(seconds(2));
            assert_eq!((step.dialed().len(), step.connects().len()), (1, 0), "and also after a loss: {step:?}");
            bench.tell(Input::Connected);
        }
    }

    fn an_offer_that_is_known_is_no_news(transport) {
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
        bench.tell(Input::Connected);
        for _ in 0..5 {
            let step = bench.answer(offer(b"h", with_endpoint("wss://third/")));
            assert!(step.is_silent() || transport == Transport::Http, "{step:?}");
            assert!(step.dialed().is_empty() && step.settings_reports().is_empty(), "{step:?}");
        }
    }

    /// R-CONN-23: settings that are in use already are applied as they are.
    fn settings_that_are_in_use_are_applied_without_a_reconnect(transport) {
        let mut bench = Bench::settable(transport);
        let settings = || pb::OpAmpConnectionSettings {
            headers: Some(pb::Headers { headers: vec![pb::Header { key: "a".into(), value: "b".into() }] }),
            certificate: certificate(b"c", b"k"),
            ..with_endpoint(elsewhere(transport))
        };
        bench.offer_settings(b"1", settings());
        bench.tell(Input::Connected);
        let step = bench.answer(offer(b"2", settings()));
        assert_eq!(last_report(&step), (b"2".to_vec(), Applied, String::new()));
        assert!(bench.session.is_connected() && step.handed_over().is_empty());
        // The key is not with whoever has only seen the request for it.
        let step = bench.answer(offer(b"3", pb::OpAmpConnectionSettings { certificate: certificate(b"c", b""), ..settings() }));
        assert_eq!(last_report(&step), (b"3".to_vec(), Applied, String::new()));
        bench.pass(seconds(40));
        let step = bench.answer(offer(b"4", pb::OpAmpConnectionSettings { heartbeat_interval_seconds: 5, ..settings() }));
        assert_eq!(last_report(&step), (b"4".to_vec(), Applied, String::new()), "another interval is no reason to leave");
        assert!(bench.session.is_connected());
        assert!(bench.pass(seconds(20)).sent.len() >= 4);
    }

    /// What was configured, offered by a server that only wants another interval.
    fn settings_that_say_no_more_than_the_configuration_are_applied_without_a_reconnect(transport) {
        let mut bench = Bench::settable(transport);
        let opamp = pb::OpAmpConnectionSettings { heartbeat_interval_seconds: 5, ..with_endpoint("first") };
        // The bench's endpoint has no scheme; one is needed to be taken at all.
        let why = last_report(&bench.answer(offer(b"1", opamp.clone()))).2;
        assert!(why.contains("scheme"), "{why}");
        let name = if transport == Transport::Http { "http://first/" } else { "ws://first/" };
        let mut bench = Bench::with(transport, |setup| {
            takes_settings(setup);
            setup.endpoint.name = name.into();
        });
        bench.connect();
        let opamp = pb::OpAmpConnectionSettings { destination_endpoint: name.into(), ..opamp };
        let step = bench.answer(offer(b"2", opamp.clone()));
        assert_eq!(last_report(&step).1, Applied);
        assert!(bench.session.is_connected() && step.handed_over().is_empty());
        let mut bench = Bench::with(transport, |setup| {
            takes_settings(setup);
            setup.endpoint.name = name.into();
            setup.abilities.shows_certificate = true;
        });
        bench.connect();
        let step = bench.offer_settings(b"2", opamp);
        assert_eq!(step.dialed().len(), 1, "without the certificate they are other settings (R-CONN-30)");
    }

    /// What events show of an address is less than the address: what is in a query may be what lets the agent in.
    fn an_address_without_the_configured_query_is_another_one_and_has_to_be_proven(transport) {
        let name = if transport == Transport::Http { "http://first/" } else { "ws://first/" };
        let whole = format!("{name}?token=hunter2");
        let connected = || {
            let mut bench = Bench::with(transport, |setup| {
                takes_settings(setup);
                setup.endpoint = crate::bench::endpoint(name, transport).with_address(whole.as_str());
            });
            bench.connect();
            bench
        };
        let mut bench = connected();
        let step = bench.offer_settings(b"h", with_endpoint(name));
        assert_eq!(step.dialed().len(), 1, "{step:?}");
        assert_eq!((last_report(&step).1, &bench.session.saved().connections.accepted), (Applying, &None));
        let mut bench = connected();
        let step = bench.answer(offer(b"h", with_endpoint(&whole)));
        assert_eq!((last_report(&step).1, step.handed_over().len()), (Applied, 0));
        assert_eq!(bench.session.saved().connections.accepted.as_ref().unwrap().endpoint, whole, "and so it stays");
        assert!(!format!("{:?}", bench.session).contains("hunter2"));
    }

    /// The configured host may be shown what was configured for it, but by nobody else's authorities and proxies.
    fn another_server_does_not_say_how_the_configured_host_is_reached_with_its_credentials(transport) {
        let home = elsewhere(transport).replace("elsewhere", "first");
        let by = |policy: SettingsPolicy| {
            let mut bench = Bench::with(transport, |setup| {
                takes_settings(setup);
                setup.endpoint.name = home.as_str().into();
                setup.abilities.policy = policy;
            });
            bench.connect();
            bench
        };
        let authority = || pb::OpAmpConnectionSettings {
            tls: Some(pb::TlsConnectionSettings { ca_pem_contents: "theirs".into(), ..Default::default() }),
            ..with_endpoint(&home)
        };
        let proxy = || pb::OpAmpConnectionSettings {
            proxy: Some(pb::ProxyConnectionSettings { url: "http://theirs".into(), ..Default::default() }),
            ..with_endpoint(&home)
        };
        let headers = |step: &Step| step.dialed()[0].headers.clone();
        for lead in [authority(), proxy()] {
            let mut bench = by(SettingsPolicy::strict());
            assert_eq!(headers(&bench.offer_settings(b"1", lead.clone())), None, "the host itself may say");
            bench.tell(Input::Connected);
            for (policy, shown) in [(SettingsPolicy::strict(), false), (SettingsPolicy::strict().allow_credentials_elsewhere(), true)] {
                let mut bench = by(policy);
                bench.offer_settings(b"1", with_endpoint(elsewhere(transport)));
                bench.tell(Input::Connected);
                let step = bench.offer_settings(b"2", lead.clone());
                assert_eq!(headers(&step), if shown { None } else { Some(Vec::new()) }, "{policy:?}");
            }
            let mut bench = by(SettingsPolicy::strict());
            bench.offer_settings(b"1", with_endpoint(elsewhere(transport)));
            bench.tell(Input::Connected);
            let step = bench.offer_settings(b"2", with_endpoint(&home));
            assert_eq!(headers(&step), None, "back to what was configured, and nothing else");
        }
    }

    /// What is accepted may be the only way to a server. It is not lost because it could not be read once.
    fn accepted_settings_that_cannot_be_used_now_are_kept_until_a_server_has_answered(transport) {
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
        bench.tell(Input::Connected);
        let accepted = bench.session.saved();
        let mut bench = Bench::restarted(accepted.clone(), transport);
        bench.tell(Input::SettingsUnusable(opamp_client::Rejected::new("a file is half written")));
        bench.tell(Input::Start);
        bench.tell(Input::Failed(Failure::new(FailureKind::Auth, "401")));
        let kept = bench.session.saved();
        assert!(kept.connections.accepted.is_some());
        let mut again = Bench::restarted(kept.clone(), transport);
        assert_eq!(again.tell(Input::Start).dialed().len(), 1, "the file is whole again");
        let strict = |saved: SavedState| Bench::with(transport, |setup| {
            takes_settings(setup);
            setup.endpoint.name = "first".into();
            setup.abilities.durable = false;
            setup.saved = saved;
        });
        let mut saved = accepted;
        let certificate = opamp_client::connection::ClientCertificate { cert: b"c".to_vec(), key: "k".into(), ca: Vec::new() };
        let with = opamp_client::connection::OpampSettings {
            certificate: Some(certificate),
            ..(**saved.connections.accepted.as_ref().unwrap()).clone()
        };
        saved.connections.accepted = Some(with.into());
        let mut bench = strict(saved);
        assert_eq!(bench.tell(Input::Start).connects(), [0], "the policy of today");
        assert!(bench.session.saved().connections.accepted.is_some());
        bench.tell(Input::Connected);
        assert_eq!(bench.session.saved().connections.accepted, None, "there is a server without it");
    }

    /// R-CONN-17.
    fn an_offer_without_opamp_settings_is_no_reason_to_leave(transport) {
        let mut bench = Bench::settable(transport);
        let offers = pb::ConnectionSettingsOffers { hash: b"h".to_vec().into(), ..Default::default() };
        let step = bench.answer(pb::ServerToAgent { connection_settings: Some(offers), ..Default::default() });
        assert_eq!(last_report(&step), (b"h".to_vec(), Applied, String::new()));
        assert!(bench.session.is_connected());
    }

    /// R-CONN-20: opaque, whatever its length.
    fn the_hash_is_reported_as_it_came(transport) {
        for length in [1, 20, 64] {
            let hash: Vec<u8> = (0..length).map(|byte| byte ^ 0xa5).collect();
            let mut bench = Bench::settable(transport);
            bench.offer_settings(&hash, with_endpoint(elsewhere(transport)));
            assert_eq!(last_report(&bench.tell(Input::Connected)).0, hash);
            let step = bench.answer(offer(&[&hash[..], b"x"].concat(), with_endpoint("")));
            assert_eq!(last_report(&step).0, [&hash[..], b"x"].concat());
        }
    }

    /// R-CONN-24.
    fn the_text_of_a_failure_is_gone_with_the_next_success(transport) {
        let mut bench = Bench::settable(transport);
        let step = bench.answer(offer(b"1", with_endpoint("")));
        let (_, status, why) = last_report(&step);
        assert!(status == Failed && why.contains("destination_endpoint"), "{why}");
        let step = bench.offer_settings(b"2", with_endpoint(elsewhere(transport)));
        assert_eq!(last_report(&step), (b"2".to_vec(), Applying, String::new()));
        assert_eq!(last_report(&bench.tell(Input::Connected)), (b"2".to_vec(), Applied, String::new()));
    }

    /// R-CAP-29, R-STATUS-13.
    fn the_status_is_reported_by_whoever_announces_it_and_not_repeated(transport) {
        let mut plain = Bench::on(transport);
        let message = plain.connect().message().clone();
        assert_eq!(message.capabilities & 0x8300, 0);
        assert!(message.connection_settings_status.is_none());
        let mut bench = Bench::with(transport, takes_settings);
        let message = bench.connect().message().clone();
        assert_eq!(message.capabilities & 0x8100, 0x8100);
        assert!(message.connection_settings_status.is_some());
        bench.answer(offer(b"1", with_endpoint("")));
        let step = bench.pass(seconds(300));
        assert!(step.sent.len() >= 9 && step.settings_reports().is_empty(), "{step:?}");
    }

    /// A server that changes its mind with every answer does not keep the agent from working.
    fn offers_without_end_are_begun_now_and_then(transport) {
        let mut bench = Bench::settable(transport);
        let mut begun = 0;
        for number in 0..200_u32 {
            let step = bench.answer(offer(&number.to_be_bytes(), with_endpoint("")));
            begun += step.settings_reports().len();
            begun += bench.pass(seconds(1)).settings_reports().len();
        }
        let most = if transport == Transport::Http { 200 * 31 / 30 + 4 } else { 200 / 30 + 4 };
        assert!(begun >= 4 && begun <= most, "{begun}");
        let step = bench.pass(seconds(60));
        assert!(step.settings_reports().iter().all(|(hash, ..)| *hash == 199_u32.to_be_bytes()), "the newest waits");
    }

    /// A person who configures the agent anew comes before a server.
    fn another_configured_endpoint_forgets_what_a_server_has_set(transport) {
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
        bench.tell(Input::Connected);
        let saved = bench.session.saved();
        let mut bench = Bench::with(transport, |setup| {
            takes_settings(setup);
            setup.saved = saved.clone();
            setup.endpoint.name = "another".into();
        });
        let step = bench.connect();
        assert!(step.dialed().is_empty());
        assert_eq!(last_report(&step), (Vec::new(), pb::ConnectionSettingsStatuses::Unset, String::new()));
        assert_eq!(bench.session.saved().connections.accepted, None);
        let mut off = Bench::with(transport, |setup| setup.saved = saved);
        assert!(off.connect().dialed().is_empty(), "so does an agent that takes settings no more");
    }

    /// What one process was allowed to accept, the next need not be: the server offers it again and is told why not.
    fn a_stricter_policy_drops_what_was_accepted_under_a_laxer_one(transport) {
        let lax = SettingsPolicy::strict().allow_plaintext().allow_insecure_skip_verify().allow_plaintext_telemetry();
        let process = |policy: SettingsPolicy, saved: Option<SavedState>| {
            Bench::with(transport, move |setup| {
                takes_settings(setup);
                setup.abilities.own_logs = true;
                setup.abilities.policy = policy;
                setup.endpoint.name = elsewhere(transport).replace("elsewhere", "first").into();
                if let Some(saved) = saved {
                    setup.saved = saved;
                }
            })
        };
        let tls = Some(pb::TlsConnectionSettings { insecure_skip_verify: true, ..Default::default() });
        let blind = pb::OpAmpConnectionSettings { tls, ..with_endpoint(elsewhere(transport)) };
        let plain = if transport == Transport::Http { "http://elsewhere/" } else { "ws://elsewhere/" };
        for (opamp, what) in [(blind, "insecure_skip_verify"), (with_endpoint(plain), "no TLS")] {
            let mut bench = process(lax, None);
            bench.connect();
            let logs = pb::TelemetryConnectionSettings { destination_endpoint: "http://sink/".into(), ..Default::default() };
            let offers = || pb::ServerToAgent {
                connection_settings: Some(pb::ConnectionSettingsOffers {
                    hash: b"h"[..].into(), opamp: Some(opamp.clone()), own_logs: Some(logs.clone()), ..Default::default()
                }),
                ..Default::default()
            };
            let step = bench.answer(offers());
            bench.left(step);
            let candidate = bench.session.saved();
            bench.tell(Input::Connected);
            let accepted = bench.session.saved();
            assert!(accepted.connections.accepted.is_some() && accepted.connections.telemetry.len() == 1);
            let mut same = process(lax, Some(accepted.clone()));
            assert_eq!(same.tell(Input::Start).dialed().len(), 1, "allowed as before");
            for saved in [accepted, candidate] {
                let mut bench = process(SettingsPolicy::strict(), Some(saved));
                let mut step = bench.tell(Input::Start);
                assert_eq!((step.connects().len(), step.dialed().len()), (1, 0), "{what}: {step:?}");
                let told = |event: &Event| matches!(event, Event::ConnectionSettingsRejected { why } if why.contains("given earlier"));
                assert_eq!(step.events.iter().filter(|event| told(event)).count(), 2, "{step:?}");
                step.extend(bench.tell(Input::Connected));
                assert_eq!(last_report(&step).0, Vec::<u8>::new(), "so that it is offered again");
                assert!(bench.session.saved().connections.telemetry.is_empty());
                let (hash, status, why) = last_report(&bench.answer(offers()));
                assert!(hash == b"h" && status == Failed && why.contains(what), "{why}");
            }
        }
    }

    fn accepted_settings_that_make_no_connection_any_more_give_way_to_the_configuration(transport) {
        let mut bench = Bench::settable(transport);
        bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
        bench.tell(Input::Connected);
        bench = Bench::restarted(bench.session.saved(), transport);
        let step = bench.tell(Input::SettingsUnusable(opamp_client::Rejected::new("no such cipher suite")));
        assert!(matches!(&step.events[..], [Event::ConnectionSettingsRejected { .. }]), "{step:?}");
        let mut step = bench.tell(Input::Start);
        assert_eq!((step.connects().len(), step.dialed().len()), (1, 0));
        step.extend(bench.tell(Input::Connected));
        assert_eq!(last_report(&step).0, Vec::<u8>::new());
        assert_eq!(bench.session.saved().connections.accepted, None);
        bench.lose();
        assert_eq!(bench.pass(seconds(2)).connects(), [0]);
    }

    /// R-HB-04, R-HB-05, A-02: the interval of settings counts once they are accepted, and goes with them.
    fn the_interval_belongs_to_the_settings(transport) {
        let mut bench = Bench::settable(transport);
        let opamp = |seconds| pb::OpAmpConnectionSettings {
            heartbeat_interval_seconds: seconds,
            ..with_endpoint(elsewhere(transport))
        };
        bench.offer_settings(b"1", opamp(3));
        bench.tell(Input::Failed(Failure::new(FailureKind::Refused, "refused")));
        bench.come_back();
        assert!((4..=6).contains(&bench.pass(seconds(150)).sent.len()), "those of before");
        bench.offer_settings(b"2", opamp(3));
        bench.tell(Input::Connected);
        assert!((49..=52).contains(&bench.pass(seconds(150)).sent.len()));
        bench = Bench::restarted(bench.session.saved(), transport);
        bench.tell(Input::Start);
        bench.tell(Input::Connected);
        assert!((49..=52).contains(&bench.pass(seconds(150)).sent.len()), "also after a restart");
        bench.answer(offer(b"3", opamp(0)));
        let beats = bench.pass(seconds(300)).sent.len();
        assert_eq!(beats, if transport == Transport::Http { 10 } else { 0 }, "never polling");
    }

    fn a_part_or_offer_that_is_too_large_fails_under_its_hash(transport) {
        let mut bench = Bench::with(transport, |setup| {
            takes_settings(setup);
            setup.settings.settings_bytes_max = 100;
        });
        bench.connect();
        let long = format!("{}/{}", elsewhere(transport), "x".repeat(100));
        let step = bench.answer(offer(b"h", with_endpoint(&long)));
        let (hash, status, why) = last_report(&step);
        assert!(hash == b"h" && status == Failed && why.contains("100 bytes"), "{why}");
        assert!(bench.session.is_connected());
    }

    fn a_fallback_is_used_while_the_accepted_endpoint_is_gone_and_left_for_it(transport) {
        let mut bench = Bench::with(transport, |setup| {
            takes_settings(setup);
            setup.fallbacks = vec![crate::bench::endpoint("second", transport)];
        });
        bench.connect();
        bench.offer_settings(b"h", with_endpoint(elsewhere(transport)));
        bench.tell(Input::Connected);
        bench.lose();
        let step = bench.pass(seconds(2));
        assert_eq!(step.dialed().len(), 1);
        let step = bench.tell(Input::Failed(Failure::new(FailureKind::Refused, "refused")));
        assert_eq!(step.connects(), [1], "{step:?}");
        bench.tell(Input::Connected);
        let step = bench.pass(Duration::from_secs(1_000));
        let probes = |output: &&Output| matches!(output, Output::ProbeOffered(_));
        assert!(step.outputs.iter().filter(probes).count() >= 1, "it is looked after as it was offered");
        let step = bench.tell(Input::Probed(true));
        let step = bench.left(step);
        assert_eq!(step.dialed().len(), 1, "{step:?}");
    }
}

/// R-SEC-01: nothing of an offer is in what is printed.
#[test]
fn nothing_secret_is_shown_by_a_session() {
    let mut bench = Bench::settable(Transport::WebSocket);
    let opamp = pb::OpAmpConnectionSettings {
        headers: Some(pb::Headers { headers: vec![pb::Header { key: "a".into(), value: "hunter2".into() }] }),
        certificate: certificate(b"hunter2", b"hunter2"),
        ..with_endpoint("wss://u/x?hunter2")
    };
    let step = bench.offer_settings(b"h", opamp);
    let shown = format!("{step:?} {:?} {:?}", bench.session, bench.session.saved());
    assert!(!shown.contains("hunter2") && !shown.contains("104, 117, 110"), "{shown}");
    bench.tell(Input::Connected);
    let shown = format!("{:?} {:?}", bench.session, bench.session.saved());
    assert!(!shown.contains("hunter2") && !shown.contains("104, 117, 110"), "{shown}");
}

/// What is refused by default, and taken where the configuration allows it by name.
#[test]
fn an_exception_has_to_be_made_by_name() {
    let tls = |policy: SettingsPolicy| {
        let mut bench = Bench::with(Transport::WebSocket, |setup| {
            takes_settings(setup);
            setup.endpoint.name = "wss://first/".into();
            setup.abilities.policy = policy;
        });
        bench.connect();
        let step = bench.offer_settings(b"h", with_endpoint("ws://elsewhere/"));
        step.dialed().len()
    };
    assert_eq!(tls(SettingsPolicy::strict()), 0);
    assert_eq!(tls(SettingsPolicy::strict().allow_plaintext()), 1);
}

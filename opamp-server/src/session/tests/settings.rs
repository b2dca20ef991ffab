//! Connection settings: what of them is offered, when, and to whom.

use super::*;
use crate::desired::{ConnectionSettingsOffer, SettingsParts};

const STATUS: u64 = Caps::REPORTS_CONNECTION_SETTINGS_STATUS.bits();

fn telemetry(url: &str) -> Option<pb::TelemetryConnectionSettings> {
    Some(pb::TelemetryConnectionSettings { destination_endpoint: url.into(), ..Default::default() })
}

/// Settings of every class; `logs` is where the logs go.
fn everything(logs: &str) -> pb::ConnectionSettingsOffers {
    let header = pb::Header { key: "Authorization".into(), value: "Bearer hunter2".into() };
    pb::ConnectionSettingsOffers {
        opamp: Some(pb::OpAmpConnectionSettings {
            destination_endpoint: "wss://example.com/v1/opamp".into(),
            headers: Some(pb::Headers { headers: vec![header] }),
            ..Default::default()
        }),
        own_metrics: telemetry("https://example.com/v1/metrics"),
        own_traces: telemetry("https://example.com/v1/traces"),
        own_logs: telemetry(logs),
        other_connections: [("db".to_owned(), pb::OtherConnectionSettings::default())].into(),
        ..Default::default()
    }
}

fn offer(logs: &str) -> ConnectionSettingsOffer {
    ConnectionSettingsOffer::new(everything(logs)).unwrap()
}

const A: &str = "https://a.example.com/v1/logs";
const B: &str = "https://b.example.com/v1/logs";

impl Table {
    fn settings(&mut self, generation: u64, offer: &ConnectionSettingsOffer) -> Vec<pb::ServerToAgent> {
        self.input(Input::Desired(Desired::connection_settings(generation, offer.clone())));
        self.input(Input::Wake)
    }

    fn settings_status(
        &mut self,
        hash: &ConfigHash,
        status: pb::ConnectionSettingsStatuses,
    ) -> pb::ServerToAgent {
        let error = if status == pb::ConnectionSettingsStatuses::Failed { "no such host" } else { "" };
        let status = pb::ConnectionSettingsStatus {
            last_connection_settings_hash: hash.to_bytes(),
            status: status as i32,
            error_message: error.into(),
        };
        self.say(pb::AgentToServer { connection_settings_status: Some(status), ..Default::default() })
    }

    fn applies(&mut self, offer: &ConnectionSettingsOffer) -> pb::ServerToAgent {
        self.settings_status(offer.hash(), pb::ConnectionSettingsStatuses::Applied)
    }
}

fn parts_of(offer: &pb::ConnectionSettingsOffers) -> SettingsParts {
    let interval = offer.opamp.as_ref().is_some_and(|opamp| opamp.heartbeat_interval_seconds != 0);
    [
        (offer.opamp.is_some(), SettingsParts::OPAMP),
        (interval, SettingsParts::HEARTBEAT_INTERVAL),
        (offer.own_metrics.is_some(), SettingsParts::OWN_METRICS),
        (offer.own_traces.is_some(), SettingsParts::OWN_TRACES),
        (offer.own_logs.is_some(), SettingsParts::OWN_LOGS),
        (!offer.other_connections.is_empty(), SettingsParts::OTHER_CONNECTIONS),
    ]
    .into_iter()
    .filter(|(present, _)| *present)
    .fold(SettingsParts::NONE, |parts, (_, part)| parts | part)
}

fn offered(messages: &[pb::ServerToAgent]) -> &pb::ConnectionSettingsOffers {
    let mut offers = messages.iter().filter_map(|message| message.connection_settings.as_ref());
    let first = offers.next().expect("an offer");
    assert!(offers.next().is_none(), "one offer");
    first
}

/// R-CONN-02, R-HB-12: all classes together, the interval filled in.
#[test]
fn settings_of_all_classes_are_pushed_to_a_socket_and_wait_for_the_next_poll() {
    let whole = offer(A);
    let mut socket = Table::websocket();
    socket.full();
    let pushed = socket.settings(1, &whole);
    assert_eq!(offered(&pushed), whole.settings());
    assert_eq!(offered(&pushed).opamp.as_ref().unwrap().heartbeat_interval_seconds, 30);
    let mut polling = Table::on(Transport::Http);
    polling.full();
    assert!(polling.settings(1, &whole).is_empty());
    assert_eq!(polling.heartbeat().connection_settings.as_ref(), Some(whole.settings()));
    assert!(polling.heartbeat().connection_settings.is_none());
}

/// R-CONN-16.
#[test]
fn a_change_of_one_part_is_sent_alone_under_a_hash_over_all() {
    for (transport, interval) in [(Transport::WebSocket, 30), (Transport::Http, 60)] {
        let mut table = Table::on(transport);
        table.full();
        let (a, b) = (offer(A), offer(B));
        table.settings(1, &a);
        if transport == Transport::Http {
            table.heartbeat();
        }
        assert!(table.applies(&a).connection_settings.is_none());
        let mut sent = table.settings(2, &b);
        sent.push(table.heartbeat());
        let changed = offered(&sent);
        assert_eq!(parts_of(changed), SettingsParts::OWN_LOGS);
        assert_eq!(changed.own_logs, b.settings().own_logs);
        assert_eq!(changed.hash, b.settings().hash);
        assert_ne!(changed.hash, a.settings().hash);
        assert!(table.applies(&b).connection_settings.is_none());
        // An interval alone travels in the OpAMP settings, which replace the whole.
        let mut other = everything(B);
        other.opamp.as_mut().unwrap().heartbeat_interval_seconds = interval + 1;
        let other = ConnectionSettingsOffer::new(other).unwrap();
        let mut sent = table.settings(3, &other);
        sent.push(table.heartbeat());
        assert_eq!(offered(&sent).opamp, other.settings().opamp);
        assert_eq!(parts_of(offered(&sent)), SettingsParts::OPAMP | SettingsParts::HEARTBEAT_INTERVAL);
    }
}

/// R-CONN-16: what the agent has is not known, so it is told everything.
#[test]
fn everything_is_sent_when_it_is_not_known_what_the_agent_has() {
    let mut table = Table::websocket();
    table.full();
    let (a, b) = (offer(A), offer(B));
    table.settings(1, &a);
    assert_eq!(parts_of(offered(&table.settings(2, &b))), b.parts(), "the first was not reported as applied");
    table.applies(&b);
    table.settings_status(&ConfigHash::new("theirs"), pb::ConnectionSettingsStatuses::Applied);
    assert_eq!(parts_of(offered(&table.settings(3, &a))), a.parts(), "it has somebody else's");
}

/// R-CONN-16: after a failure nobody knows what the agent has, and going back to what it applied before is an offer too.
#[test]
fn settings_that_were_applied_before_a_failure_are_offered_in_full_again() {
    let mut table = Table::websocket();
    table.full();
    let (a, b) = (offer(A), offer(B));
    table.settings(1, &a);
    table.applies(&a);
    table.settings(2, &b);
    table.settings_status(b.hash(), pb::ConnectionSettingsStatuses::Failed);
    assert_eq!(parts_of(offered(&table.settings(3, &a))), a.parts());
    table.applies(&a);
    // Nothing differs, but the agent has to learn of the hash.
    let mut polled = everything(A);
    polled.opamp.as_mut().unwrap().heartbeat_interval_seconds = 77;
    let same_parts_for_it = ConnectionSettingsOffer::new(polled).unwrap();
    let mut deaf = Table::websocket();
    deaf.capabilities = ALL & !Caps::REPORTS_HEARTBEAT.bits();
    deaf.full();
    deaf.settings(1, &a);
    deaf.applies(&a);
    let sent = deaf.settings(2, &same_parts_for_it);
    assert_eq!(parts_of(offered(&sent)), a.parts().without(SettingsParts::HEARTBEAT_INTERVAL));
}

/// R-CONN-21, R-CONN-22.
#[test]
fn an_outdated_settings_hash_is_answered_with_the_offer_and_the_right_one_is_not() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut table = Table::on(transport);
        table.full();
        let wanted = offer(A);
        table.settings(1, &wanted);
        let old = ConfigHash::new("old");
        let answer = table.settings_status(&old, pb::ConnectionSettingsStatuses::Applied);
        assert_eq!(parts_of(&answer.connection_settings.unwrap()), wanted.parts());
        let applying = pb::ConnectionSettingsStatuses::Applying;
        assert!(table.settings_status(wanted.hash(), applying).connection_settings.is_none());
        assert!(table.applies(&wanted).connection_settings.is_none());
        assert!(table.heartbeat().connection_settings.is_none());
        let snapshot = table.session.snapshot().connection_settings;
        assert_eq!(snapshot.report.unwrap().hash, *wanted.hash());
        assert_eq!(snapshot.last_applied.unwrap().0, *wanted.hash());
    }
}

/// R-OWN-05: the settled session is silent.
#[test]
fn failed_settings_are_not_offered_again_in_the_same_generation() {
    let mut table = Table::websocket();
    table.full();
    let bad = offer(A);
    table.settings(1, &bad);
    table.settings_status(bad.hash(), pb::ConnectionSettingsStatuses::Applying);
    let failed = pb::ConnectionSettingsStatuses::Failed;
    assert!(table.settings_status(bad.hash(), failed).connection_settings.is_none());
    let facts = table.session.snapshot().connection_settings;
    assert!(facts.failed);
    assert_eq!(facts.last_failure.unwrap().error, "no such host");
    for _ in 0..5 {
        table.pass(3_600);
        table.attach(Transport::WebSocket);
        let old = ConfigHash::new("old");
        let answer = table.settings_status(&old, pb::ConnectionSettingsStatuses::Applied);
        assert!(answer.connection_settings.is_none());
    }
    assert_eq!(parts_of(offered(&table.settings(2, &bad))), bad.parts(), "assigned anew");
}

#[test]
fn an_agent_that_reports_no_settings_status_is_offered_one_hash_once_however_often_it_reconnects() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut table = Table::on(transport);
        table.capabilities = ALL & !STATUS;
        table.full();
        let wanted = offer(A);
        let mut count = table.settings(1, &wanted).len();
        for round in 0..20 {
            count += usize::from(table.heartbeat().connection_settings.is_some());
            table.pass(600);
            table.attach(transport);
            // Whether it goes on counting or starts anew.
            table.sequence = if round % 2 == 0 { table.sequence } else { round };
            count += usize::from(table.full().connection_settings.is_some());
        }
        assert_eq!(count, 1);
        let again =
            table.settings(2, &wanted).len() + usize::from(table.heartbeat().connection_settings.is_some());
        assert_eq!(again, 1, "a new generation is a new offer");
    }
}

#[test]
fn an_agent_that_was_offered_settings_by_an_earlier_process_is_not_offered_them_again() {
    let wanted = offer(A);
    for (before, expected) in [(1, 0), (0, 1)] {
        let offered = crate::snapshot::OfferedBefore { hash: wanted.hash().clone(), generation: before };
        let seed = Seed {
            capabilities: Caps::from_bits(ALL & !STATUS),
            desired: Desired::connection_settings(1, wanted.clone()),
            connection_settings: OfferSeed { offered: Some(offered), ..OfferSeed::default() },
            ..Seed::new(UID)
        };
        let mut table = Table::websocket();
        table.session = Session::restore(seed, &SessionSettings::default(), at(0));
        table.capabilities = ALL & !STATUS;
        table.attach(Transport::WebSocket);
        assert_eq!(usize::from(table.full().connection_settings.is_some()), expected);
    }
}

/// R-CAP-13, R-CAP-19 to R-CAP-23, A-21.
#[test]
fn every_part_needs_its_own_capability_and_an_offer_of_nothing_is_not_sent() {
    let cases = [
        (Caps::ACCEPTS_OPAMP_CONNECTION_SETTINGS, SettingsParts::OPAMP),
        (
            Caps::ACCEPTS_OPAMP_CONNECTION_SETTINGS | Caps::REPORTS_HEARTBEAT,
            SettingsParts::OPAMP | SettingsParts::HEARTBEAT_INTERVAL,
        ),
        (Caps::REPORTS_OWN_METRICS, SettingsParts::OWN_METRICS),
        (Caps::REPORTS_OWN_TRACES, SettingsParts::OWN_TRACES),
        (Caps::REPORTS_OWN_LOGS, SettingsParts::OWN_LOGS),
        (Caps::ACCEPTS_OTHER_CONNECTION_SETTINGS, SettingsParts::OTHER_CONNECTIONS),
        (Caps::REPORTS_HEARTBEAT, SettingsParts::NONE),
    ];
    for (bits, parts) in cases {
        let mut table = Table::websocket();
        table.capabilities = Caps::REPORTS_STATUS.bits() | STATUS | bits.bits();
        table.full();
        let sent = table.settings(1, &offer(A));
        assert_eq!(sent.first().map_or(SettingsParts::NONE, |_| parts_of(offered(&sent))), parts, "{bits}");
        assert_eq!(table.session.snapshot().connection_settings.offered.is_some(), !parts.is_empty());
    }
    let mut settings = SessionSettings::default();
    settings.capabilities.remove(ServerCapabilities::OFFERS_CONNECTION_SETTINGS);
    let mut table = Table::with(Transport::WebSocket, settings);
    table.full();
    assert!(table.settings(1, &offer(A)).is_empty(), "the server does not announce that it offers any");
}

/// R-CAP-05.
#[test]
fn a_part_withheld_for_want_of_a_capability_is_sent_when_the_agent_announces_it() {
    for reports in [0, STATUS] {
        let mut table = Table::websocket();
        table.capabilities = Caps::REPORTS_STATUS.bits() | Caps::REPORTS_OWN_LOGS.bits() | reports;
        table.full();
        let wanted = offer(A);
        assert_eq!(parts_of(offered(&table.settings(1, &wanted))), SettingsParts::OWN_LOGS);
        if reports != 0 {
            table.applies(&wanted);
        }
        table.capabilities |= Caps::REPORTS_OWN_TRACES.bits();
        let more = table.heartbeat().connection_settings.expect("the traces");
        let parts = parts_of(&more);
        assert!(parts.contains(SettingsParts::OWN_TRACES) && !parts.contains(SettingsParts::OWN_METRICS));
        assert_eq!(
            parts.contains(SettingsParts::OWN_LOGS),
            reports == 0,
            "those it applied are not repeated"
        );
        assert!(table.heartbeat().connection_settings.is_none());
        table.capabilities &= !Caps::REPORTS_OWN_TRACES.bits();
        assert!(table.heartbeat().connection_settings.is_none(), "withdrawn");
    }
}

#[test]
fn settings_that_could_not_be_written_are_offered_on_the_next_connection() {
    for capabilities in [ALL, ALL & !STATUS] {
        let mut table = Table::websocket();
        table.capabilities = capabilities;
        table.full();
        let wanted = offer(A);
        assert_eq!(table.settings(1, &wanted).len(), 1);
        table.input(Input::Unwritten);
        table.input(Input::Detached(DisconnectReason::Closed));
        table.attach(Transport::WebSocket);
        assert_eq!(parts_of(&table.heartbeat().connection_settings.unwrap()), wanted.parts());
    }
}

#[test]
fn settings_lost_with_an_http_answer_are_repeated() {
    for capabilities in [ALL, ALL & !STATUS] {
        let mut table = Table::on(Transport::Http);
        table.capabilities = capabilities;
        table.full();
        table.settings(1, &offer(A));
        assert!(table.heartbeat().connection_settings.is_some());
        table.sequence -= 1;
        assert!(
            table.heartbeat().connection_settings.is_some(),
            "the same message again: its answer was lost"
        );
        assert!(table.heartbeat().connection_settings.is_none());
    }
    let mut table = Table::on(Transport::Http);
    table.full();
    table.settings(1, &offer(A));
    assert!(table.heartbeat().connection_settings.is_some());
    table.pass(30);
    assert!(table.heartbeat().connection_settings.is_none());
    table.pass(30);
    assert!(
        table.heartbeat().connection_settings.is_some(),
        "an agent that reports has said nothing for a minute"
    );
}

/// R-WS-17, R-HTTP-29.
#[test]
fn settings_beyond_the_send_limit_are_never_sent_and_show() {
    let settings = SessionSettings { send_bytes_max: 600, ..SessionSettings::default() };
    let mut table = Table::with(Transport::WebSocket, settings);
    table.full();
    let large = offer(&format!("https://example.com/{}", "x".repeat(700)));
    assert!(table.settings(1, &large).is_empty());
    assert_eq!(table.out.effects().discarded_oversize, 1);
    assert!(table.session.snapshot().connection_settings.too_large);
    assert!(table.heartbeat().connection_settings.is_none());
    assert_eq!(table.out.effects().discarded_oversize, 0, "told once");
}

#[test]
fn what_is_shown_of_settings_holds_no_secret() {
    let mut table = Table::websocket();
    table.full();
    assert_eq!(table.settings(1, &offer(A)).len(), 1);
    let shown = format!("{:?} {:?} {:?} {:?}", table.session, table.out, table.session.snapshot(), offer(A));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("own_logs"));
}

//! Custom messages, components and certificate requests.

use super::*;
use crate::custom::{CustomCapabilities, CustomError, CustomMessage, QueueBound};
use crate::desired::{ConnectionSettingsOffer, OfferRules};

const CAPABILITY: &str = "com.example.snapshots/v1";

fn with_custom() -> SessionSettings {
    let custom_capabilities = CustomCapabilities::new([CAPABILITY, "com.example.other"]).unwrap();
    SessionSettings { custom_capabilities, ..SessionSettings::default() }
}

fn custom(number: u8) -> CustomMessage {
    CustomMessage {
        capability: CAPABILITY.into(),
        kind: "take".into(),
        data: Bytes::copy_from_slice(&[0, number, 0xff]),
    }
}

impl Table {
    fn announces(&mut self, names: &[&str]) -> pb::ServerToAgent {
        let capabilities = names.iter().map(|name| (*name).to_owned()).collect();
        let custom_capabilities = Some(pb::CustomCapabilities { capabilities });
        self.say(pb::AgentToServer { custom_capabilities, ..Default::default() })
    }

    fn queue(&mut self, message: CustomMessage) -> Result<(), CustomError> {
        let settings = self.out.settings().clone();
        self.session.queue_custom(message, &settings)
    }

    fn components(&mut self, hash: &[u8], names: &[&str]) -> pb::ServerToAgent {
        let components = names.iter().map(|name| ((*name).to_owned(), pb::ComponentDetails::default()));
        let available_components = Some(pb::AvailableComponents {
            components: components.collect(),
            hash: Bytes::copy_from_slice(hash),
        });
        self.say(pb::AgentToServer { available_components, ..Default::default() })
    }

    fn requests_certificate(&mut self, csr: &str) -> Option<Bytes> {
        let certificate_request =
            Some(pb::CertificateRequest { csr: Bytes::copy_from_slice(csr.as_bytes()) });
        let opamp = Some(pb::OpAmpConnectionSettingsRequest { certificate_request });
        let connection_settings_request = Some(pb::ConnectionSettingsRequest { opamp });
        let answer = self.say(pb::AgentToServer { connection_settings_request, ..Default::default() });
        assert!(answer.error_response.is_none(), "acknowledged at once");
        self.out.take_certificate_request()
    }
}

fn issuing() -> SessionSettings {
    let capabilities =
        SessionSettings::default().capabilities | ServerCapabilities::ACCEPTS_CONNECTION_SETTINGS_REQUEST;
    SessionSettings { capabilities, ..SessionSettings::default() }
}

/// R-CUST-01, R-CUST-02, R-CUST-03.
#[test]
fn the_list_of_custom_capabilities_is_told_once_on_a_connection_and_when_it_changes() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut table = Table::with(transport, with_custom());
        let told = table.full().custom_capabilities.unwrap().capabilities;
        assert_eq!(told, ["com.example.other", CAPABILITY]);
        for _ in 0..3 {
            assert!(table.heartbeat().custom_capabilities.is_none());
        }
        for names in [&["com.example.other"][..], &[]] {
            table.out.set_custom_capabilities(CustomCapabilities::new(names.iter().copied()).unwrap());
            let mut sent = table.input(Input::Wake);
            assert_eq!(sent.is_empty(), transport == Transport::Http);
            sent.push(table.heartbeat());
            let told: Vec<_> =
                sent.iter().filter_map(|message| message.custom_capabilities.as_ref()).collect();
            assert_eq!(told.len(), 1);
            assert_eq!(told[0].capabilities, names);
        }
        table.attach(transport);
        assert!(
            table.heartbeat().custom_capabilities.is_none(),
            "an empty list is what there is without one"
        );
    }
    let mut without = Table::websocket();
    assert!(without.full().custom_capabilities.is_none());
}

/// R-CUST-04, R-CUST-09.
#[test]
fn only_what_both_sides_announced_is_sent() {
    let mut table = Table::with(Transport::WebSocket, with_custom());
    table.full();
    let not_announced = Err(CustomError::NotAnnounced { capability: CAPABILITY.into() });
    assert_eq!(table.queue(custom(1)), not_announced);
    table.announces(&["com.example.snapshots"]);
    assert_eq!(table.queue(custom(1)), not_announced, "the version is part of the name");
    table.announces(&["com.example.theirs", CAPABILITY]);
    assert_eq!(table.queue(custom(1)), Ok(()));
    let theirs = CustomMessage { capability: "com.example.theirs".into(), ..custom(1) };
    assert_eq!(table.queue(theirs), Err(CustomError::NotOurs { capability: "com.example.theirs".into() }));
    table.announces(&[]);
    assert_eq!(table.queue(custom(1)), not_announced, "an empty list clears");
}

/// R-CUST-11, R-CUST-12, R-HTTP-03.
#[test]
fn custom_messages_go_out_one_by_one_in_order_and_once() {
    let mut socket = Table::with(Transport::WebSocket, with_custom());
    socket.full();
    socket.announces(&[CAPABILITY]);
    (0..10).for_each(|number| socket.queue(custom(number)).unwrap());
    let sent = socket.input(Input::Wake);
    let numbers: Vec<u8> =
        sent.iter().map(|message| message.custom_message.as_ref().unwrap().data[1]).collect();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    assert_eq!(sent[0].custom_message, Some(custom(0).to_wire()));
    assert!(socket.input(Input::Wake).is_empty());
    assert_eq!(socket.out.effects().custom_sent, 0);

    let mut polling = Table::with(Transport::Http, with_custom());
    polling.full();
    polling.announces(&[CAPABILITY]);
    (0..10).for_each(|number| polling.queue(custom(number)).unwrap());
    polling.desire(1, b"h1");
    for number in 0..10 {
        let answer = polling.heartbeat();
        assert_eq!(answer.custom_message.unwrap().data[1], number);
        assert_eq!(answer.remote_config.is_some(), number == 0, "they travel together");
    }
    assert!(polling.heartbeat().custom_message.is_none());
}

/// The lesson: "custom messages: one slot, silently overwritten".
#[test]
fn a_full_queue_of_custom_messages_is_an_error_and_overwrites_nothing() {
    let settings = SessionSettings { custom_queue_max: 3, custom_queue_bytes_max: 1_000, ..with_custom() };
    let mut table = Table::with(Transport::Http, settings);
    table.full();
    table.announces(&[CAPABILITY]);
    (0..3).for_each(|number| table.queue(custom(number)).unwrap());
    assert_eq!(table.queue(custom(3)), Err(CustomError::Full { max: QueueBound::Messages(3) }));
    assert_eq!(table.heartbeat().custom_message.unwrap().data[1], 0);
    let large = CustomMessage { data: vec![0; 950].into(), ..custom(0) };
    assert_eq!(table.queue(large), Err(CustomError::Full { max: QueueBound::Bytes(1_000) }));
    let order: Vec<u8> = (0..2).map(|_| table.heartbeat().custom_message.unwrap().data[1]).collect();
    assert_eq!(order, [1, 2]);

    let settings = SessionSettings { send_bytes_max: 600, ..with_custom() };
    let mut table = Table::with(Transport::Http, settings);
    table.full();
    table.announces(&[CAPABILITY]);
    let larger = CustomMessage { data: vec![0; 500].into(), ..custom(0) };
    assert!(matches!(table.queue(larger), Err(CustomError::TooLarge { max: 600, .. })));
}

/// at most once, and never silently.
#[test]
fn custom_messages_that_could_not_be_sent_are_counted_and_not_repeated() {
    let mut table = Table::with(Transport::WebSocket, with_custom());
    table.full();
    table.announces(&[CAPABILITY]);
    (0..2).for_each(|number| table.queue(custom(number)).unwrap());
    assert_eq!(table.input(Input::Wake).len(), 2);
    table.input(Input::Unwritten);
    assert_eq!(table.out.effects().custom_undelivered, 2);
    table.queue(custom(9)).unwrap();
    table.input(Input::Detached(DisconnectReason::Closed));
    assert_eq!(table.out.effects().custom_undelivered, 1);
    assert_eq!(table.session.snapshot().sticky.custom_undelivered, 3);
    assert_eq!(table.queue(custom(9)), Err(CustomError::NoSession));
    table.attach(Transport::WebSocket);
    assert!(table.heartbeat().custom_message.is_none());
    assert_eq!(table.queue(custom(9)), Ok(()), "what the agent announced outlives the connection");
    table.input(Input::Wake);
    table.heartbeat();
    table.input(Input::Unwritten);
    assert_eq!(table.session.snapshot().sticky.custom_undelivered, 3, "that one had left");
}

#[test]
fn the_agents_custom_capabilities_outlive_the_process() {
    let announced = pb::CustomCapabilities { capabilities: vec![CAPABILITY.into()] };
    let seed = Seed { custom_capabilities: Some(announced.encode_to_vec().into()), ..Seed::new(UID) };
    let mut table = Table::with(Transport::WebSocket, with_custom());
    table.session = Session::restore(seed, &with_custom(), at(0));
    table.attach(Transport::WebSocket);
    assert_eq!(table.queue(custom(1)), Ok(()));
    assert_eq!(table.session.snapshot().custom_capabilities(), [CAPABILITY]);
}

/// R-CUST-06, R-CUST-10, R-CUST-12, R-RETRY-04.
#[test]
fn a_received_custom_message_is_handed_on_once_if_it_is_of_a_capability_we_have() {
    let mut table = Table::with(Transport::Http, with_custom());
    table.full();
    let say = |table: &mut Table, message: CustomMessage| {
        table.say(pb::AgentToServer { custom_message: Some(message.to_wire()), ..Default::default() });
        table.out.take_custom()
    };
    assert_eq!(say(&mut table, custom(1)), Some(custom(1)));
    let foreign = CustomMessage { capability: "com.example.foreign".into(), ..custom(1) };
    assert_eq!(say(&mut table, foreign), None);
    assert_eq!(table.out.effects().custom_ignored, 1);
    assert_eq!(say(&mut table, custom(2)), Some(custom(2)));
    table.sequence -= 1;
    assert_eq!(say(&mut table, custom(2)), None, "a copy of the same message is answered and not handed on");
    assert_eq!(say(&mut table, custom(2)), Some(custom(2)), "the same words in another message are another");
    let other = CustomMessage { capability: "com.example.other".into(), ..custom(2) };
    assert_eq!(say(&mut table, other.clone()), Some(other));
}

/// R-COMP-07.
#[test]
fn an_unknown_hash_is_asked_about_and_a_known_one_is_not() {
    let list = |names: &[&str]| {
        let components = names.iter().map(|name| ((*name).to_owned(), pb::ComponentDetails::default()));
        let list =
            pb::AvailableComponents { components: components.collect(), hash: Bytes::from_static(b"h") };
        Bytes::from(list.encode_to_vec())
    };
    let mut table = Table::websocket();
    table.full();
    assert_eq!(table.components(b"h", &[]).flags, 2);
    assert!(table.session.snapshot().components.is_none());
    assert_eq!(table.components(b"h", &["otlp"]).flags, 0);
    assert_eq!(table.session.snapshot().components, Some(list(&["otlp"])));
    assert_eq!(table.components(b"h", &[]).flags, 0, "the hash alone again");
    assert_eq!(table.session.snapshot().components, Some(list(&["otlp"])));
    assert_eq!(table.components(b"h2", &[]).flags, 2, "another build");
    assert!(table.session.snapshot().components.is_none());

    let mut known = Table::websocket();
    known.full();
    known.input(Input::Components(list(&["otlp"])));
    assert_eq!(known.components(b"h", &[]).flags, 0, "another agent of its build told it");
    assert_eq!(known.session.snapshot().components, Some(list(&["otlp"])));
    known.input(Input::Components(list(&["otlp"])));
    assert_eq!(known.components(b"other", &[]).flags, 2, "it is about another hash");

    let seed = Seed { components: Some(list(&["otlp"])), ..Seed::new(UID) };
    let mut restored = Table::websocket();
    restored.session = Session::restore(seed, &SessionSettings::default(), at(0));
    restored.attach(Transport::WebSocket);
    assert_eq!(restored.components(b"h", &[]).flags & 2, 0, "an earlier process was told");
}

/// R-CAP-13, R-STATUS-21.
#[test]
fn components_are_not_asked_for_without_the_capability_and_never_in_a_flood() {
    let mut table = Table::websocket();
    table.capabilities = ALL & !Caps::REPORTS_AVAILABLE_COMPONENTS.bits();
    table.full();
    assert_eq!(table.components(b"h", &[]).flags, 0);
    let mut stubborn = Table::websocket();
    stubborn.full();
    let mut asked = 0;
    for _ in 0..100 {
        asked += u32::from(stubborn.components(b"h", &[]).flags == 2);
    }
    assert_eq!(asked, 3);
    stubborn.pass(31);
    assert_eq!(stubborn.heartbeat().flags, 2, "it is not given up either");
}

/// R-CSR-21, R-CSR-22.
#[test]
fn a_request_for_nothing_is_acknowledged_and_leads_to_nothing() {
    let mut table = Table::with(Transport::WebSocket, issuing());
    table.full();
    for opamp in [None, Some(pb::OpAmpConnectionSettingsRequest::default())] {
        let connection_settings_request = Some(pb::ConnectionSettingsRequest { opamp });
        let answer = table.say(pb::AgentToServer { connection_settings_request, ..Default::default() });
        assert!(answer.error_response.is_none() && answer.connection_settings.is_none());
        assert!(table.out.take_certificate_request().is_none());
    }
    let mut deaf = Table::websocket();
    deaf.full();
    assert!(deaf.requests_certificate("csr").is_none(), "the server does not announce that it takes any");
}

/// R-CSR-14, R-MSG-09, A-16.
#[test]
fn a_refused_certificate_request_is_told_alone_by_push_or_in_a_later_answer() {
    let refused = |message: &pb::ServerToAgent| {
        let error = message.error_response.as_ref()?;
        assert_eq!(error.r#type, pb::ServerErrorResponseType::BadRequest as i32);
        assert!(message.remote_config.is_none() && message.flags == 0 && message.capabilities == 0);
        Some(error.error_message.clone())
    };
    let mut socket = Table::with(Transport::WebSocket, issuing());
    socket.full();
    assert_eq!(socket.requests_certificate("csr").unwrap(), "csr");
    assert!(socket.requests_certificate("csr").is_none(), "it is being decided");
    socket.input(Input::Desired(desired(1, b"h1")));
    socket.input(Input::CertificateRefused("not approved".into()));
    let sent = socket.input(Input::Wake);
    assert!(sent[0].remote_config.is_some() && refused(&sent[0]).is_none());
    assert_eq!(refused(&sent[1]).unwrap(), "not approved");
    assert!(socket.input(Input::Wake).is_empty());
    assert!(socket.requests_certificate("csr").is_some(), "it may ask again");

    let mut polling = Table::with(Transport::Http, issuing());
    polling.full();
    polling.requests_certificate("csr").unwrap();
    polling.input(Input::CertificateRefused("not approved".into()));
    let health = Some(pb::ComponentHealth::default());
    let answer = polling.say(pb::AgentToServer { health: health.clone(), ..Default::default() });
    assert!(refused(&answer).is_none(), "the health is acknowledged");
    assert_eq!(refused(&polling.heartbeat()).unwrap(), "not approved");
    assert!(refused(&polling.heartbeat()).is_none());
    polling.input(Input::CertificateRefused("not approved".into()));
    let told = (0..3).map(|_| {
        refused(&polling.say(pb::AgentToServer { health: health.clone(), ..Default::default() })).is_some()
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [false, false, true],
        "an agent that always reports learns of it too"
    );
}

#[test]
fn a_second_request_while_the_first_is_decided_is_refused() {
    let mut table = Table::with(Transport::Http, issuing());
    table.full();
    table.requests_certificate("csr").unwrap();
    let certificate_request = Some(pb::CertificateRequest { csr: Bytes::from_static(b"another") });
    let opamp = Some(pb::OpAmpConnectionSettingsRequest { certificate_request });
    let connection_settings_request = Some(pb::ConnectionSettingsRequest { opamp });
    let answer = table.say(pb::AgentToServer { connection_settings_request, ..Default::default() });
    assert!(answer.error_response.unwrap().error_message.contains("being decided"));
    assert!(table.out.take_certificate_request().is_none());
}

#[test]
fn a_refusal_that_could_not_be_written_is_told_on_the_next_connection() {
    let mut table = Table::with(Transport::WebSocket, issuing());
    table.full();
    table.requests_certificate("csr").unwrap();
    table.input(Input::CertificateRefused("not approved".into()));
    assert_eq!(table.input(Input::Wake).len(), 1);
    table.input(Input::Unwritten);
    table.input(Input::Detached(DisconnectReason::Closed));
    table.attach(Transport::WebSocket);
    assert!(table.input(Input::Wake)[0].error_response.is_some());
    table.heartbeat();
    table.input(Input::Unwritten);
    assert!(table.input(Input::Wake).is_empty(), "it was told");

    let mut polling = Table::with(Transport::Http, issuing());
    polling.full();
    polling.requests_certificate("csr").unwrap();
    polling.input(Input::CertificateRefused("not approved".into()));
    assert!(polling.heartbeat().error_response.is_some());
    polling.sequence -= 1;
    assert!(polling.heartbeat().error_response.is_some(), "the same message again: its answer was lost");
    assert!(polling.heartbeat().error_response.is_none());
}

/// R-CSR-24, R-CSR-10.
#[test]
fn an_issued_certificate_is_offered_whatever_was_offered_before() {
    let settings = pb::ConnectionSettingsOffers {
        opamp: Some(pb::OpAmpConnectionSettings {
            destination_endpoint: "wss://example.com/v1/opamp".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let offer = ConnectionSettingsOffer::with_rules(settings, OfferRules::default()).unwrap();
    let status = Caps::REPORTS_CONNECTION_SETTINGS_STATUS.bits();
    for capabilities in [ALL, ALL & !status] {
        let mut table = Table::with(Transport::WebSocket, issuing());
        table.capabilities = capabilities;
        table.full();
        for round in 0..2 {
            table.requests_certificate("csr").unwrap();
            // The same answer to the same request, as after a lost one.
            table.input(Input::CertificateIssued(Target::new(1, Some(offer.clone()))));
            let sent = table.input(Input::Wake);
            assert_eq!(sent.len(), 1, "round {round}");
            assert_eq!(sent[0].connection_settings.as_ref(), Some(offer.settings()));
            assert!(table.input(Input::Wake).is_empty());
        }
        assert_eq!(table.session.snapshot().connection_settings.generation, 1);
    }
}

/// R-CUST-12, R-RETRY-04.
#[test]
fn a_copy_of_a_message_with_two_events_repeats_neither() {
    let settings = SessionSettings { custom_capabilities: with_custom().custom_capabilities, ..issuing() };
    let mut table = Table::with(Transport::Http, settings);
    table.full();
    let certificate_request = Some(pb::CertificateRequest { csr: Bytes::from_static(b"csr") });
    let opamp = Some(pb::OpAmpConnectionSettingsRequest { certificate_request });
    let message = pb::AgentToServer {
        custom_message: Some(custom(1).to_wire()),
        connection_settings_request: Some(pb::ConnectionSettingsRequest { opamp }),
        ..Default::default()
    };
    for round in 0..3 {
        table.say(message.clone());
        assert_eq!(table.out.take_custom().is_some(), round == 0, "round {round}");
        assert_eq!(table.out.take_certificate_request().is_some(), round == 0, "round {round}");
        table.input(Input::CertificateRefused("not approved".into()));
        table.sequence -= 1; // the answer got lost, and the agent repeats itself
    }
}

#[test]
fn a_certificate_for_settings_that_were_replaced_meanwhile_is_refused() {
    let settings = |endpoint: &str| {
        let opamp =
            pb::OpAmpConnectionSettings { destination_endpoint: endpoint.into(), ..Default::default() };
        ConnectionSettingsOffer::new(pb::ConnectionSettingsOffers {
            opamp: Some(opamp),
            ..Default::default()
        })
        .unwrap()
    };
    let mut table = Table::with(Transport::WebSocket, issuing());
    table.full();
    table.requests_certificate("csr").unwrap();
    table.input(Input::Desired(Desired::connection_settings(3, settings("wss://b.example.com/v1/opamp"))));
    table.input(Input::Wake);
    table.input(Input::CertificateIssued(Target::new(2, Some(settings("wss://a.example.com/v1/opamp")))));
    let effects = table.out.effects();
    assert_eq!((effects.certificates_issued, effects.certificates_refused), (0, 1));
    let sent = table.input(Input::Wake);
    let refusal = sent[0].error_response.as_ref().expect("it is told");
    assert!(refusal.error_message.contains("ask again"), "{refusal:?}");
    assert!(table.requests_certificate("csr again").is_some(), "and may");
    table.input(Input::CertificateIssued(Target::new(4, Some(settings("wss://a.example.com/v1/opamp")))));
    assert_eq!(table.out.effects().certificates_issued, 1);
}

/// A duplicate that goes on for days is no reason to write a record with each of its messages.
#[test]
fn conflicts_are_all_counted_and_told_once_a_minute() {
    let mut table = Table::websocket();
    table.full();
    table.session.take_change();
    let mut told = 0;
    for _ in 0..20 {
        table.input(Input::UidConflict);
        told += u32::from(table.session.take_change().is_some());
        table.pass(10);
    }
    assert_eq!(told, 4, "in 190 seconds");
    assert_eq!(table.session.snapshot().sticky.uid_conflicts, 20);
}

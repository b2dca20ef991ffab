//! Identity: whose messages count, and how the server changes it.

use opamp_client::session::{Input, Output};
use opamp_client::{Event, FailureKind, InstanceUid, ServerFault, Transport};
use opamp_proto::pb;

use crate::bench::{self, Bench, UID, parts, seconds};

const NEW: InstanceUid = InstanceUid::from_bytes([9; 16]);

fn assign(bytes: &[u8]) -> pb::ServerToAgent {
    let identification = pb::AgentIdentification { new_instance_uid: bytes.to_vec().into() };
    pb::ServerToAgent { agent_identification: Some(identification), ..Default::default() }
}

fn addressed(uid: &[u8], message: pb::ServerToAgent) -> pb::ServerToAgent {
    pb::ServerToAgent { instance_uid: uid.to_vec().into(), ..message }
}

on_both_transports! {
    fn an_assigned_identity_is_saved_and_used_from_then_on(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.answer(assign(NEW.as_bytes()));
        assert!(step.has(&Output::Persist));
        assert_eq!(step.events, [Event::IdentityAssigned { from: UID, to: NEW }]);
        assert_eq!(bench.session.saved().uid, NEW);
        let mut step = bench.pass(seconds(60));
        bench.lose();
        step.extend(bench.reconnect());
        step.extend(bench.tell(Input::Stop));
        assert!(step.sent.len() >= 4);
        assert!(step.sent.iter().all(|message| message.instance_uid[..] == NEW.as_bytes()[..]), "{step:?}");
    }

    fn an_instance_id_that_mirrors_the_identity_follows_it(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.answer(assign(NEW.as_bytes()));
        assert_eq!(parts(step.message()), ["agent_description"]);
        let shown = format!("{:?}", step.message().agent_description);
        assert!(shown.contains(&NEW.to_string()) && !shown.contains(&UID.to_string()), "{shown}");
    }

    fn an_identity_of_another_length_is_refused_and_said_so(transport) {
        for length in [0, 15, 17, 26] {
            let mut bench = Bench::able(transport);
            bench.connect();
            let step = bench.answer(assign(&vec![9; length]));
            assert_eq!(step.events, [Event::ServerFault(ServerFault::IdentityLength { length })]);
            assert_eq!(bench.session.uid(), UID);
        }
    }

    fn the_own_identity_again_is_no_news(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        let step = bench.answer(assign(UID.as_bytes()));
        assert!(step.sent.is_empty() && step.events.is_empty(), "{step:?}");
    }

    fn an_identity_is_asked_for_until_it_is_given(transport) {
        let mut bench = Bench::with(transport, |setup| setup.settings.request_uid = true);
        let step = bench.connect();
        assert_eq!(step.message().flags, 1);
        assert_eq!(step.message().instance_uid.len(), 16, "a temporary one");
        assert_eq!(bench.pass(seconds(30)).message().flags, 1);
        let mut step = bench.answer(assign(NEW.as_bytes()));
        step.extend(bench.pass(seconds(60)));
        assert!(step.sent.iter().all(|message| message.flags == 0));
        let saved = bench.session.saved();
        let mut bench = Bench::with(transport, |setup| {
            setup.settings.request_uid = true;
            setup.saved = saved;
        });
        let step = bench.connect();
        assert_eq!((step.message().flags, &step.message().instance_uid[..]), (0, &NEW.as_bytes()[..]), "it is kept");
    }

    fn messages_for_another_identity_are_ignored(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        for uid in [&[1; 16][..], &[7; 15]] {
            let step = bench.answer(addressed(uid, bench::offer(&[1], "x")));
            assert!(step.applies().is_empty() && step.sent.is_empty(), "{step:?}");
            // Over HTTP it stands where the answer should be: what was sent has not arrived.
            let failures = step.events.iter().filter_map(|event| event.failure()).map(|failure| failure.kind);
            let told = if transport == Transport::Http { vec![FailureKind::Protocol] } else { Vec::new() };
            assert_eq!(failures.collect::<Vec<_>>(), told);
            if transport == Transport::Http {
                bench.reconnect();
            }
        }
        assert_eq!(bench.session.stats(bench.now.mono).foreign, 2);
    }

    fn the_identity_stays_while_connections_break(transport) {
        let mut bench = Bench::able(transport);
        bench.connect();
        for _ in 0..10 {
            bench.lose();
            assert_eq!(&bench.reconnect().message().instance_uid[..], UID.as_bytes());
        }
    }
}

#[test]
fn answers_to_the_identity_before_still_count_on_the_same_connection_only() {
    let mut bench = Bench::able(Transport::WebSocket);
    bench.connect();
    bench.receive(assign(NEW.as_bytes()));
    let step = bench.receive(addressed(UID.as_bytes(), bench::offer(&[1], "x")));
    assert_eq!(step.applies().len(), 1, "it was on its way before the server had heard of the change");
    bench.lose();
    bench.reconnect();
    assert!(bench.receive(addressed(UID.as_bytes(), bench::offer(&[2], "x"))).is_silent());
}

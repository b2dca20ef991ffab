//! Client certificates that the agent asks for.

use std::time::Duration;

use opamp_client::connection::CertificateSigningRequest;
use opamp_client::session::{Input, Output, Setup};
use opamp_client::{Event, InstanceUid, Rejected, Transport, Wall};
use opamp_proto::pb;
use opamp_proto::pb::ServerErrorResponseType as ErrorType;
use opamp_testkit::certs::Authority;

use crate::bench::{ALL, Bench, Step, error, seconds};
use crate::settings::{
    Applied, Failed, certificate, elsewhere, last_report, offer, takes_settings, with_endpoint,
};

fn asks(setup: &mut Setup) {
    takes_settings(setup);
    setup.abilities.certificates = true;
    setup.abilities.certificates_name_identity = true;
}

fn request(key: &str) -> CertificateSigningRequest {
    CertificateSigningRequest { csr: b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(), key: key.into() }
}

/// Who is to be named in the requests that were wanted.
fn wanted(step: &Step) -> Vec<InstanceUid> {
    let uid = |output: &Output| match output {
        Output::RequestCertificate(uid) => Some(*uid),
        _ => None,
    };
    step.outputs.iter().filter_map(uid).collect()
}

fn requests(step: &Step) -> Vec<&pb::AgentToServer> {
    step.sent.iter().filter(|message| message.connection_settings_request.is_some()).collect()
}

/// An agent that has asked, and whose server has acknowledged.
fn asked(transport: Transport) -> Bench {
    let mut bench = Bench::with(transport, asks);
    let step = bench.connect();
    assert_eq!(wanted(&step), [bench.session.uid()]);
    let step = bench.tell(Input::CertificateRequest(Ok(request("k"))));
    assert_eq!(requests(&step).len(), 1);
    bench
}

fn issued(transport: Transport, cert: &'static [u8]) -> pb::OpAmpConnectionSettings {
    pb::OpAmpConnectionSettings { certificate: certificate(cert, b""), ..with_endpoint(elsewhere(transport)) }
}

on_both_transports! {
    /// R-CSR-04, R-CSR-05, R-CSR-22, R-CSR-03: the key is in no message.
    fn the_request_travels_alone_and_is_for_the_opamp_connection(transport) {
        let mut bench = Bench::with(transport, asks);
        bench.connect();
        let step = bench.tell(Input::CertificateRequest(Ok(request("hunter2"))));
        let message = step.message();
        assert_eq!(crate::bench::parts(message), ["connection_settings_request"], "so that an error is known to be its own");
        let opamp = message.connection_settings_request.clone().unwrap().opamp.unwrap();
        assert_eq!(&opamp.certificate_request.unwrap().csr[..], b"-----BEGIN CERTIFICATE REQUEST-----");
        assert!(!prost::Message::encode_to_vec(message).windows(7).any(|bytes| bytes == b"hunter2"));
        assert!(requests(&bench.pass(seconds(600))).is_empty(), "sent once");
    }

    /// R-CAP-31.
    fn nothing_is_asked_of_a_server_that_takes_no_requests(transport) {
        let mut bench = Bench::with(transport, asks);
        bench.capabilities = ALL & !0x40;
        let mut step = bench.connect();
        bench.tell(Input::RequestCertificate);
        step.extend(bench.pass(seconds(10_000)));
        assert!(wanted(&step).is_empty() && requests(&step).is_empty());
        bench.capabilities = ALL;
        assert_eq!(wanted(&bench.pass(seconds(60))).len(), 1, "as soon as it does");
    }

    /// R-CSR-11: with the key that never left.
    fn the_certificate_is_used_with_the_key_of_the_request(transport) {
        let mut bench = asked(transport);
        let step = bench.offer_settings(b"h", issued(transport, b"cert"));
        let used = step.dialed()[0].certificate.clone().unwrap();
        assert_eq!((used.cert.as_slice(), used.key.expose()), (&b"cert"[..], &b"k"[..]));
        assert!(bench.session.saved().connections.request.is_some(), "not proven yet");
        assert_eq!(last_report(&bench.tell(Input::Connected)).1, Applied);
        let saved = bench.session.saved().connections;
        assert_eq!(saved.request, None, "nothing to wait for any more");
        assert_eq!(saved.accepted.unwrap().certificate.as_ref().unwrap().key.expose(), b"k");
        assert!(requests(&bench.pass(seconds(10_000))).is_empty());
    }

    ///
    fn a_certificate_without_a_key_that_nobody_asked_for_is_refused(transport) {
        let mut bench = Bench::settable(transport);
        let step = bench.answer(offer(b"1", issued(transport, b"cert")));
        assert_eq!(last_report(&step).1, Failed);
        let mut bench = asked(transport);
        bench.offer_settings(b"2", issued(transport, b"cert"));
        bench.tell(Input::Connected);
        let step = bench.answer(offer(b"3", issued(transport, b"another")));
        assert_eq!(last_report(&step).1, Failed, "it has come already");
    }

    fn a_request_outlives_the_process_and_is_repeated_on_the_next_connection(transport) {
        let bench = asked(transport);
        let saved = bench.session.saved();
        assert_eq!(saved.connections.request, Some(request("k")));
        let mut bench = Bench::with(transport, |setup| {
            asks(setup);
            setup.saved = saved;
        });
        let step = bench.connect();
        assert!(wanted(&step).is_empty() && requests(&step).len() == 1, "{step:?}");
        bench.lose();
        assert_eq!(requests(&bench.reconnect()).len(), 1, "the server may not know of it");
        let step = bench.offer_settings(b"h", issued(transport, b"cert"));
        assert_eq!(step.dialed()[0].certificate.as_ref().unwrap().key.expose(), b"k");
    }

    /// R-CSR-14, A-16: the refusal comes at once or later.
    fn a_refusal_is_told_and_the_agent_asks_again_later(transport) {
        let mut bench = asked(transport);
        let mut refused = Step::default();
        if transport == Transport::WebSocket {
            refused.extend(bench.receive(error(ErrorType::BadRequest, 0)));
        } else {
            refused.extend(bench.answer(error(ErrorType::BadRequest, 0)));
        }
        let told = |event: &Event| matches!(event, Event::CertificateRefused { message } if message == "because");
        assert!(refused.events.iter().any(told), "{refused:?}");
        bench.lose();
        assert!(requests(&bench.reconnect()).is_empty(), "nor sent again");
        assert!(wanted(&bench.pass(seconds(3_500))).is_empty(), "not at once");
        assert_eq!(wanted(&bench.pass(seconds(200))).len(), 1);
        let step = bench.tell(Input::CertificateRequest(Ok(request("k2"))));
        assert_eq!(requests(&step).len(), 1);
        assert_eq!(bench.session.saved().connections.request, Some(request("k2")));
    }

    /// What is taken for a refusal may have been about something else.
    fn a_certificate_that_comes_after_an_error_has_its_key(transport) {
        let mut bench = asked(transport);
        bench.answer(error(ErrorType::BadRequest, 0));
        let step = bench.answer(error(ErrorType::BadRequest, 0));
        let refused = |event: &Event| matches!(event, Event::CertificateRefused { .. });
        assert!(!step.events.iter().any(refused), "refused once: {step:?}");
        let step = bench.offer_settings(b"h", issued(transport, b"cert"));
        assert_eq!(step.dialed()[0].certificate.as_ref().unwrap().key.expose(), b"k");
        bench.tell(Input::Connected);
        assert_eq!(bench.session.saved().connections.request, None);
    }

    fn an_error_that_answers_a_report_does_not_end_the_request(transport) {
        let mut bench = asked(transport);
        bench.answers = false;
        bench.tell(crate::bench::health("new"));
        if transport == Transport::WebSocket {
            bench.tell(Input::Written);
        }
        let step = bench.receive(error(ErrorType::BadRequest, 0));
        assert!(step.events.iter().any(|event| matches!(event, Event::ServerError { .. })), "{step:?}");
        assert!(bench.session.saved().connections.request.is_some());
    }

    fn what_cannot_be_made_is_told_and_tried_again_later(transport) {
        let mut bench = Bench::with(transport, asks);
        bench.connect();
        let step = bench.tell(Input::CertificateRequest(Err(Rejected::new("no randomness"))));
        assert!(matches!(&step.events[..], [Event::CertificateNotRequested { .. }]), "{step:?}");
        assert!(wanted(&bench.pass(seconds(3_500))).is_empty());
        assert_eq!(wanted(&bench.pass(seconds(200))).len(), 1);
        assert!(requests(&bench.tell(Input::CertificateRequest(Ok(request("k"))))).len() == 1);
        let step = bench.tell(Input::CertificateRequest(Ok(request("second"))));
        assert!(requests(&step).is_empty(), "nobody asked for it");
    }

    /// R-CSR-15: also by the application, at any time.
    fn the_application_may_ask_again(transport) {
        let mut bench = asked(transport);
        bench.offer_settings(b"h", issued(transport, b"cert"));
        bench.tell(Input::Connected);
        let step = bench.tell(Input::RequestCertificate);
        assert_eq!(wanted(&step).len(), 1);
        bench.tell(Input::CertificateRequest(Ok(request("new"))));
        let step = bench.offer_settings(b"i", issued(transport, b"newer"));
        assert_eq!(step.dialed()[0].certificate.as_ref().unwrap().key.expose(), b"new");
    }

    /// R-CSR-18.
    fn another_identity_leads_to_another_request_if_it_is_in_there(transport) {
        for named in [true, false] {
            let mut bench = Bench::with(transport, |setup| {
                asks(setup);
                setup.abilities.certificates_name_identity = named;
            });
            bench.connect();
            bench.tell(Input::CertificateRequest(Ok(request("k"))));
            let identification =
                Some(pb::AgentIdentification { new_instance_uid: vec![9; 16].into() });
            let mut step = bench.answer(pb::ServerToAgent { agent_identification: identification, ..Default::default() });
            step.extend(bench.pass(seconds(60)));
            let expected = if named { vec![InstanceUid::from_bytes([9; 16])] } else { vec![] };
            assert_eq!(wanted(&step), expected);
        }
    }

    /// R-CSR-15: before its end, spread over a fleet, and also if the agent was not there in the meantime.
    fn a_certificate_is_renewed_before_it_expires(transport) {
        let pem = Authority::new("ca").client("agent", &[]).cert_pem.into_bytes();
        let cert: &'static [u8] = Box::leak(pem.into_boxed_slice());
        let (from, until) = validity(cert);
        let third = (until - from) / 3;
        let mut bench = Bench::with(transport, asks);
        bench.now.wall = Wall(from + third);
        bench.connect();
        bench.tell(Input::CertificateRequest(Ok(request("k"))));
        bench.offer_settings(b"h", issued(transport, cert));
        bench.tell(Input::Connected);
        let saved = bench.session.saved();
        bench.now.wall = Wall(from + 2 * third - 1_000);
        assert!(wanted(&bench.pass(Duration::from_millis(500))).is_empty());
        bench.now.wall = Wall(until - third / 4);
        let step = bench.pass(Duration::from_secs(2 * 24 * 3600));
        assert_eq!(wanted(&step).len(), 1, "the clock is looked at every day");
        let mut restarted = Bench::with(transport, |setup| {
            asks(setup);
            setup.saved = saved;
        });
        restarted.now.wall = Wall(until - third / 4);
        restarted.tell(Input::Start);
        assert_eq!(wanted(&restarted.tell(Input::Connected)).len(), 1, "and at the start");
    }
}

/// A clock that is years ahead takes each certificate for one that is nearly over.
#[test]
fn with_a_clock_that_is_wrong_certificates_are_asked_for_now_and_then() {
    let transport = Transport::WebSocket;
    let pem = Authority::new("ca").client("agent", &[]).cert_pem.into_bytes();
    let cert: &'static [u8] = Box::leak(pem.into_boxed_slice());
    let mut bench = Bench::with(transport, asks);
    bench.now.wall = Wall(validity(cert).1 + 1);
    let mut times = wanted(&bench.connect()).len();
    for number in 0..10_u8 {
        bench.tell(Input::CertificateRequest(Ok(request(&number.to_string()))));
        // With a key of its own the request is answered, whichever it was.
        let opamp = pb::OpAmpConnectionSettings {
            certificate: certificate(cert, b""),
            ..with_endpoint(elsewhere(transport))
        };
        let step = bench.offer_settings(&[number], opamp);
        times += wanted(&step).len();
        times += wanted(&bench.tell(Input::Connected)).len();
        times += wanted(&bench.pass(seconds(60))).len();
    }
    assert_eq!(times, 1, "within ten minutes");
    assert_eq!(wanted(&bench.pass(seconds(3_600))).len(), 1, "and after an hour again");
    bench.tell(Input::CertificateRequest(Ok(request("k"))));
    assert_eq!(wanted(&bench.tell(Input::RequestCertificate)).len(), 1, "the application may at once");
}

/// By hand, with another library's eyes.
fn validity(pem: &[u8]) -> (u64, u64) {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let ms = |time: x509_parser::time::ASN1Time| time.timestamp().max(0) as u64 * 1_000;
    (ms(certificate.validity().not_before), ms(certificate.validity().not_after))
}

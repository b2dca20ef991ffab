//! R-TLS: TLS, proxy, header and certificate messages in what the server offers.

use opamp_proto::pb;
use opamp_testkit::certs::{Authority, Identity};

use super::common::*;
use super::offers::*;

fn with_certificate(certificate: pb::TlsCertificate) -> pb::ConnectionSettingsOffers {
    only_opamp(pb::OpAmpConnectionSettings { certificate: Some(certificate), ..opamp(ELSEWHERE) })
}

/// A certificate that its own key signed, as it is offered.
fn self_signed() -> pb::TlsCertificate {
    let identity = Identity::self_signed("agent");
    pb::TlsCertificate {
        cert: identity.cert_pem.into(),
        private_key: identity.key_pem.into(),
        ca_cert: Default::default(),
    }
}

on_both_transports! {
    /// R-TLS-14: headers arrive in their order, repetitions and all.
    async fn order_and_repetition_of_headers_are_kept(wire: Wire) {
        let listed = headers(&[("X-Tag", "b"), ("Authorization", "Bearer t"), ("x-tag", "a"), ("X-Tag", "b")]);
        let mut settings = everything();
        settings.opamp.as_mut().unwrap().headers.clone_from(&listed);
        settings.own_metrics.as_mut().unwrap().headers.clone_from(&listed);
        settings.other_connections.get_mut("archive").unwrap().headers.clone_from(&listed);
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        server.offer_settings(agent.persona.uid, &settings);
        let offer = agent.next_settings().await.unwrap();
        assert_eq!(offer.opamp.unwrap().headers, listed);
        assert_eq!(offer.own_metrics.unwrap().headers, listed);
        assert_eq!(offer.other_connections["archive"].headers, listed);
    }

    /// R-TLS-16, R-TLS-17, R-TLS-18, R-TLS-21: a certificate that was issued elsewhere reaches the agent whole; the server
    /// never sees the key that signed it.
    async fn a_certificate_issued_elsewhere_is_offered_with_key_and_authority(wire: Wire) {
        let certificate = certificate(&Authority::new("fleet"), "agent-1");
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
        server.offer_settings(agent.persona.uid, &with_certificate(certificate.clone()));
        let offered = agent.next_settings().await.unwrap().opamp.unwrap().certificate.unwrap();
        assert_eq!(offered, certificate);
        for pem in [&offered.cert, &offered.private_key, &offered.ca_cert] {
            assert!(pem.starts_with(b"-----BEGIN "));
        }
        let alone = self_signed();
        server.offer_settings(agent.persona.uid, &with_certificate(alone.clone()));
        let offered = agent.next_settings().await.unwrap().opamp.unwrap().certificate.unwrap();
        assert!(offered.ca_cert.is_empty(), "none with one that signed itself");
        assert_eq!(offered, alone);
    }

    /// R-TLS-12, and all else of a proxy and of TLS as it was given.
    async fn proxy_and_tls_settings_arrive_as_they_were_given(wire: Wire) {
        let tls = pb::TlsConnectionSettings {
            ca_pem_contents: Authority::new("private").pem(),
            include_system_ca_certs_pool: true,
            insecure_skip_verify: false,
            min_version: "TLSv1.2".to_owned(),
            max_version: "1.3".to_owned(),
            cipher_suites: vec!["TLS_AES_128_GCM_SHA256".to_owned()],
        };
        for url in ["http://proxy.example:3128", "proxy.example:3128"] {
            let proxy = pb::ProxyConnectionSettings {
                url: url.to_owned(),
                connect_headers: headers(&[("Proxy-Authorization", "Basic eA==")]),
            };
            let settings = pb::OpAmpConnectionSettings {
                tls: Some(tls.clone()),
                proxy: Some(proxy.clone()),
                ..opamp(ELSEWHERE)
            };
            let server = TestServer::start().await;
            let mut agent = server.agent(wire, Persona::new(1).with_settings()).await;
            server.offer_settings(agent.persona.uid, &only_opamp(settings));
            let offered = agent.next_settings().await.unwrap().opamp.unwrap();
            assert_eq!((offered.tls.as_ref(), offered.proxy.as_ref()), (Some(&tls), Some(&proxy)));
        }
    }
}

/// R-TLS-12: in settings of every class.
#[test]
fn a_proxy_without_an_address_is_refused() {
    let nowhere = Some(pb::ProxyConnectionSettings::default());
    let mut in_opamp = everything();
    in_opamp.opamp.as_mut().unwrap().proxy.clone_from(&nowhere);
    let mut in_traces = everything();
    in_traces.own_traces.as_mut().unwrap().proxy.clone_from(&nowhere);
    let mut in_other = everything();
    in_other.other_connections.get_mut("archive").unwrap().proxy.clone_from(&nowhere);
    for (settings, field) in [(in_opamp, "opamp"), (in_traces, "own_traces"), (in_other, "archive")] {
        let text = complaint(&settings);
        assert!(text.contains(field) && text.contains("proxy"), "{text}");
    }
}

/// R-TLS-16.
#[test]
fn a_certificate_that_is_missing_or_no_pem_is_refused() {
    let whole = certificate(&Authority::new("fleet"), "agent");
    for cert in
        [&b""[..], b"certificate", b"-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n"]
    {
        let broken = pb::TlsCertificate { cert: cert.to_vec().into(), ..whole.clone() };
        let text = complaint(&with_certificate(broken));
        assert!(text.contains("certificate.cert"), "{text}");
    }
    assert!(judged(&with_certificate(whole)).is_ok());
}

/// R-TLS-17: without its key a certificate is offered only in answer to a request.
#[test]
fn a_certificate_without_its_key_is_refused() {
    let whole = certificate(&Authority::new("fleet"), "agent");
    for key in [&b""[..], b"key"] {
        let broken = pb::TlsCertificate { private_key: key.to_vec().into(), ..whole.clone() };
        let text = complaint(&with_certificate(broken));
        assert!(text.contains("private_key"), "{text}");
    }
}

/// R-TLS-18: with the certificate of its authority, if another signed it, and without one if it signed itself.
#[test]
fn the_authority_stands_beside_a_certificate_it_signed_and_no_other() {
    let authority = Authority::new("fleet");
    let signed = certificate(&authority, "agent");
    let orphan = pb::TlsCertificate { ca_cert: Default::default(), ..signed.clone() };
    assert!(complaint(&with_certificate(orphan)).contains("ca_cert"));
    let adopted = pb::TlsCertificate { ca_cert: authority.pem().into(), ..self_signed() };
    assert!(complaint(&with_certificate(adopted)).contains("ca_cert"));
    let no_pem = pb::TlsCertificate { ca_cert: "authority".into(), ..signed.clone() };
    assert!(complaint(&with_certificate(no_pem)).contains("ca_cert"));
    assert!(judged(&with_certificate(signed)).is_ok());
    assert!(judged(&with_certificate(self_signed())).is_ok());
}

/// No complaint repeats a secret it complains about.
#[test]
fn complaints_about_offers_show_no_secrets() {
    let mut settings = everything();
    let opamp = settings.opamp.as_mut().unwrap();
    opamp.destination_endpoint = "ftp://user:hunter2@a.example".to_owned();
    opamp.headers = headers(&[("Authorization", "Bearer hunter2")]);
    opamp.certificate = Some(pb::TlsCertificate {
        cert: "hunter2".into(),
        private_key: "hunter2".into(),
        ca_cert: "hunter2".into(),
    });
    let text = complaint(&settings);
    assert!(!text.contains("hunter2"), "{text}");
    let offer = judged(&everything()).unwrap();
    assert!(!format!("{offer:?}").contains("Bearer"));
}

//! Certificates that agents request.

use std::collections::BTreeMap;
use std::fs;
use std::future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interop::local::{LocalServer, Setup};
use interop::{Authority, Outcome, ensure};
use opamp_proto::{InstanceUid, pb};
use opamp_server::{
    AnyOf, CertificateRefused, CertificateRequest, ConnectionSettingsOffer, IssueCertificate, MutualTls,
    OfferRules, StaticToken, StaticTokens, Target,
};

use super::{ENCRYPTED, EVENTUALLY, agent, over, principal};

/// What is offered to one agent, or why not.
type Decision = Result<Target<ConnectionSettingsOffer>, CertificateRefused>;

/// Issues what is asked for, unless it is closed.
struct Issuer {
    authority: Authority,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    closed: bool,
    /// The endpoint of the offers.
    endpoint: String,
    generations: BTreeMap<InstanceUid, u64>,
}

/// R-CSR-09, R-CSR-10, R-CSR-14, R-CSR-17, R-CSR-24.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn requested_certificate_is_issued_and_used_with_the_key_the_agent_kept() -> Outcome {
    over(&ENCRYPTED, "requested", |scheme, directory| {
        let authority = Authority::new("issuing")?;
        let tls = authority.tls()?;
        let ca = directory.join("ca.pem");
        fs::write(&ca, authority.pem())?;
        let issuer = Arc::new(Issuer { authority, desk: Mutex::default() });
        let tokens = StaticTokens::new(vec![StaticToken::new("bootstrap", "sesame")]);
        let server = LocalServer::with(Setup {
            auth: Arc::new(AnyOf::new(vec![Arc::new(MutualTls), Arc::new(tokens)])),
            tls: Some(tls),
            issuer: Some(Arc::clone(&issuer) as Arc<dyn IssueCertificate>),
            ..Setup::default()
        })?;
        issuer.desk().endpoint = server.url(scheme);
        let flags = ["-ca", &ca.to_string_lossy(), "-token", "sesame", "-accept-settings"];
        let mut agent = agent(directory, &server, scheme, "requesting", &flags)?;
        let (first, _) =
            server.sees("the token", EVENTUALLY, |agent| principal(agent) == "token:bootstrap")?;

        issuer.desk().closed = true;
        agent.order("request_certificate")?;
        let refused = agent.expect("error_response")?;
        ensure!(refused["type"] == "ServerErrorResponseType_BadRequest", "{refused}");
        ensure!(refused["error"].as_str().is_some_and(|text| text.contains("closed today")), "{refused}");
        issuer.desk().closed = false;

        // Somebody else's identity: the hook is not even asked.
        agent.order("request_certificate 0193a5a5-0000-7000-8000-00000000beef")?;
        let refused = agent.expect("error_response")?;
        ensure!(refused["type"] == "ServerErrorResponseType_BadRequest", "{refused}");
        ensure!(issuer.desk().generations.is_empty(), "a foreign identity reached the hook");

        agent.order("request_certificate")?;
        agent.expect("settings_applied")?;
        let wanted = format!("certificate:{}", first.uid);
        server.sees("the certificate", EVENTUALLY, |agent| {
            let report = agent.connection_settings.report.as_ref();
            let applied = pb::ConnectionSettingsStatuses::Applied as i32;
            principal(agent) == wanted && report.is_some_and(|report| report.status == applied)
        })?;
        agent.quit()
    })
}

impl IssueCertificate for Issuer {
    fn issue(&self, request: CertificateRequest) -> Pin<Box<dyn Future<Output = Decision> + Send + '_>> {
        Box::pin(future::ready(self.decide(&request)))
    }
}

impl Issuer {
    fn decide(&self, request: &CertificateRequest) -> Decision {
        let mut desk = self.desk();
        if desk.closed {
            return Err(CertificateRefused("closed today".to_owned()));
        }
        let cert = self.authority.sign(&request.csr);
        let cert = cert.map_err(|failure| CertificateRefused(format!("{failure:?}")))?;
        let settings = pb::ConnectionSettingsOffers {
            opamp: Some(pb::OpAmpConnectionSettings {
                destination_endpoint: desk.endpoint.clone(),
                certificate: Some(pb::TlsCertificate {
                    cert: cert.into(),
                    ca_cert: self.authority.pem().into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let rules = OfferRules { issued_certificate: true, ..OfferRules::default() };
        let offer = ConnectionSettingsOffer::with_rules(settings, rules)
            .map_err(|invalid| CertificateRefused(invalid.to_string()))?;
        let generation = desk.generations.entry(request.uid).or_default();
        *generation += 1;
        Ok(Target::new(*generation, Some(offer)))
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

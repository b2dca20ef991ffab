//! Certificates that our client requests from the opamp-go server, which reads the request with another X.509 library.

use interop::{
    Authority, Extras, GoServer, LibraryAgent, Look, Outcome, Plan, each, ensure, eventually, scenario,
};
use opamp_client::Event;
use opamp_client::connection::SettingsPolicy;
use serde_json::json;
use std::time::Duration;

use super::go_server::has;

const EVENTUALLY: Duration = Duration::from_secs(20);

/// R-CSR-03, R-CSR-04, R-CSR-11, R-CSR-12, R-CSR-14.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn requested_certificate_is_used_with_the_key_that_stayed_here() -> Outcome {
    each(&["wss", "https"], |scheme| {
        scenario(&format!("requested-{scheme}"), |directory| {
            let authority = Authority::new("issuing")?;
            let (ca, ca_key) = authority.write(directory)?;
            let server = authority.server()?;
            let (cert, key) = (directory.join("server.pem"), directory.join("server.key"));
            std::fs::write(&cert, server.certificate)?;
            std::fs::write(&key, server.key)?;
            let (cert, key) = (cert.to_string_lossy(), key.to_string_lossy());
            let flags = ["-cert", &*cert, "-key", &*key, "-client-ca", &ca, "-client-optional"];
            let mut server =
                GoServer::start(&[&flags[..], &["-issuer-cert", &ca, "-issuer-key", &ca_key]].concat())?;
            server.command(&json!({"do": "no_certificates", "text": "closed today"}))?;

            let mut plan = Plan::new(directory, &server.url(scheme), "requesting");
            plan.ca = Some(ca.clone().into());
            plan.extras =
                Extras { settings: Some(SettingsPolicy::strict()), certificates: true, ..Extras::default() };
            let mut agent = LibraryAgent::start(plan)?;
            let asked = server.message("a request", |event| has(event, "connection_settings_request"))?.value;
            let request = &asked["connection_settings_request"];
            ensure!(request["error"].is_null(), "Go does not accept the request: {asked}");
            ensure!(request["common_name"] == asked["uid"], "another identity: {asked}");
            ensure!(asked["peer"] == "", "it has a certificate already: {asked}");
            eventually("the refusal", EVENTUALLY, || {
                let events = agent.events();
                let told = events.iter().any(|(event, _)| {
                    matches!(event, Event::CertificateRefused { message } if message.contains("closed today"))
                });
                Ok(Look::when(told, (), format!("{events:?}")))
            })?;

            server.command(&json!({"do": "no_certificates", "text": ""}))?;
            agent.client()?.request_certificate()?;
            let uid = asked["uid"].clone();
            let applied = server.message("APPLIED over the certificate", |event| {
                event["peer"] == uid && event["connection_settings_status"]["status"] == "APPLIED"
            })?;
            ensure!(applied.value["uid"] == uid, "{}", applied.value);

            agent.stop()?;
            server.mark();
            agent.start_again()?;
            let back = server.message("it is back", |event| has(event, "agent_description"))?.value;
            ensure!(back["peer"] == uid, "not with the certificate: {back}");
            agent.stop()
        })
    })
}

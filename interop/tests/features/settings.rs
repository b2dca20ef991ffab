//! Connection settings: what works is used and kept, what does not is taken back.

use std::fs;
use std::sync::Arc;

use interop::authority::Pair;
use interop::local::{LocalServer, Setup};
use interop::{Agent, Authority, Outcome, ensure};
use opamp_proto::pb;
use opamp_proto::pb::ConnectionSettingsStatuses::{Applied, Failed};
use opamp_server::{
    AgentSnapshot, AnyOf, ConnectionSettingsOffer, Desired, MutualTls, StaticToken, StaticTokens,
};
use serde_json::json;

use super::{ENCRYPTED, EVENTUALLY, PLAIN, agent, is_connected, over, principal};

/// R-CONN-28, R-CONN-31, R-CONN-12, R-CONN-13: seen from the server.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn offered_certificate_is_used_and_one_that_is_refused_is_taken_back() -> Outcome {
    over(&ENCRYPTED, "certificate", |scheme, directory| {
        let authority = Authority::new("ours")?;
        let tokens = StaticTokens::new(vec![StaticToken::new("bootstrap", "sesame")]);
        let server = LocalServer::with(Setup {
            auth: Arc::new(AnyOf::new(vec![Arc::new(MutualTls), Arc::new(tokens)])),
            tls: Some(authority.tls()?),
            ..Setup::default()
        })?;
        let ca = directory.join("ca.pem");
        fs::write(&ca, authority.pem())?;
        let flags = ["-ca", &ca.to_string_lossy(), "-token", "sesame", "-accept-settings", "-trial", "3s"];
        let mut agent = agent(directory, &server, scheme, "bootstrapping", &flags)?;
        let (first, _) =
            server.sees("the token", EVENTUALLY, |agent| principal(agent) == "token:bootstrap")?;

        // The second one is in another name: it is the agent's because the server offered it.
        for (generation, name) in (1..).zip(["its own", "its next"]) {
            let good = certificate(&server.url(scheme), &authority.client(name)?, &authority)?;
            server.handle().set_desired(&first.uid, Desired::connection_settings(generation, good.clone()));
            agent.expect("settings_applied")?;
            let (seen, _) = server.sees("the certificate and APPLIED", EVENTUALLY, |agent| {
                principal(agent) == format!("certificate:{name}") && reports(agent, &good, Applied)
            })?;
            ensure!(seen.uid == first.uid, "another agent: {seen:?}");
        }

        let stranger = Authority::new("another")?;
        let bad = certificate(&server.url(scheme), &stranger.client("its next")?, &stranger)?;
        server.handle().set_desired(&first.uid, Desired::connection_settings(3, bad.clone()));
        agent.expect("settings_failed")?;
        let (seen, _) = server.sees("back with the one before, and FAILED", EVENTUALLY, |agent| {
            is_connected(agent)
                && principal(agent) == "certificate:its next"
                && reports(agent, &bad, Failed)
                && agent.connection_settings.failed
        })?;
        let report = seen.connection_settings.report.as_ref();
        ensure!(report.is_some_and(|report| !report.error.is_empty()), "{seen:?}");
        stays(&server, &mut agent, 3)?;
        agent.quit()
    })
}

/// R-CONN-12, R-CONN-14.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn agent_that_is_sent_where_nobody_is_comes_back() -> Outcome {
    over(&PLAIN, "nowhere", |scheme, directory| {
        let server = LocalServer::with(Setup::default())?;
        let mut agent = agent(directory, &server, scheme, "lost", &["-accept-settings", "-trial", "2s"])?;
        let (first, _) = server.sees("the agent", EVENTUALLY, is_connected)?;
        let nowhere = offer(pb::ConnectionSettingsOffers {
            opamp: Some(pb::OpAmpConnectionSettings {
                destination_endpoint: format!("{scheme}://127.0.0.1:1/v1/opamp"),
                ..Default::default()
            }),
            ..Default::default()
        })?;
        server.handle().set_desired(&first.uid, Desired::connection_settings(1, nowhere.clone()));
        agent.expect("settings_failed")?;
        server.sees("back, and FAILED", EVENTUALLY, |agent| {
            is_connected(agent) && reports(agent, &nowhere, Failed) && agent.connection_settings.failed
        })?;
        stays(&server, &mut agent, 1)?;
        agent.quit()
    })
}

/// R-CONN-16, R-CONN-18, R-CONN-19: what the agent has already is not sent again.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn only_the_parts_that_changed_are_offered() -> Outcome {
    over(&PLAIN, "telemetry", |scheme, directory| {
        let server = LocalServer::with(Setup::default())?;
        let mut agent = agent(directory, &server, scheme, "measured", &["-accept-settings"])?;
        let (first, _) = server.sees("the agent", EVENTUALLY, is_connected)?;
        let to = |endpoint: &str| pb::TelemetryConnectionSettings {
            destination_endpoint: endpoint.to_owned(),
            ..Default::default()
        };
        let mut wanted = pb::ConnectionSettingsOffers {
            own_metrics: Some(to("https://127.0.0.1:9/v1/metrics")),
            own_logs: Some(to("https://127.0.0.1:9/v1/logs")),
            ..Default::default()
        };
        wanted.other_connections.insert(
            "database".to_owned(),
            pb::OtherConnectionSettings { destination_endpoint: "db:5432".to_owned(), ..Default::default() },
        );
        let parts = [json!(["other:database", "own_logs", "own_metrics"]), json!(["own_logs"])];
        for (generation, parts) in (1..).zip(parts) {
            let all = offer(wanted.clone())?;
            server.handle().set_desired(&first.uid, Desired::connection_settings(generation, all.clone()));
            let offered = agent.expect("connection_settings")?;
            ensure!(offered["parts"] == parts, "{offered} instead of {parts}");
            server.sees("APPLIED", EVENTUALLY, |agent| reports(agent, &all, Applied))?;
            wanted.own_logs = Some(to("https://127.0.0.1:9/another"));
        }
        agent.quit()
    })
}

/// The agent goes on, and is not offered the same again.
fn stays(server: &LocalServer, agent: &mut Agent, offers: usize) -> Outcome {
    let before = server.sees("it", EVENTUALLY, |_| true)?.0.sequence_num;
    server.sees("ten more messages", EVENTUALLY, |agent| agent.sequence_num.0 >= before.0 + 10)?;
    let count = agent.count("settings_offered");
    ensure!(count == offers, "offered {count} times instead of {offers}");
    Ok(())
}

fn certificate(endpoint: &str, pair: &Pair, authority: &Authority) -> Outcome<ConnectionSettingsOffer> {
    offer(pb::ConnectionSettingsOffers {
        opamp: Some(pb::OpAmpConnectionSettings {
            destination_endpoint: endpoint.to_owned(),
            // In place of those it has, its token among them.
            headers: Some(pb::Headers { headers: vec![header("X-From", "an offer")] }),
            certificate: Some(pb::TlsCertificate {
                cert: pair.certificate.clone().into(),
                private_key: pair.key.clone().into(),
                ca_cert: authority.pem().into(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn header(key: &str, value: &str) -> pb::Header {
    pb::Header { key: key.to_owned(), value: value.to_owned() }
}

fn offer(settings: pb::ConnectionSettingsOffers) -> Outcome<ConnectionSettingsOffer> {
    Ok(ConnectionSettingsOffer::new(settings)?)
}

fn reports(
    agent: &AgentSnapshot,
    offer: &ConnectionSettingsOffer,
    status: pb::ConnectionSettingsStatuses,
) -> bool {
    let report = agent.connection_settings.report.as_ref();
    report.is_some_and(|report| report.hash == *offer.hash() && report.status == status as i32)
}

//! Connection settings offered by the opamp-go server.

use std::path::Path;

use interop::authority::Pair;
use interop::{Authority, Extras, GoServer, Kind, LibraryAgent, Ours, Outcome, Plan, each, ensure, scenario};
use opamp_client::connection::SettingsPolicy;
use serde_json::{Value, json};

use super::go_server::{has, sent};

const GOOD: &str = "aa01";
const BAD: &str = "bb02";

/// R-CONN-05 to R-CONN-11, R-CONN-20, R-CONN-28, R-TLS-03.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn offered_certificate_leads_to_another_server_and_is_kept_over_a_restart() -> Outcome {
    both("moving", |kind, scheme, directory| {
        let place = Place::new(directory)?;
        let (mut first, mut second) = (place.server(false)?, place.server(true)?);
        let mut agent = Ours::start(kind, place.plan(&first.url(scheme), "moving"))?;
        first.message("the first report", |event| has(event, "agent_description"))?;
        let offered = json!({
            "do": "settings", "hash": GOOD,
            "opamp": place.target(&second.url(scheme), &place.authority.client("its own")?, &place.authority),
        });
        first.command(&offered)?;
        first.message("APPLYING on the old connection", |event| reports(event, "APPLYING", GOOD))?;
        first.message("the goodbye", |event| has(event, "agent_disconnect"))?;
        let there = second.message("the report over the new one", |event| has(event, "agent_description"))?;
        ensure!(there.value["peer"] == "its own", "{}", there.value);
        second.message("APPLIED", |event| reports(event, "APPLIED", GOOD))?;

        agent.stop()?;
        first.mark();
        second.mark();
        agent.start_again()?;
        let back = second.message("it is back", |event| has(event, "agent_description"))?;
        ensure!(back.value["peer"] == "its own" && reports(&back.value, "APPLIED", GOOD), "{}", back.value);
        agent.stop()?;
        let elsewhere = first.since_mark(|event| event["event"] == "message");
        ensure!(elsewhere.is_empty(), "the old server was asked again: {elsewhere:?}");
        Ok(())
    })
}

/// R-CONN-12 to R-CONN-14, R-CONN-24: three ways not to work.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn settings_that_do_not_work_are_taken_back_and_told() -> Outcome {
    let ways = ["a certificate nobody there knows", "a server it cannot verify", "nobody there"];
    each(&ways, |way| {
        both("failing", |kind, scheme, directory| {
            let place = Place::new(directory)?;
            let stranger = Authority::new("another")?;
            let (mut first, mut second) = (place.server(false)?, place.server(true)?);
            let target = match *way {
                "nobody there" => json!({"endpoint": format!("{scheme}://127.0.0.1:1/v1/opamp")}),
                "a server it cannot verify" => {
                    json!({"endpoint": second.url(scheme), "trust": stranger.pem()})
                }
                _ => place.target(&second.url(scheme), &stranger.client("stranger")?, &stranger),
            };
            let mut agent = Ours::start(kind, place.plan(&first.url(scheme), "failing"))?;
            first.message("the first report", |event| has(event, "agent_description"))?;
            first.command(&json!({"do": "settings", "hash": BAD, "opamp": target}))?;
            let failed = first.message("FAILED", |event| reports(event, "FAILED", BAD))?;
            ensure!(failed.value["connection_settings_status"]["error"] != "", "{}", failed.value);
            let reached = second.since_mark(|event| event["event"] == "message");
            ensure!(reached.is_empty(), "it got through: {reached:?}");

            // It is as ready for others as before.
            first.command(&json!({
                "do": "settings", "hash": GOOD,
                "opamp": place.target(&second.url(scheme), &place.authority.client("its own")?, &place.authority),
            }))?;
            let applied = second.message("APPLIED", |event| reports(event, "APPLIED", GOOD))?;
            let told = &applied.value["connection_settings_status"]["error"];
            ensure!(told == "", "the text of the failure before is still there: {told}");
            agent.stop()
        })
    })
}

/// R-CONN-26, and what this project adds to R-TLS-05 and R-TLS-06: no server lowers what its agent verifies.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn settings_that_would_verify_less_are_refused_without_leaving() -> Outcome {
    over("lowering", |scheme, directory| {
        let place = Place::new(directory)?;
        let mut server = place.server(false)?;
        let url = server.url(scheme);
        let plaintext = url.replace("s://", "://");
        let mut agent = LibraryAgent::start(place.plan(&url, "careful"))?;
        server.message("the first report", |event| has(event, "agent_description"))?;
        let targets = [
            json!({"endpoint": url, "insecure_skip_verify": true}),
            json!({"endpoint": url, "min_version": "1.0"}),
            json!({"endpoint": plaintext}),
            json!({"endpoint": "ftp://127.0.0.1/v1/opamp"}),
            json!({"heartbeat_seconds": 1}),
            json!({"endpoint": url, "certificate": "no PEM", "key": "none either"}),
        ];
        for (number, target) in targets.iter().enumerate() {
            let hash = format!("{number:02x}ff");
            server.command(&json!({"do": "settings", "hash": hash, "opamp": target}))?;
            let failed =
                server.message(&format!("FAILED for {target}"), |event| reports(event, "FAILED", &hash))?;
            ensure!(failed.value["connection_settings_status"]["error"] != "", "{}", failed.value);
            let left =
                server.since_mark(|event| has(event, "agent_disconnect") || event["event"] == "connected");
            ensure!(left.is_empty(), "it left for {target}: {left:?}");
        }
        agent.stop()
    })
}

/// R-OWN-06, R-OWN-07, R-CONN-17, R-CONN-37, R-CONN-38.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn settings_of_other_connections_are_handed_over_without_a_reconnect() -> Outcome {
    over("telemetry", |scheme, directory| {
        let place = Place::new(directory)?;
        let mut server = place.server(false)?;
        let mut agent = LibraryAgent::start(place.plan(&server.url(scheme), "measured"))?;
        server.message("the first report", |event| has(event, "agent_description"))?;
        server.command(&json!({
            "do": "settings", "hash": GOOD,
            "own_metrics": {"endpoint": "https://127.0.0.1:9/v1/metrics"},
            "others": {"database": {"endpoint": "db:5432"}},
        }))?;
        server.message("APPLIED", |event| reports(event, "APPLIED", GOOD))?;
        let left = server.since_mark(|event| has(event, "agent_disconnect") || event["event"] == "connected");
        ensure!(left.is_empty(), "it reconnected: {left:?}");
        let mut taken = agent.taken().connections();
        taken.sort();
        ensure!(taken == ["database db:5432", "own_metrics https://127.0.0.1:9/v1/metrics"], "{taken:?}");
        agent.stop()
    })
}

/// R-CMD-02: whatever else is in the message of a restart is ignored, and a server that is not ours may put it there.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn restart_makes_the_rest_of_its_message_void() -> Outcome {
    over("exclusive", |scheme, directory| {
        let place = Place::new(directory)?;
        let mut server = place.server(false)?;
        let mut agent = LibraryAgent::start(place.plan(&server.url(scheme), "restarting"))?;
        server.message("the first report", |event| has(event, "agent_description"))?;
        server.command(&json!({"do": "restart", "files": {"": "never: applied\n"}, "hash": BAD}))?;
        server
            .until("both in one message", |event| sent(event, "command") && sent(event, "remote_config"))?;
        server.message("the goodbye before the restart", |event| has(event, "agent_disconnect"))?;
        let again = server.message("the report after it", |event| has(event, "agent_description"))?;
        ensure!(again.value["remote_config_status"]["hash"] != BAD, "{}", again.value);
        ensure!(agent.applications() == 0, "it was applied");
        agent.stop()
    })
}

/// Where everything is that a scenario needs.
struct Place<'a> {
    directory: &'a Path,
    authority: Authority,
    files: Files,
}

struct Files {
    ca: String,
    cert: String,
    key: String,
}

impl<'a> Place<'a> {
    fn new(directory: &'a Path) -> Outcome<Self> {
        let authority = Authority::new("interop")?;
        let (ca, _) = authority.write(directory)?;
        let server = authority.server()?;
        let (cert, key) = (directory.join("server.pem"), directory.join("server.key"));
        std::fs::write(&cert, server.certificate)?;
        std::fs::write(&key, server.key)?;
        let path = |path: &Path| path.to_string_lossy().into_owned();
        Ok(Self { directory, authority, files: Files { ca, cert: path(&cert), key: path(&key) } })
    }

    /// A server with TLS, which may want certificates.
    fn server(&self, wants_certificates: bool) -> Outcome<GoServer> {
        let mut flags = vec!["-cert", &*self.files.cert, "-key", &*self.files.key];
        if wants_certificates {
            flags.extend(["-client-ca", &*self.files.ca]);
        }
        GoServer::start(&flags)
    }

    fn plan(&self, url: &str, name: &str) -> Plan {
        let mut plan = Plan::new(self.directory, url, name);
        plan.ca = Some(self.files.ca.clone().into());
        plan.extras =
            Extras { settings: Some(SettingsPolicy::strict()), telemetry: true, ..Extras::default() };
        plan
    }

    /// Polls as often as before.
    fn target(&self, endpoint: &str, pair: &Pair, authority: &Authority) -> Value {
        json!({
            "endpoint": endpoint, "certificate": pair.certificate, "key": pair.key,
            "ca_certificate": authority.pem(), "trust": self.authority.pem(), "heartbeat_seconds": 1,
        })
    }
}

fn over(name: &str, body: impl Fn(&str, &Path) -> Outcome + Sync) -> Outcome {
    each(&["wss", "https"], |scheme| {
        scenario(&format!("{name}-{scheme}"), |directory| body(scheme, directory))
    })
}

/// With the library and with the self-agent.
fn both(name: &str, body: impl Fn(Kind, &str, &Path) -> Outcome + Sync) -> Outcome {
    each(&[Kind::Library, Kind::Program], |kind| {
        over(&format!("{name}-{kind}"), |scheme, directory| body(*kind, scheme, directory))
    })
}

fn reports(message: &Value, status: &str, hash: &str) -> bool {
    let reported = &message["connection_settings_status"];
    reported["status"] == status && reported["hash"] == hash
}

//! Against the opamp-go server. What is asserted is what that server saw.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use interop::{Certificates, GoServer, Kind, Ours, Outcome, Plan, each, ensure, scenario};
use serde_json::{Value, json};

/// A config that both kinds of agents apply, what shows in their effective config then, and its hash.
const GOOD: &str = "agent:\n  description:\n    non_identifying_attributes:\n      zone: north\n";
const IN_USE: &str = "zone: north";
const GOOD_HASH: &str = "01ab";

/// One that both refuse: the library for its comment, the self-agent for the key.
const BAD: &str = "# reject\nserver:\n  endpoint: ws://127.0.0.1:9\n";
const BAD_HASH: &str = "02cd";

/// Timers fire late on a busy machine, and never early; but what comes late makes what follows it look early.
const EARLY: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_secs(10);

/// What runs, and over which scheme.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Case(pub(super) Kind, pub(super) &'static str);

pub(super) const PLAIN: [Case; 4] = [
    Case(Kind::Library, "ws"),
    Case(Kind::Library, "http"),
    Case(Kind::Program, "ws"),
    Case(Kind::Program, "http"),
];

const MUTUAL_TLS: [Case; 4] = [
    Case(Kind::Library, "wss"),
    Case(Kind::Library, "https"),
    Case(Kind::Program, "wss"),
    Case(Kind::Program, "https"),
];

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn everything_an_agent_does_is_understood() -> Outcome {
    for_each(&PLAIN, walk)
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn mutual_tls_changes_nothing_of_that() -> Outcome {
    for_each(&MUTUAL_TLS, walk)
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn assigned_uid_is_kept_over_a_restart_of_the_agent() -> Outcome {
    for_each(&PLAIN, |Case(kind, scheme), directory| {
        let mut server = GoServer::start(&[])?;
        let mut agent = Ours::start(*kind, Plan::new(directory, &server.url(scheme), "renamed"))?;
        let first = server.message("the first report", |event| has(event, "agent_description"))?;
        let uid = "0193a5a5-0000-7000-8000-00000000beef";
        server.command(&json!({"do": "assign", "uid": uid}))?;
        // Over WebSocket the agent has nothing to say under its new name but that it is asked.
        server.until("the new uid on its way", |event| sent(event, "agent_identification"))?;
        server.command(&json!({"do": "full_state"}))?;
        server.message("a report of the new one", |event| event["uid"] == uid && has(event, "health"))?;
        server.mark();
        agent.stop()?;
        server.message("its goodbye", |event| event["uid"] == uid && has(event, "agent_disconnect"))?;
        server.mark();
        agent.start_again()?;
        let back = server.message("it is back", |event| has(event, "agent_description"))?;
        ensure!(back.value["uid"] == uid, "{} came back instead of {uid}", back.value["uid"]);
        let instance = &back.value["agent_description"]["identifying"]["service.instance.id"];
        ensure!(instance == uid, "service.instance.id is {instance}");
        ensure!(back.value["sequence_num"].as_u64() > first.value["sequence_num"].as_u64(), "{}", back.value);
        agent.stop()
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn server_that_is_killed_is_found_again_and_nothing_is_applied_twice() -> Outcome {
    for_each(&PLAIN, |Case(kind, scheme), directory| {
        let files = json!({"": GOOD}).to_string();
        let mut server = GoServer::start(&["-offer", &files])?;
        let mut agent = Ours::start(*kind, Plan::new(directory, &server.url(scheme), "bereaved"))?;
        let applied =
            server.message("APPLIED", |event| event["remote_config_status"]["status"] == "APPLIED")?;
        let hash = applied.value["remote_config_status"]["hash"].clone();
        let mut server = server.killed_and_back(&["-offer", &files])?;
        let back = server.message("a complete report", |event| has(event, "agent_description"))?;
        for part in ["health", "effective_config", "remote_config_status"] {
            ensure!(has(&back.value, part), "no {part} in {}", back.value);
        }
        ensure!(back.value["remote_config_status"]["hash"] == hash, "{}", back.value);
        // Even if the server offers it again, it is in use already.
        server.command(&json!({"do": "offer_again"}))?;
        server.until("the offer", |event| sent(event, "remote_config"))?;
        server.command(&json!({"do": "full_state"}))?;
        let after = server.message("a report after it", |event| has(event, "remote_config_status"))?;
        ensure!(reports(&after.value, "APPLIED", hash.as_str().unwrap_or_default()), "{}", after.value);
        ensure!(agent.applications()? == 1, "applied {} times", agent.applications()?);
        agent.stop()
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn retry_after_of_a_503_is_obeyed() -> Outcome {
    const ASKED: Duration = Duration::from_secs(2);
    for_each(&PLAIN, |Case(kind, scheme), directory| {
        let mut server = GoServer::start(&[])?;
        let mut agent = Ours::start(*kind, Plan::new(directory, &server.url(scheme), "throttled"))?;
        server.message("the first report", |event| has(event, "agent_description"))?;
        let refusal = json!({"do": "refuse", "status": 503, "headers": {"Retry-After": "2"}, "times": 1});
        server.command(&refusal)?;
        if *scheme == "ws" {
            server.command(&json!({"do": "disconnect"}))?;
        }
        let refused = server.until("the refusal", |event| event["event"] == "refused")?;
        server.mark_after(&refused);
        let back = server.message("its return", |_| true)?;
        let waited = back.at - refused.at;
        ensure!(waited + EARLY >= ASKED && waited <= ASKED + LATE, "asked for {ASKED:?}, waited {waited:?}");
        agent.stop()
    })
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn retry_info_of_unavailable_is_obeyed() -> Outcome {
    const ASKED: Duration = Duration::from_millis(1_500);
    for_each(&PLAIN, |Case(kind, scheme), directory| {
        let mut server = GoServer::start(&[])?;
        let mut agent = Ours::start(*kind, Plan::new(directory, &server.url(scheme), "overloading"))?;
        server.message("the first report", |event| has(event, "agent_description"))?;
        server.command(&json!({"do": "unavailable", "retry_after_ms": 1_500, "times": 1}))?;
        if *scheme == "ws" {
            server.command(&json!({"do": "full_state"}))?;
        }
        let told = server.until("the answer", |event| event["event"] == "unavailable")?;
        server.mark_after(&told);
        let back = server.message("the same report", |event| !has(event, "agent_disconnect"))?;
        let waited = back.at - told.at;
        ensure!(waited + EARLY >= ASKED && waited <= ASKED + LATE, "asked for {ASKED:?}, waited {waited:?}");
        if *scheme == "ws" {
            // The way back is a new connection; the opamp-go server itself leaves the old one open.
            ensure!(back.value["connection"] != told.value["connection"], "{}", back.value);
            ensure!(has(&back.value, "agent_description"), "{}", back.value);
        }
        agent.stop()
    })
}

/// Status, config, effective config, failure, full state, restart, heartbeats, goodbye.
fn walk(case: &Case, directory: &Path) -> Outcome {
    let Case(kind, scheme) = case;
    let mut plan = Plan::new(directory, "", "walking");
    let mut server =
        if MUTUAL_TLS.contains(case) { secured(directory, &mut plan)? } else { GoServer::start(&[])? };
    plan.url = server.url(scheme);
    let mut agent = Ours::start(*kind, plan)?;
    let first = server.message("the first report", |event| has(event, "agent_description"))?.value;
    ensure!(first["agent_description"]["identifying"]["service.name"] == "walking", "{first}");
    ensure!(first["health"]["healthy"] == true, "{first}");
    ensure!(has(&first, "effective_config"), "{first}");
    for capability in [
        "ReportsStatus",
        "AcceptsRemoteConfig",
        "ReportsRemoteConfig",
        "ReportsEffectiveConfig",
        "ReportsHealth",
        "AcceptsRestartCommand",
        "ReportsHeartbeat",
    ] {
        let known = first["capabilities"].as_array().is_some_and(|all| all.contains(&json!(capability)));
        ensure!(known, "no {capability} in {first}");
    }
    if *scheme == "wss" {
        // Polls make no event of their connections.
        server.until("the certificate", |event| event["peer"] == "interop client")?;
    }

    server.offer(GOOD_HASH, GOOD)?;
    server.message("APPLIED", |event| reports(event, "APPLIED", GOOD_HASH))?;
    server.message("the effective config", |event| runs(event, IN_USE))?;
    ensure!(agent.applications()? == 1, "applied {} times", agent.applications()?);

    server.offer(BAD_HASH, BAD)?;
    let failed = server.message("FAILED", |event| reports(event, "FAILED", BAD_HASH))?.value;
    ensure!(failed["remote_config_status"]["error"] != "", "{failed}");

    server.command(&json!({"do": "full_state"}))?;
    let full = server.message("full state", |event| has(event, "agent_description"))?.value;
    ensure!(has(&full, "health") && reports(&full, "FAILED", BAD_HASH), "{full}");
    ensure!(runs(&full, IN_USE), "what runs changed by a config that failed: {full}");

    server.command(&json!({"do": "restart"}))?;
    server.message("the goodbye before the restart", |event| has(event, "agent_disconnect"))?;
    let again = server.message("the report after it", |event| has(event, "agent_description"))?.value;
    ensure!(again["uid"] == first["uid"], "{again}");
    let started = |message: &Value| message["health"]["start_time_unix_nano"].as_u64();
    ensure!(started(&again) > started(&first), "the same start time: {again}");
    ensure!(runs(&again, IN_USE) && reports(&again, "FAILED", BAD_HASH), "{again}");
    ensure!(agent.applications()? == 1, "applied {} times", agent.applications()?);

    heartbeats(&mut server)?;

    server.mark();
    agent.stop()?;
    server.message("the goodbye", |event| has(event, "agent_disconnect"))?;
    if scheme.starts_with("ws") {
        server.until("the end of the connection", |event| event["event"] == "connection_closed")?;
    }
    let errors = server.since_mark(|event| event["event"] == "read_error" || event["event"] == "send_failed");
    ensure!(errors.is_empty(), "not in order: {errors:?}");
    Ok(())
}

/// The interval is the one the server sets: before, it was 30 s over WebSocket and 200 ms over HTTP.
fn heartbeats(server: &mut GoServer) -> Outcome {
    const SET: Duration = Duration::from_secs(1);
    server.command(&json!({"do": "heartbeat", "seconds": 1}))?;
    let bare = |event: &Value| event["parts"] == json!([]);
    let on_its_way = server.until("the setting", |event| sent(event, "connection_settings"))?;
    server.mark_after(&on_its_way);
    let first = server.message("a heartbeat", bare)?;
    server.mark_after(&first);
    let second = server.message("another heartbeat", bare)?;
    let gap = second.at - first.at;
    ensure!(gap + EARLY >= SET && gap <= SET + LATE, "heartbeats {gap:?} apart instead of {SET:?}");
    Ok(())
}

/// A server that wants certificates, and a plan with one.
fn secured(directory: &Path, plan: &mut Plan) -> Outcome<GoServer> {
    let files = Certificates::issue(directory)?;
    let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let (cert, key, ca) =
        (path(files.certificate("server")), path(files.key("server")), path(files.certificate("ca")));
    plan.ca = Some(files.certificate("ca"));
    plan.identity = Some((files.certificate("client"), files.key("client")));
    GoServer::start(&["-cert", &cert, "-key", &key, "-client-ca", &ca])
}

fn for_each(cases: &[Case], body: impl Fn(&Case, &Path) -> Outcome + Sync) -> Outcome {
    each(cases, |case| scenario(&case.to_string(), |directory| body(case, directory)))
}

pub(super) fn has(message: &Value, part: &str) -> bool {
    !message[part].is_null()
}

fn reports(message: &Value, status: &str, hash: &str) -> bool {
    let reported = &message["remote_config_status"];
    reported["status"] == status && reported["hash"] == hash
}

fn runs(message: &Value, text: &str) -> bool {
    message["effective_config"][""].as_str().is_some_and(|body| body.contains(text))
}

pub(super) fn sent(event: &Value, part: &str) -> bool {
    event["event"] == "sent" && event["parts"].as_array().is_some_and(|parts| parts.contains(&json!(part)))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

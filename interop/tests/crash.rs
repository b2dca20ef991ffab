//! Fifty kills under write load: what REST acknowledged is there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use interop::rest::Answer;
use interop::{Agent, Failure, Look, Outcome, Rest, Server, ensure, eventually, scenario};
use serde_json::{Value, json};

const KILLS: u64 = 50;
const WRITERS: u64 = 3;

/// Acknowledged writes between two kills, at least: every kill hits a server that is writing.
const WRITES_PER_LIFE: u64 = 6;

const EVENTUALLY: Duration = Duration::from_secs(60);

/// What the server has promised to keep.
#[derive(Default)]
struct Ledger {
    /// Config versions by config: how many were created, and which are published.
    configs: BTreeMap<String, Promised>,
    /// The last acknowledged label value, and the last one that was sent.
    label: (u64, u64),
    /// The last acknowledged assignment, and the last one that was sent.
    assigned: (u64, u64),
}

#[derive(Clone, Copy, Default)]
struct Promised {
    created: u64,
    published: u64,
}

#[test]
#[ignore = "needs Go 1.25 or newer"]
fn every_acknowledged_write_survives_fifty_kills() -> Outcome {
    scenario("crash", |directory| {
        let mut server = Server::start(directory, &[])?;
        let agent = Agent::named(directory, &server.url("ws"), "witness", &["-health-interval", "20ms"])?;
        let id = server.agent("witness")?.id;
        server.publish("assigned", &json!({"": {"body": "n: 0\n"}}))?;
        for number in 1..=4 {
            server.publish_next("assigned", &json!({"": {"body": format!("n: {number}\n")}}))?;
        }
        let (rest, stop) = (server.rest(), AtomicBool::new(false));
        let (ledger, acknowledged) = (Mutex::new(Ledger::default()), AtomicU64::new(0));

        let lives = thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (rest, ledger, stop, acknowledged) = (&rest, &ledger, &stop, &acknowledged);
                scope.spawn(move || {
                    for round in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let done = write_config(rest, ledger, &format!("w{writer}-{round}"));
                        acknowledged.fetch_add(done, Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(|| {
                for round in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let done = write_agent(&rest, &ledger, &id, round);
                    acknowledged.fetch_add(done, Ordering::Relaxed);
                }
            });
            let lives = kill_again_and_again(&mut server, &acknowledged);
            stop.store(true, Ordering::Relaxed);
            lives
        });
        lives?;

        let ledger = ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!("{KILLS} kills, {} writes acknowledged", acknowledged.into_inner());
        verify(&server, &ledger, &id)?;
        let audit = server.rest().get("/api/v1/audit/verify")?;
        ensure!(audit["intact"] == true, "the audit log is broken: {audit}");
        agent.quit()
    })
}

fn kill_again_and_again(server: &mut Server, acknowledged: &AtomicU64) -> Outcome {
    for kill in 1..=KILLS {
        let wanted = acknowledged.load(Ordering::Relaxed) + WRITES_PER_LIFE;
        eventually("writes between two kills", EVENTUALLY, || {
            let now = acknowledged.load(Ordering::Relaxed);
            Ok(Look::when(now >= wanted, (), format!("{now} of {wanted}")))
        })?;
        server.kill()?;
        server.start_again().map_err(|failure| Failure::new(format!("after kill {kill}: {failure:?}")))?;
    }
    Ok(())
}

/// Creates a config, publishes it, adds a second version. Returns how many of these were acknowledged.
fn write_config(rest: &Rest, ledger: &Mutex<Ledger>, name: &str) -> u64 {
    let body = json!({ "files": { "": { "body": format!("name: {name}\n") } }, "comment": name });
    let mut new = body.clone();
    new["name"] = json!(name);
    let steps: [(String, Option<&Value>, Promised); 3] = [
        ("/api/v1/configs".to_owned(), Some(&new), Promised { created: 1, published: 0 }),
        (format!("/api/v1/configs/{name}/versions/1/publish"), None, Promised { created: 1, published: 1 }),
        (format!("/api/v1/configs/{name}/versions"), Some(&body), Promised { created: 2, published: 1 }),
    ];
    for (done, (path, body, promised)) in (0..).zip(steps) {
        if !acknowledged(rest.call("POST", &path, &[], body)) {
            return done;
        }
        lock(ledger).configs.insert(name.to_owned(), promised);
    }
    3
}

/// Sets a label and an assignment. Returns how many of these were acknowledged.
fn write_agent(rest: &Rest, ledger: &Mutex<Ledger>, id: &str, round: u64) -> u64 {
    lock(ledger).label.1 = round;
    let labels = json!({ "labels": { "round": round.to_string() } });
    if !acknowledged(rest.call("PUT", &format!("/api/v1/agents/{id}/labels"), &[], Some(&labels))) {
        return 0;
    }
    lock(ledger).label.0 = round;
    let version = round % 5 + 1;
    lock(ledger).assigned.1 = version;
    let assignment = json!({ "config": "assigned", "version": version });
    if !acknowledged(rest.call("POST", &format!("/api/v1/agents/{id}/assign"), &[], Some(&assignment))) {
        return 1;
    }
    lock(ledger).assigned.0 = version;
    2
}

/// A complete answer of success. While the server is down there is none, and the writer tries something else.
fn acknowledged(answer: Outcome<Answer>) -> bool {
    let success = answer.is_ok_and(|answer| (200..300).contains(&answer.status));
    if !success {
        thread::sleep(Duration::from_millis(5));
    }
    success
}

fn verify(server: &Server, ledger: &Ledger, id: &str) -> Outcome {
    let rest = server.rest();
    for (name, promised) in &ledger.configs {
        let config = rest.get(&format!("/api/v1/configs/{name}"))?;
        let versions = config["versions"].as_array().cloned().unwrap_or_default();
        let published = versions.iter().filter(|version| version["state"] == "published").count() as u64;
        ensure!(
            versions.len() as u64 >= promised.created && published >= promised.published,
            "{name}: {} versions of which {published} published, promised were {} and {}",
            versions.len(),
            promised.created,
            promised.published
        );
        let content = rest.get(&format!("/api/v1/configs/{name}/versions/1"))?;
        ensure!(
            content["files"][""]["body"] == format!("name: {name}\n"),
            "{name} has other files: {content}"
        );
    }
    let record = rest.get(&format!("/api/v1/agents/{id}"))?;
    let (kept, sent) = ledger.label;
    let round =
        record["labels"]["round"].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    ensure!((kept..=sent).contains(&round), "label {round}, acknowledged was {kept} and sent {sent}");
    let version = record["desired_config"]["version"].as_u64().unwrap_or_default();
    let (kept, sent) = ledger.assigned;
    ensure!(version == kept || version == sent, "version {version} is assigned, not {kept} or {sent}");
    Ok(())
}

fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Packages offered and served by the opamp-go server.

use std::fs;

use interop::{Extras, GoServer, Ours, Outcome, Plan, each, ensure, scenario};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::go_server::{Case, PLAIN, has};

const TOKEN: &str = "sesame";

/// R-PKG-19 to R-PKG-35: as a server that is not ours reads them.
#[test]
#[ignore = "needs Go 1.25 or newer"]
fn package_is_installed_and_one_of_another_content_is_not() -> Outcome {
    each(&PLAIN, |Case(kind, scheme)| {
        scenario(&format!("packages-{kind}-{scheme}"), |directory| {
            let served = directory.join("served");
            fs::create_dir(&served)?;
            let mut server = GoServer::start(&["-files", &served.to_string_lossy(), "-files-token", TOKEN])?;
            let mut plan = Plan::new(directory, &server.url(scheme), "installing");
            plan.extras = Extras { packages: true, ..Extras::default() };
            let mut agent = Ours::start(*kind, plan)?;
            server.message("the first report", |event| has(event, "agent_description"))?;

            offer(&mut server, &served, "a1", "1", b"first", b"first")?;
            let installed = server.message("installed", |event| is(event, "a1", "Installed"))?.value;
            let one = &installed["package_statuses"]["packages"]["plugin"];
            ensure!(one["has_version"] == "1" && one["has_hash"] == "a1a1", "{installed}");
            ensure!(one["offered_version"] == "1" && one["offered_hash"] == "a1a1", "{installed}");
            ensure!(one["name"] == "plugin" && one["error"] == "", "{installed}");

            offer(&mut server, &served, "b2", "2", b"second", b"another")?;
            let failed = server.message("failed", |event| is(event, "b2", "InstallFailed"))?.value;
            let one = &failed["package_statuses"]["packages"]["plugin"];
            ensure!(one["has_version"] == "1" && one["has_hash"] == "a1a1", "{failed}");
            ensure!(one["offered_version"] == "2" && one["error"] != "", "{failed}");

            offer(&mut server, &served, "c3", "3", b"third", b"third")?;
            let mended = server.message("mended", |event| is(event, "c3", "Installed"))?.value;
            let one = &mended["package_statuses"]["packages"]["plugin"];
            ensure!(one["has_version"] == "3" && one["error"] == "", "{mended}");

            agent.stop()?;
            server.mark();
            agent.start_again()?;
            let back = server.message("it is back", |event| has(event, "package_statuses"))?.value;
            ensure!(is(&back, "c3", "Installed"), "{back}");
            agent.stop()
        })
    })
}

/// Offers a file that is to have the hash of `hashed`.
fn offer(
    server: &mut GoServer,
    served: &std::path::Path,
    hash: &str,
    version: &str,
    content: &[u8],
    hashed: &[u8],
) -> Outcome {
    fs::write(served.join(version), content)?;
    let digest: String = Sha256::digest(hashed).iter().map(|byte| format!("{byte:02x}")).collect();
    let package = json!({
        "version": version, "hash": hash.repeat(2), "url": server.file(version)?, "content_hash": digest,
        "headers": {"Authorization": format!("Bearer {TOKEN}")},
    });
    server.command(&json!({"do": "packages", "hash": hash, "packages": {"plugin": package}}))
}

fn is(event: &Value, hash: &str, status: &str) -> bool {
    let reported = &event["package_statuses"];
    reported["hash"] == hash && reported["packages"]["plugin"]["status"] == status
}

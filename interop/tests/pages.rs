//! Pages that the server writes about itself are what is committed.

use std::path::Path;
use std::process::Command;

use interop::{Outcome, ensure, process};

fn is_committed(command: &str, page: &str) -> Outcome {
    let printed =
        Command::new(process::reference_server()?).arg(command).env_remove("OPAMP_CONFIG").output()?;
    ensure!(printed.status.success(), "reference-server {command}: {}", printed.status);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let committed = std::fs::read(&path).unwrap_or_default();
    ensure!(committed == printed.stdout, "{page} is out of date; run: cargo xtask docs");
    Ok(())
}

#[test]
fn configuration_page_is_what_the_server_prints() -> Outcome {
    is_committed("config-docs", "docs/configuration.md")
}

#[test]
fn openapi_document_is_what_the_server_prints() -> Outcome {
    is_committed("openapi", "docs/openapi.json")
}

//! What a person sees after a start: where everything is, and how to connect the first agent.

use std::{fmt::Write as _, net::SocketAddr};

use crate::{
    config::{AgentAuth, StoreKind},
    exposure,
    server::RunningServer,
};

/// The text for standard output. It holds the first admin token, if there is one, and must go nowhere else.
pub fn text(server: &RunningServer) -> String {
    let config = server.config();
    let opamp = &config.opamp;
    let (ws, http) = if opamp.tls_cert.is_some() { ("wss", "https") } else { ("ws", "http") };
    let (opamp_host, admin_host) = (reachable(server.opamp_addr()), reachable(server.admin_addr()));
    let endpoint = format!("{ws}://{opamp_host}{}", opamp.path);
    let admin_scheme = if config.admin.tls_cert.is_some() { "https" } else { "http" };
    let api = format!("{admin_scheme}://{admin_host}/api/v1");
    let data = match config.server.store {
        StoreKind::Memory => "in memory, gone at exit".to_owned(),
        StoreKind::Sqlite => std::path::absolute(&config.server.data_dir)
            .unwrap_or(config.server.data_dir.clone())
            .display()
            .to_string(),
    };
    let mut text = format!(
        "OpAMP reference server {}\n\n\
         \x20 agents connect to  {endpoint}\n\
         \x20                    {http}://{opamp_host}{} (polling)\n\
         \x20 REST API           {api}\n\
         \x20 data               {data}\n",
        env!("CARGO_PKG_VERSION"),
        opamp.path,
    );
    match server.first_admin_token() {
        Some(token) => {
            let _ = write!(text, "\nAdmin token, shown this once:\n\n  {token}\n");
        }
        None => {
            text.push_str("\nAPI tokens exist already; `reference-server token create` makes another one.\n")
        }
    }
    let _ = write!(text, "\n{}", collector_snippet(&endpoint, opamp.auth, opamp.tls_cert.is_some()));
    let _ = write!(text, "\nThe fleet:\n\n  curl -H \"Authorization: Bearer $TOKEN\" {api}/agents\n");
    if opamp.auth == AgentAuth::Insecure {
        text.push_str(
            "\nAgents are not authenticated (`opamp.auth` is \"insecure\"): for this machine only.\n",
        );
    }
    if !exposure::is_loopback(&server.admin_addr()) && config.admin.tls_cert.is_none() {
        text.push_str("\nThe admin port speaks plain HTTP and answers trusted proxies only.\n");
    }
    text
}

/// An address that others can use: that of all interfaces is none.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("HOST:{}", address.port()) } else { address.to_string() }
}

fn collector_snippet(endpoint: &str, auth: AgentAuth, tls: bool) -> String {
    let mut text = format!(
        "An OpenTelemetry Collector connects with this in its configuration:\n\n\
         \x20 extensions:\n\
         \x20   opamp:\n\
         \x20     server:\n\
         \x20       ws:\n\
         \x20         endpoint: {endpoint}\n"
    );
    if matches!(auth, AgentAuth::Token | AgentAuth::TokenOrMtls) {
        text.push_str("          headers:\n            Authorization: Bearer ${env:AGENT_TOKEN}\n");
    }
    if tls {
        text.push_str("          tls:\n            ca_file: /path/to/ca.pem\n");
    }
    if auth == AgentAuth::Mtls {
        text.push_str(
            "            cert_file: /path/to/client.pem\n            key_file: /path/to/client.key\n",
        );
    }
    text.push_str("  service:\n    extensions: [opamp]\n");
    text
}

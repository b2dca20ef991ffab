//! What is built into this agent.

use opamp_client::{Component, Components};

use crate::config::Config;

/// The parts of this agent that a configuration can switch on, whether it does or not: they come with the program.
pub(crate) fn components(config: &Config) -> Components {
    let about = |what: &str, enabled: bool| {
        Component::new()
            .metadata("code.namespace", format!("self_agent::{what}"))
            .metadata("service.version", env!("CARGO_PKG_VERSION"))
            .metadata("enabled", enabled)
    };
    let on = &config.capabilities;
    Components::new()
        .component("diagnostics", about("diagnostics", on.diagnostics))
        .component("own_metrics", about("own_metrics", on.own_metrics))
        .component("packages", about("packages", on.packages))
        .component("remote_config", about("remote", on.remote_config))
}

//! Who the agent says it is.

use opamp_client::Description;

use crate::config::Config;

const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";
const SERVICE_INSTANCE_ID: &str = "service.instance.id";
const HOST_NAME: &str = "host.name";

/// Names that identify every agent, given or not.
pub(crate) const IDENTIFYING_DEFAULTS: &[&str] = &[SERVICE_NAME, SERVICE_VERSION, SERVICE_INSTANCE_ID];

/// The type of an agent that was given none.
const DEFAULT_SERVICE_NAME: &str = "opamp.self-agent";

/// The description of an agent with this configuration.
pub(crate) fn description(config: &Config) -> Description {
    let agent = &config.agent;
    let given = agent.identifying_attributes.get(SERVICE_NAME).map(String::as_str);
    let mut description =
        Description::new(given.unwrap_or(DEFAULT_SERVICE_NAME)).version(env!("CARGO_PKG_VERSION"));
    if let Some(name) = host_name() {
        description = description.attribute(HOST_NAME, name);
    }
    for (name, text) in &agent.identifying_attributes {
        description = description.identifying(name, text.as_str());
    }
    for (name, text) in &agent.non_identifying_attributes {
        description = description.attribute(name, text.as_str());
    }
    description
}

fn host_name() -> Option<String> {
    let system = rustix::system::uname();
    let name = system.nodename().to_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

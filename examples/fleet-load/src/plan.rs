//! A run in a file, for those who repeat it.
//!
//! ```toml
//! target = ["ws://127.0.0.1:4320/v1/opamp"]
//! phases = ["connect:agents=1000,state=10k", "idle:secs=5", "heartbeat:saturated"]
//! ```

use std::path::PathBuf;

use serde::Deserialize;

/// Everything that a run can be told; flags of the same name come on top.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Plan {
    /// OpAMP endpoints; agents are spread over them.
    pub target: Vec<String>,
    /// Process of each server, to measure it.
    pub pid: Vec<u32>,
    /// How configs get to each server.
    pub control: Vec<String>,
    /// The phases, in order.
    pub phases: Vec<String>,
    /// Authorities that certificates are checked against.
    pub ca: Option<PathBuf>,
    /// File with the token that agents present.
    pub agent_token_file: Option<PathBuf>,
    /// File with the token for the REST API.
    pub admin_token_file: Option<PathBuf>,
    /// Where a line of JSON for each phase is appended.
    pub json: Option<PathBuf>,
    /// Name of the server in the report.
    pub server: Option<String>,
    /// Number of the repetition in the report.
    pub round: Option<u32>,
    /// Keeps the identities of several runs apart.
    pub seed: Option<u32>,
    /// Worker processes; by default as many as the agents need.
    pub workers: Option<u32>,
    /// How long the last answers of a phase are waited for before they count as lost.
    pub answer_timeout_ms: Option<u64>,
    /// Whether servers on other machines may be put under load.
    pub allow_remote: bool,
    /// Whether failures between agents and server make the program fail.
    pub strict: bool,
}

/// A file that is no plan.
#[derive(Debug, thiserror::Error)]
#[error("this is no plan: {0}")]
pub struct PlanError(#[from] toml::de::Error);

impl Plan {
    /// Reads TOML.
    ///
    /// # Errors
    ///
    /// [`PlanError`], which names line and key.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        Ok(toml::from_str(text)?)
    }

    /// What another plan says comes on top: its lists replace these, what it leaves out stays.
    #[must_use]
    pub fn overridden_by(self, other: Self) -> Self {
        fn list<T>(mine: Vec<T>, other: Vec<T>) -> Vec<T> {
            if other.is_empty() { mine } else { other }
        }
        Self {
            target: list(self.target, other.target),
            pid: list(self.pid, other.pid),
            control: list(self.control, other.control),
            phases: list(self.phases, other.phases),
            ca: other.ca.or(self.ca),
            agent_token_file: other.agent_token_file.or(self.agent_token_file),
            admin_token_file: other.admin_token_file.or(self.admin_token_file),
            json: other.json.or(self.json),
            server: other.server.or(self.server),
            round: other.round.or(self.round),
            seed: other.seed.or(self.seed),
            workers: other.workers.or(self.workers),
            answer_timeout_ms: other.answer_timeout_ms.or(self.answer_timeout_ms),
            allow_remote: other.allow_remote || self.allow_remote,
            strict: other.strict || self.strict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_and_flags_come_on_top() {
        let plan = Plan::from_toml(
            "target = ['ws://127.0.0.1:4320']\nphases = ['idle']\nadmin-token-file = 'token'\nround = 2\n",
        )
        .unwrap();
        assert_eq!(plan.admin_token_file, Some("token".into()));
        let flags = Plan { phases: vec!["settle".to_owned()], round: Some(3), ..Default::default() };
        let both = plan.overridden_by(flags);
        assert_eq!((both.phases, both.round), (vec!["settle".to_owned()], Some(3)));
        assert_eq!(both.target, ["ws://127.0.0.1:4320"]);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = Plan::from_toml("targets = []").unwrap_err().to_string();
        assert!(error.contains("targets") && error.contains("target"), "{error}");
    }
}

//! What the server knows of itself by its own agent.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use opamp_proto::{AgentId, InstanceUid, Wall};

use super::{
    error::ApiError,
    extract::{NoParameters, Query},
    schema::reply,
    state::App,
};
use crate::self_agent::board::Record;

reply! {
    /// Whether the server is at fault or the network before it.
    pub(crate) struct SelfReport {
        /// `ok`; `server`: the server does not answer, not even its own agent, or refuses it from outside; `network path`: it
        /// does, but not at `self_agent.external_url`; `unknown`: no round of probes has ended, or none lately, or the one
        /// from outside cannot look. Bad after two bad rounds in a row, `ok` again after one good round.
        verdict: &'static str,
        /// Since when the verdict is this one; null before the first round.
        since: Option<Wall>,
        /// When the last round of probes ended.
        checked_at: Option<Wall>,
        /// Distance of rounds in milliseconds.
        interval_ms: u64,
        /// The agent; null if it is switched off.
        agent: Option<SelfAgent>,
        /// What the probes found.
        probes: SelfProbes,
    }
}

reply! {
    /// The agent of the server itself, which is in the inventory like any other.
    pub(crate) struct SelfAgent {
        /// Its record, once there is one.
        id: Option<AgentId>,
        /// Its identity on the wire.
        uid: InstanceUid,
        /// Whether its own connection stands.
        connected: bool,
        /// Connections made after the first.
        reconnects: u64,
        /// Attempts to connect that failed.
        connects_failed: u64,
    }
}

reply! {
    /// The probes, nearest first.
    pub(crate) struct SelfProbes {
        /// Within the process: sessions, fleet manager, store.
        in_process: SelfProbe,
        /// A new connection to the OpAMP port with TLS, authentication and upgrade, and the agent's own connection.
        loopback: SelfProbe,
        /// A new connection to `self_agent.external_url`, through the proxy if there is one.
        external: SelfProbe,
    }
}

reply! {
    /// One probe.
    pub(crate) struct SelfProbe {
        /// In the last round: `ok`, `failed`, `not_configured` or, before the first round, `unknown`.
        state: &'static str,
        /// Since when it is in this state.
        since: Option<Wall>,
        /// How long the last one took, in milliseconds.
        duration_ms: Option<u64>,
        /// Failures in a row until now.
        consecutive_failures: u64,
        /// The last failure, also after it is over.
        last_failure: Option<SelfFailure>,
    }
}

reply! {
    /// Why a probe failed.
    pub(crate) struct SelfFailure {
        /// When.
        at: Wall,
        /// A fixed word, such as `refused` or `tls`.
        kind: &'static str,
        /// What happened.
        detail: String,
        /// What to do.
        hint: &'static str,
    }
}

pub(crate) async fn report(
    State(app): State<Arc<App>>,
    _: Query<NoParameters>,
) -> Result<Json<SelfReport>, ApiError> {
    let own = &app.self_agent;
    let report = own.report();
    let stats = own.stats();
    let agent = own.uid.map(|uid| SelfAgent {
        id: app.fleet.agent_id(&uid),
        uid,
        connected: stats.is_connected,
        reconnects: stats.reconnects,
        connects_failed: stats.connects_failed,
    });
    let [in_process, loopback, external] = report.probes.map(SelfProbe::from);
    Ok(Json(SelfReport {
        verdict: report.verdict.as_str(),
        since: report.since,
        checked_at: report.checked_at,
        interval_ms: millis(app.config.self_agent.interval),
        agent,
        probes: SelfProbes { in_process, loopback, external },
    }))
}

impl From<Record> for SelfProbe {
    fn from(record: Record) -> Self {
        let failure = record.last_failure.map(|(at, fault)| SelfFailure {
            at,
            kind: fault.kind,
            detail: fault.detail,
            hint: fault.hint,
        });
        SelfProbe {
            state: record.state.as_str(),
            since: record.since,
            duration_ms: record.took.map(millis),
            consecutive_failures: record.consecutive_failures,
            last_failure: failure,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

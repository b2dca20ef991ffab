//! Who is let in, how fast, and at whose cost.
//!
//! In the order a peer comes by: the pace of accepting ([`door`]), TLS handshakes (bounded in `serve`), drain and throttle,
//! authentication, the connections of one identity ([`identities`]), connections in all, memory ([`budget`]), agents in all,
//! full-state requests ([`resyncs`]). Whoever is sent away is told when to come back; who is only for want of room, when there
//! is going to be some ([`backlog`]).

mod backlog;
pub(crate) mod budget;
pub(crate) mod door;
mod drain;
mod fleet_return;
mod identities;
mod pace;
mod resyncs;
pub(crate) mod stats;

use std::sync::Mutex;
use std::time::Duration;

use opamp_proto::Mono;

use self::backlog::Backlog;
use self::budget::Budget;
use self::drain::Draining;
use self::fleet_return::Returning;
use self::identities::Identities;
use self::pace::Pace;
use self::resyncs::Resyncs;
use self::stats::{AdmissionCounters, AdmissionStats, BufferedStats};
use super::settings::ServerSettings;

/// What admission keeps for a whole server.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Bytes that peers make the server hold.
    pub(crate) budget: Budget,
    pub(crate) counters: AdmissionCounters,
    pub(crate) identities: Identities,
    pub(crate) resyncs: Resyncs,
    pub(crate) returning: Returning,
    /// The pace of accepting, of all listeners together.
    accepts: Mutex<Pace>,
    backlog: Backlog,
    draining: Draining,
}

impl Admission {
    pub(crate) fn new(settings: &ServerSettings, started: Mono) -> Self {
        Self {
            budget: Budget::new(settings.buffered_bytes_max),
            counters: AdmissionCounters::default(),
            identities: Identities::new(settings),
            resyncs: Resyncs::new(settings),
            returning: Returning::new(started),
            accepts: Mutex::new(Pace::new(settings.accept_rate, settings.accept_burst)),
            backlog: Backlog::new(settings),
            draining: Draining::default(),
        }
    }

    /// When a peer that is sent away for want of room now finds some, at the earliest.
    pub(crate) fn send_away(&self, least: Duration, now: Mono) -> Duration {
        self.backlog.send_away(self.counters.connections_waiting(), least, now)
    }

    pub(crate) fn stats(&self) -> AdmissionStats {
        let (resyncs_deferred, resyncs_waiting) = self.resyncs.read();
        AdmissionStats {
            buffered: BufferedStats {
                max_bytes: self.budget.max() as u64,
                used_bytes: self.budget.current() as u64,
                peak_bytes: self.budget.peak() as u64,
                denied: self.budget.denied(),
            },
            resyncs_deferred,
            resyncs_waiting,
            drain: self.draining.read(),
            fleet_return: self.returning.read(),
            ..self.counters.read()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::stats::AdmissionStage;
    use crate::net::auth::InsecureAcceptEveryone;
    use crate::net::builder::OpampServer;
    use crate::net::service::later;
    use crate::net::settings::ServerSettings;
    use crate::snapshot::Transport;

    /// R-THROT-07: nobody keeps others away by coming again and again.
    #[tokio::test]
    async fn only_who_is_sent_away_for_want_of_room_keeps_others_away_longer() {
        let settings = ServerSettings { accept_rate: 100, ..ServerSettings::default() };
        let least = settings.retry_after.as_secs();
        let core = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).settings(settings).build().0.0;
        let told = |stage| {
            let answer = later(&core, stage, None, (None, Transport::WebSocket));
            answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap()
        };
        let within = |told: u64| (least..=2 * least + 1).contains(&told);
        for stage in [AdmissionStage::Identity, AdmissionStage::Throttle, AdmissionStage::Drain] {
            assert!((0..100_000).all(|_| within(told(stage))), "{stage:?}");
            assert!(within(told(AdmissionStage::Connections)), "after {stage:?}");
        }
        for stage in [AdmissionStage::Connections, AdmissionStage::Memory, AdmissionStage::Agents] {
            (0..3_000).for_each(|_| _ = told(stage));
        }
        assert!(told(AdmissionStage::Connections) > 60);
        assert!(within(told(AdmissionStage::Identity)), "who takes more than its share is in no line");
    }
}

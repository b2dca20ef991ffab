//! Trying settings of the OpAMP connection: they are in use once the server has answered on them, and gone otherwise.

use opamp_proto::{Mono, Part};

use super::Session;
use super::connections::{Stage, endpoint_of};
use super::link::{Link, Open, Then};
use super::outbox::{Outbox, Output};
use crate::event::{DisconnectCause, Event};
use crate::failure::{Failure, FailureKind};
use crate::retry::Pace;

impl Session {
    /// Whether the old connection can be left: the server has been told why (R-CONN-07), as far as it wants to know.
    pub(super) fn is_ready_to_try(&self) -> bool {
        self.connections.stage == Stage::Announced
            && !self.report.changed().contains(Part::ConnectionSettingsStatus)
    }

    /// The next connection is that of the candidate.
    pub(super) fn begin_trial(&mut self, now: Mono) {
        if self.connections.stage != Stage::Announced {
            return;
        }
        let Some(candidate) = &self.connections.candidate else { return };
        self.endpoints.begin_trial(endpoint_of(candidate));
        self.connections.stage = Stage::Trying { until: now + self.settings.trial_timeout };
    }

    /// By when the server has to answer on the candidate.
    pub(super) const fn trial_until(&self) -> Option<Mono> {
        match self.connections.stage {
            Stage::Trying { until } => Some(until),
            Stage::Announced | Stage::Idle => None,
        }
    }

    /// The server has answered on the candidate: it is what the agent uses from now on (R-CONN-10).
    pub(super) fn trial_passed(&mut self, now: opamp_proto::Now, out: &mut Outbox) {
        if !self.connections.is_trying() {
            return;
        }
        let Some(accepted) = self.connections.candidate.take() else { return };
        self.certificates.accepted(&accepted, now, &mut self.spread);
        self.connections.stage = Stage::Idle;
        self.connections.accepted = Some(accepted);
        self.endpoints.accept_trial();
        self.last_endpoint = Some(0);
        self.failed_returns = 0;
        out.event(Event::ConnectionSettingsApplied { endpoint: self.endpoints.name() });
        self.end_trial(out);
    }

    /// Whatever went wrong: the candidate is gone, and the agent goes back to what it had (R-CONN-12). Not all at once, since
    /// many agents may have been given the same.
    pub(super) fn trial_failed(&mut self, failure: Failure, now: Mono, out: &mut Outbox) {
        let endpoint = self.endpoints.name();
        self.connections.failures.push(format!("opamp: {failure}"));
        out.push(Output::Abort);
        if let Link::Open(open) = &mut self.link {
            open.busy = None;
            self.settle(&failure);
            self.custom_lost(&failure, out);
        } else {
            self.stats.connects_failed += 1;
        }
        let until = now + self.backoff.failed(Pace::Usual, None, now);
        self.ended(DisconnectCause::Failed { failure: failure.clone(), retry_in: until - now }, now, out);
        out.event(Event::ConnectionSettingsFailed { endpoint, failure });
        self.connections.stage = Stage::Idle;
        self.connections.candidate = None;
        self.endpoints.end_trial();
        self.link = Link::Waiting { until };
        self.end_trial(out);
    }

    /// Whether a failure is one of the candidate, and not of an agent that is leaving for good.
    pub(super) fn fails_trial(&self) -> bool {
        let stops = match &self.link {
            Link::Open(Open { leaving: Some(leaving), .. }) => leaving.then == Then::Finish,
            Link::Closing { .. } | Link::Finished | Link::Idle | Link::Waiting { .. } => true,
            Link::Dialing { .. } | Link::Open(_) => false,
        };
        self.connections.is_trying() && !stops
    }

    /// The candidate had its time.
    pub(super) fn trial_expired(&mut self, now: Mono, out: &mut Outbox) -> bool {
        let due = self.trial_until().is_some_and(|until| until <= now) && self.fails_trial();
        if due {
            let within = self.settings.trial_timeout.as_secs_f64();
            let detail = format!("the server did not answer within {within:.1} s on the offered settings");
            self.trial_failed(Failure::new(FailureKind::Timeout, detail), now, out);
        }
        due
    }

    fn end_trial(&mut self, out: &mut Outbox) {
        if let Some(hash) = self.connections.offers.last().map(|last| last.hash.clone()) {
            self.settle_connections(&hash, out);
        }
        self.tell_connections(out);
    }
}

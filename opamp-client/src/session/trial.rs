//! Trying settings of the OpAMP connection: they are in use once the server has answered on them, and gone otherwise.

use std::time::Duration;

use opamp_proto::{Mono, Part};

use super::Session;
use super::connections::{Stage, endpoint_of, is_same_origin};
use super::link::{Link, Open, Then};
use super::outbox::{Outbox, Output};
use crate::event::{DisconnectCause, Event};
use crate::failure::{Failure, FailureKind};
use crate::retry::Pace;

/// The shortest wait before the same candidate is tried again, also if its server asks for less.
const AGAIN_MIN: Duration = Duration::from_secs(1);

impl Session {
    /// Whether the old connection can be left: the server has been told why (R-CONN-07), as far as it wants to know.
    pub(super) fn is_ready_to_try(&self) -> bool {
        self.connections.stage == Stage::Announced
            && !self.report.changed().contains(Part::ConnectionSettingsStatus)
    }

    /// How long to wait before the candidate is tried: a fleet that was given the same in the same second does not come to
    /// its new server in the same second. Zero if there is nothing to be tried.
    pub(super) fn trial_wait(&mut self) -> Duration {
        match self.connections.stage {
            Stage::Announced => self.spread.up_to(self.settings.retry.first),
            Stage::Idle | Stage::Trying { .. } => Duration::ZERO,
        }
    }

    /// When the candidate may be tried again, if the server is there and has no time, and its time comes within the trial's.
    pub(super) fn trial_again_at(&mut self, failure: &Failure, now: Mono) -> Option<Mono> {
        if failure.kind != FailureKind::Throttled {
            return None;
        }
        let retry = &self.settings.retry;
        let least = failure.retry_after.unwrap_or(retry.throttled_min).max(AGAIN_MIN);
        let again = now + (least + self.spread.up_to(retry.first));
        self.trial_until().filter(|until| again < *until).map(|_| again)
    }

    /// The server of the candidate has no time now. Nothing is proven by that.
    pub(super) fn trial_interrupted(&mut self, failure: Failure, until: Mono, now: Mono, out: &mut Outbox) {
        let endpoint = self.endpoints.name();
        out.push(Output::Abort);
        let reached = matches!(&self.link, Link::Open(Open { reached_at: Some(_), .. }));
        self.trial_lost(&failure, out);
        if reached {
            self.ended(DisconnectCause::Failed { failure, retry_in: until - now }, now, out);
        } else {
            out.event(Event::ConnectFailed { endpoint, failure, retry_in: Some(until - now) });
        }
        self.link = Link::Waiting { until };
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
        self.trial_lost(&failure, out);
        let until = self.back_at(&failure, now);
        self.ended(DisconnectCause::Failed { failure: failure.clone(), retry_in: until - now }, now, out);
        out.event(Event::ConnectionSettingsFailed { endpoint, failure });
        self.connections.stage = Stage::Idle;
        self.connections.candidate = None;
        self.endpoints.end_trial();
        self.link = Link::Waiting { until };
        self.end_trial(out);
    }

    /// What was on its way to the candidate's server.
    fn trial_lost(&mut self, failure: &Failure, out: &mut Outbox) {
        if let Link::Open(open) = &mut self.link {
            open.busy = None;
            self.settle(failure);
            self.custom_lost(failure, out);
        } else {
            self.stats.connects_failed += 1;
        }
    }

    /// When to go back. If it is to the very server that asked to be left alone, then not before it allows (R-THROT-04).
    fn back_at(&mut self, failure: &Failure, now: Mono) -> Mono {
        let connections = &self.connections;
        let back = connections.accepted.as_ref().map(|accepted| accepted.endpoint.as_str());
        let back = back.unwrap_or_else(|| self.endpoints.configured().address());
        let tried = connections.candidate.as_ref().map_or("", |candidate| &candidate.endpoint);
        if failure.kind != FailureKind::Throttled || !is_same_origin(tried, back) {
            return now + self.backoff.failed(Pace::Usual, None, now);
        }
        let until = now + self.backoff.failed(Pace::Throttled, failure.retry_after, now);
        self.endpoints.block_first(until);
        match self.endpoints.first_free(now) {
            Ok(_) => now + self.backoff.failed(Pace::Usual, None, now),
            Err(until) => until,
        }
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

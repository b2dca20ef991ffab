//! Getting connected, staying connected, leaving.

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::Mono;

use super::link::{Kind, Leaving, Link, Open, Then};
use super::outbox::{CloseCode, Outbox, Output};
use super::report::Refusal;
use super::{Session, Unusable};
use crate::event::{DisconnectCause, Event, Transport};
use crate::failure::{Failure, FailureKind};
use crate::retry::Pace;

/// The share of its interval by which the first heartbeat or poll of a connection comes early at most: agents that lost
/// their server together would otherwise go on speaking in the same second.
const EARLY_MAX: f64 = 0.5;

/// How often the distance of looks at the first endpoint is doubled at most.
const FAILED_RETURNS_MAX: u32 = 5;

impl Session {
    /// Tries the first endpoint that may be tried, or waits for one.
    pub(super) fn dial_round(&mut self, now: Mono, out: &mut Outbox) {
        self.begin_trial(now);
        if self.connections.is_trying() {
            return self.dial(now, out);
        }
        match self.endpoints.begin(now) {
            Ok(_) => self.dial(now, out),
            Err(until) => self.link = Link::Waiting { until },
        }
    }

    pub(super) fn opened(&mut self, now: Mono, out: &mut Outbox) {
        if !matches!(self.link, Link::Dialing { .. }) {
            return;
        }
        let (current, transport) = (self.endpoints.current(), self.endpoints.transport());
        let trial = self.endpoints.is_trial();
        if trial || self.last_endpoint != Some(current) {
            // Another server knows nothing, and nothing is known of it.
            self.report.forget_all();
            self.full_state.made();
            self.forget_component_demand();
            self.custom.forget_server();
            self.server = None;
            self.one_at_a_time = false;
        } else if transport == Transport::WebSocket && self.settings.full_state_on_reconnect {
            self.report.forget();
            self.full_state.made();
        }
        self.last_endpoint = (!trial).then_some(current);
        self.previous_uid = None;
        self.certificates.connected();
        let probe_at =
            (current != 0 && !trial).then(|| self.look_back_at(now).max(self.endpoints.first_free_at()));
        let early = self.spread.share() * EARLY_MAX;
        self.link = Link::Open(Open::new(now, probe_at, early));
        if transport == Transport::WebSocket {
            self.reached(now, out);
        }
    }

    /// The server took the upgrade, or answered a request. Told once per connection, not with every poll.
    pub(super) fn reached(&mut self, now: Mono, out: &mut Outbox) {
        let Link::Open(open) = &mut self.link else { return };
        if open.reached_at.is_some() {
            return;
        }
        open.reached_at = Some(now);
        self.backoff.connected(now);
        self.stats.reconnects += u64::from(self.ever_reached);
        self.ever_reached = true;
        let (endpoint, transport) = (self.endpoints.name(), self.endpoints.transport());
        out.event(Event::Connected { endpoint, transport });
    }

    pub(super) fn heard(&mut self, now: Mono) {
        if let Link::Open(open) = &mut self.link {
            open.heard = now;
        }
    }

    /// An attempt, a connection or an exchange failed.
    pub(super) fn failed(&mut self, failure: Failure, now: Mono, out: &mut Outbox) {
        if self.fails_trial() {
            return match self.trial_again_at(&failure, now) {
                Some(until) => self.trial_interrupted(failure, until, now, out),
                None => self.trial_failed(failure, now, out),
            };
        }
        match &mut self.link {
            Link::Dialing { .. } => {
                out.push(Output::Abort);
                self.attempt_failed(failure, now, out);
            }
            Link::Open(open) => {
                let (leaving, reached) = (open.leaving.take(), open.reached_at.is_some());
                let heartbeat = open.busy.take().is_some_and(|busy| busy.kind == Kind::Heartbeat);
                self.stats.heartbeats_failed += u64::from(heartbeat);
                self.settle(&failure);
                self.custom_lost(&failure, out);
                out.push(Output::Abort);
                match leaving {
                    Some(Leaving { then, cause, .. }) => {
                        self.ended(cause, now, out);
                        self.proceed(then, now, out);
                    }
                    None if reached => {
                        let until = self.wait_after(&failure, now);
                        self.ended(DisconnectCause::Failed { failure, retry_in: until - now }, now, out);
                        self.proceed(Then::Wait(until), now, out);
                    }
                    None => self.attempt_failed(failure, now, out),
                }
            }
            Link::Closing { then, .. } => {
                let then = *then;
                out.push(Output::Abort);
                self.proceed(then, now, out);
            }
            Link::Finished | Link::Idle | Link::Waiting { .. } => {}
        }
    }

    /// The server ended the WebSocket, or answered the Close frame.
    pub(super) fn closed(&mut self, code: Option<u16>, reason: &str, now: Mono, out: &mut Outbox) {
        self.failed(Failure::from_close(code, reason), now, out);
    }

    /// The server sent something after which the connection is no good.
    pub(super) fn unusable(&mut self, what: Unusable, now: Mono, out: &mut Outbox) {
        let (failure, code) = match what {
            Unusable::Oversize { limit } => {
                self.stats.discarded_incoming += 1;
                let detail =
                    format!("the server sent more than {limit} bytes at once; nothing of it was used");
                (Failure::new(FailureKind::Oversize, detail), CloseCode::TooBig)
            }
            Unusable::Text => {
                let detail = "the server sent a text message, which OpAMP does not use";
                (Failure::new(FailureKind::Protocol, detail), CloseCode::Unsupported)
            }
            Unusable::Violation(what) => (Failure::new(FailureKind::Protocol, what), CloseCode::Protocol),
        };
        self.break_off(failure, code, now, out);
    }

    /// Ends a connection that is no good, over WebSocket with a Close frame that says so.
    pub(super) fn break_off(&mut self, failure: Failure, code: CloseCode, now: Mono, out: &mut Outbox) {
        let Link::Open(open) = &mut self.link else { return };
        if self.endpoints.transport() == Transport::Http
            || open.leaving.is_some()
            || self.connections.is_trying()
        {
            return self.failed(failure, now, out);
        }
        self.settle(&failure);
        self.custom_lost(&failure, out);
        let until = self.wait_after(&failure, now);
        self.ended(DisconnectCause::Failed { failure, retry_in: until - now }, now, out);
        self.close(code, Then::Wait(until), now, out);
    }

    /// The server is overloaded: say goodbye, wait, come back (R-THROT-02, R-THROT-11).
    pub(super) fn throttled(&mut self, failure: Failure, now: Mono, out: &mut Outbox) {
        if self.endpoints.transport() == Transport::Http || self.fails_trial() {
            return self.failed(failure, now, out);
        }
        self.report.lost();
        let until = self.wait_after(&failure, now);
        let cause = DisconnectCause::Failed { failure, retry_in: until - now };
        if let Link::Open(open) = &mut self.link {
            open.awaiting = None;
            open.leave(Then::Wait(until), cause, now);
        }
    }

    pub(super) fn reconnect(&mut self, now: Mono, out: &mut Outbox) {
        match &mut self.link {
            Link::Open(open) => open.leave(Then::Dial, DisconnectCause::Reconnecting, now),
            Link::Waiting { .. } => self.dial_round(now, out),
            Link::Closing { then: then @ Then::Wait(_), .. } => *then = Then::Dial,
            Link::Closing { .. } | Link::Dialing { .. } | Link::Finished | Link::Idle => {}
        }
    }

    /// When to look whether the first endpoint is back: a fleet that left it together does not return together.
    fn look_back_at(&mut self, now: Mono) -> Mono {
        // Far more than an agent lives.
        let after = self.settings.failback_after.min(Duration::from_secs(u32::MAX.into()));
        // One that takes the agent and then fails would otherwise take it away from one that is good, again and again.
        let distance = after.saturating_mul(1 << self.failed_returns.min(FAILED_RETURNS_MAX));
        now + distance.mul_f64(0.5 + self.spread.share())
    }

    /// What became of a connection or an attempt at the first endpoint.
    pub(super) fn returned(&mut self, well: bool) {
        let returning = std::mem::take(&mut self.returning);
        if well {
            self.failed_returns = 0;
        } else if returning {
            self.failed_returns = self.failed_returns.saturating_add(1);
        }
    }

    pub(super) fn probed(&mut self, reachable: bool, now: Mono) {
        if self.endpoints.current() == 0 {
            // The question was asked on an earlier connection.
            return;
        }
        let (first_is_free, again) = (self.endpoints.first_is_free(now), self.look_back_at(now));
        let Link::Open(open) = &mut self.link else { return };
        if reachable && first_is_free {
            self.returning = true;
            open.leave(Then::Dial, DisconnectCause::Reconnecting, now);
        } else {
            open.probe_at = Some(again);
        }
    }

    /// The goodbye is said, or there is nobody to say it to.
    pub(super) fn depart(&mut self, now: Mono, out: &mut Outbox) {
        let Link::Open(open) = &mut self.link else { return };
        let Some(Leaving { then, cause, .. }) = open.leaving.take() else { return };
        self.report.lost();
        self.ended(cause, now, out);
        match self.endpoints.transport() {
            Transport::WebSocket => self.close(CloseCode::Normal, then, now, out),
            Transport::Http => {
                out.push(Output::Abort);
                self.proceed(then, now, out);
            }
        }
    }

    /// Goes on after a connection.
    pub(super) fn proceed(&mut self, then: Then, now: Mono, out: &mut Outbox) {
        match then {
            Then::Dial => match self.trial_wait() {
                Duration::ZERO => self.dial_round(now, out),
                wait => self.link = Link::Waiting { until: now + wait },
            },
            Then::Finish => self.finish(out),
            Then::Wait(until) => self.link = Link::Waiting { until },
        }
    }

    fn dial(&mut self, now: Mono, out: &mut Outbox) {
        self.link = Link::Dialing { until: now + self.settings.connect_timeout };
        let current = self.endpoints.current();
        let offered =
            if current == 0 || self.endpoints.is_trial() { self.connections.in_use() } else { None };
        out.push(match offered {
            Some(settings) => Output::ConnectOffered(Arc::clone(settings)),
            None => Output::Connect { endpoint: current },
        });
    }

    fn close(&mut self, code: CloseCode, then: Then, now: Mono, out: &mut Outbox) {
        out.push(Output::Close(code));
        self.link = Link::Closing { until: now + self.settings.close_timeout, then };
    }

    /// The server was not reached: the next endpoint, or a wait.
    fn attempt_failed(&mut self, failure: Failure, now: Mono, out: &mut Outbox) {
        self.stats.connects_failed += 1;
        if self.endpoints.current() == 0 {
            self.returned(false);
        }
        let endpoint = self.endpoints.name();
        if failure.kind != FailureKind::Throttled && self.endpoints.advance(now).is_some() {
            out.event(Event::ConnectFailed { endpoint, failure, retry_in: None });
            return self.dial(now, out);
        }
        let until = self.wait_after(&failure, now);
        out.event(Event::ConnectFailed { endpoint, failure, retry_in: Some(until - now) });
        self.link = Link::Waiting { until };
    }

    /// When the next attempt may follow. An overloaded server is left alone; if there is another, that is tried sooner.
    fn wait_after(&mut self, failure: &Failure, now: Mono) -> Mono {
        let pace = failure.kind.pace();
        let until = now + self.backoff.failed(pace, failure.retry_after, now);
        if pace != Pace::Throttled {
            return until;
        }
        self.endpoints.block(until);
        match self.endpoints.first_free(now) {
            Ok(_) => now + self.backoff.failed(Pace::Usual, None, now),
            Err(until) => until,
        }
    }

    /// What a failure means for what was on its way.
    pub(super) fn settle(&mut self, failure: &Failure) {
        match failure.kind {
            FailureKind::TooLarge if self.report.outstanding().len() == 1 => {
                self.report.refuse(Refusal::Size)
            }
            FailureKind::TooLarge => self.one_at_a_time = true,
            // The server could not make sense of the request, and will not the next time.
            FailureKind::Status(400) => self.report.refuse(Refusal::Error),
            _ => {}
        }
        self.report.lost();
    }
}

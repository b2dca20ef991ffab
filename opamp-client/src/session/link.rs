//! The connection as the session sees it, and what time does to it.

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::{Mono, Part};

use super::outbox::{Outbox, Output};
use super::{Session, SessionSettings};
use crate::event::{DisconnectCause, Transport};
use crate::failure::{Failure, FailureKind};

/// Identities that are taken over within a span before the server is left.
const ADOPTIONS_MAX: u32 = 3;

/// Where the session is with its connection; see the states of the module above.
#[derive(Debug)]
pub(super) enum Link {
    Closing { until: Mono, then: Then },
    Dialing { until: Mono },
    Finished,
    Idle,
    Open(Open),
    Waiting { until: Mono },
}

/// What follows when a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Dial,
    Finish,
    Wait(Mono),
}

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Open {
    /// Since when the server is reached: it took the upgrade, or answered a request.
    pub(super) reached_at: Option<Mono>,
    /// The first report is on its way.
    pub(super) greeted: bool,
    /// Last sign of life of the server.
    pub(super) heard: Mono,
    pub(super) pinged: Mono,
    /// When the last message was sent.
    pub(super) sent: Mono,
    /// The share of its interval by which the first heartbeat or poll comes early.
    pub(super) early: f64,
    /// The message that is being written, or whose answer is awaited over HTTP.
    pub(super) busy: Option<Busy>,
    /// Since when a report over WebSocket waits for any answer.
    pub(super) awaiting: Option<Mono>,
    pub(super) leaving: Option<Leaving>,
    /// What was said since the last good answer and not answered with an error.
    pub(super) unanswered: u32,
    /// Messages in a row that are malformed or have something in them that makes no sense.
    pub(super) faults: u32,
    /// Identities taken over lately: since when, and how many.
    pub(super) adopted: (Mono, u32),
    /// When to look whether the first endpoint is back.
    pub(super) probe_at: Option<Mono>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Busy {
    pub(super) since: Mono,
    pub(super) kind: Kind,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A custom message.
    Custom,
    Goodbye,
    /// Nothing in it; also a bare poll.
    Heartbeat,
    Report,
    /// A request for connection settings.
    Request,
}

/// The agent leaves its server in good order.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) since: Mono,
    pub(super) then: Then,
    pub(super) cause: DisconnectCause,
    /// The goodbye is written, or answered.
    pub(super) said: bool,
}

/// What has run out.
enum Expired {
    Answer,
    Ping,
    Probe,
    Read,
    Stop,
    Write,
}

impl Open {
    pub(super) fn new(now: Mono, probe_at: Option<Mono>, early: f64) -> Self {
        Self {
            reached_at: None,
            greeted: false,
            heard: now,
            pinged: now,
            sent: now,
            early,
            busy: None,
            awaiting: None,
            leaving: None,
            unanswered: 0,
            faults: 0,
            adopted: (now, 0),
            probe_at,
        }
    }

    /// Counts one more identity; whether it is one too many (R-SEC-01).
    pub(super) fn is_adopting_without_end(&mut self, now: Mono, within: Duration) -> bool {
        let (since, count) = self.adopted;
        self.adopted = if now - since >= within { (now, 1) } else { (since, count + 1) };
        self.adopted.1 > ADOPTIONS_MAX
    }

    /// Leaves, unless the agent is leaving already; a stop comes before everything else.
    pub(super) fn leave(&mut self, then: Then, cause: DisconnectCause, now: Mono) {
        match &mut self.leaving {
            None => self.leaving = Some(Leaving { since: now, then, cause, said: false }),
            Some(leaving) if then == Then::Finish => leaving.then = then,
            Some(_) => {}
        }
    }

    /// The deadlines of this connection, whatever is to be sent.
    fn deadlines(&self, transport: Transport, settings: &SessionSettings) -> [Option<(Mono, Expired)>; 6] {
        let after = |since: Option<Mono>, span, what| since.map(|since| (since + span, what));
        let ws = transport == Transport::WebSocket;
        let busy = self.busy.map(|busy| busy.since);
        let (write, answer) = if ws { (busy, self.awaiting) } else { (None, busy) };
        [
            after(self.leaving.as_ref().map(|leaving| leaving.since), settings.stop_timeout, Expired::Stop),
            after(write, settings.write_timeout, Expired::Write),
            after(answer, settings.response_timeout, Expired::Answer),
            after(ws.then_some(self.heard), settings.read_timeout, Expired::Read),
            after(ws.then_some(self.heard.max(self.pinged)), settings.ping_interval, Expired::Ping),
            after(self.probe_at, Duration::ZERO, Expired::Probe),
        ]
    }
}

impl Session {
    /// When to call `handle(Input::Tick, ..)` next, if time alone can change anything.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let link = match &self.link {
            Link::Closing { until, .. } | Link::Dialing { until } | Link::Waiting { until } => Some(*until),
            Link::Finished | Link::Idle => None,
            Link::Open(open) => {
                let deadlines = open.deadlines(self.endpoints.transport(), &self.settings);
                let runs_out = deadlines.into_iter().flatten().map(|(at, _)| at).min();
                [runs_out, self.next_message_at(open)].into_iter().flatten().min()
            }
        };
        let trial = self.trial_until().filter(|_| self.fails_trial());
        let connections = self.connections.deadline().filter(|_| !self.connections.is_trying());
        let certificates = self.certificates.deadline().filter(|_| self.abilities.certificates);
        let others = [trial, connections, certificates].into_iter().flatten().min();
        match &self.link {
            Link::Finished | Link::Idle => None,
            _ if self.is_stopping() => link,
            _ => [link, others].into_iter().flatten().min(),
        }
    }

    /// Does what is due because time has passed.
    pub(super) fn expire(&mut self, now: Mono, out: &mut Outbox) {
        if self.trial_expired(now, out) {
            return;
        }
        match &mut self.link {
            Link::Waiting { until } if *until <= now => self.dial_round(now, out),
            Link::Dialing { until } if *until <= now => {
                self.failed(Failure::no_connection_within(self.settings.connect_timeout), now, out);
            }
            Link::Closing { until, then } if *until <= now => {
                let then = *then;
                out.push(Output::Abort);
                self.proceed(then, now, out);
            }
            Link::Open(open) => {
                let deadlines = open.deadlines(self.endpoints.transport(), &self.settings);
                for (_, expired) in deadlines.into_iter().flatten().filter(|(at, _)| *at <= now) {
                    if !self.run_out(&expired, now, out) {
                        break;
                    }
                }
            }
            _ => {}
        }
    }

    /// Deals with what has run out; whether the connection still stands.
    fn run_out(&mut self, expired: &Expired, now: Mono, out: &mut Outbox) -> bool {
        let Link::Open(open) = &mut self.link else { return false };
        let settings = &self.settings;
        let detail = match expired {
            Expired::Ping => {
                open.pinged = now;
                out.push(Output::Ping);
                return true;
            }
            Expired::Probe => {
                open.probe_at = None;
                out.push(match &self.connections.accepted {
                    Some(settings) => Output::ProbeOffered(Arc::clone(settings)),
                    None => Output::Probe { endpoint: 0 },
                });
                return true;
            }
            Expired::Answer => format!("no answer within {} s", settings.response_timeout.as_secs()),
            Expired::Read => format!("no sign of life for {} s", settings.read_timeout.as_secs()),
            Expired::Write => format!("the server read nothing for {} s", settings.write_timeout.as_secs()),
            Expired::Stop => "no goodbye in time".to_owned(),
        };
        self.failed(Failure::new(FailureKind::Timeout, detail), now, out);
        false
    }

    /// When something is to be sent, if nothing else happens.
    fn next_message_at(&self, open: &Open) -> Option<Mono> {
        if open.busy.is_some() || open.leaving.is_some() || self.is_held_back(open) {
            return None;
        }
        let beat = self.beat_at(open);
        let changes = self.permitted_changes();
        let health = changes.contains(Part::Health).then(|| self.health_ready_at()).flatten();
        let packages = changes.contains(Part::PackageStatuses).then(|| self.packages_ready_at()).flatten();
        let demands = [self.full_state.deadline(), self.components.deadline()];
        [beat, health, packages].into_iter().chain(demands).flatten().min()
    }
}

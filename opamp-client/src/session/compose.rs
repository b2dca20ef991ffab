//! Writing messages: when, and what is in them.

use bytes::Bytes;
use opamp_proto::{AgentToServerFlags, Mono, Part, PartSet, SequenceNum, ServerCapabilities, encode, frame};

use super::Session;
use super::link::{Busy, Kind, Leaving, Link, Open, Then};
use super::outbox::{Outbox, Output};
use crate::event::{DisconnectCause, Event, Transport};

const INSTANCE_UID: u32 = 1;
const SEQUENCE_NUM: u32 = 2;
const CAPABILITIES: u32 = 4;
const FLAGS: u32 = 10;

/// The capability of the server without which a part is not sent (R-CAP-14, R-CAP-16, R-CAP-18).
const fn needs(part: Part) -> Option<ServerCapabilities> {
    match part {
        Part::AgentDescription => Some(ServerCapabilities::ACCEPTS_STATUS),
        Part::EffectiveConfig => Some(ServerCapabilities::ACCEPTS_EFFECTIVE_CONFIG),
        Part::PackageStatuses => Some(ServerCapabilities::ACCEPTS_PACKAGES_STATUS),
        Part::ConnectionSettingsRequest => Some(ServerCapabilities::ACCEPTS_CONNECTION_SETTINGS_REQUEST),
        Part::AgentDisconnect
        | Part::AvailableComponents
        | Part::ConnectionSettingsStatus
        | Part::CustomCapabilities
        | Part::CustomMessage
        | Part::Health
        | Part::RemoteConfigStatus => None,
    }
}

impl Session {
    /// Sends what is to be sent now, if the connection is free. There is at most one message under way: over HTTP that is
    /// the rule (R-HTTP-07), over WebSocket it makes changes that arrive meanwhile one message instead of many.
    pub(super) fn pump(&mut self, now: Mono, out: &mut Outbox) {
        let Link::Open(open @ Open { busy: None, greeted, leaving, .. }) = &self.link else { return };
        let greeted = *greeted;
        if let Some(leaving) = leaving {
            return if leaving.said || !greeted { self.depart(now, out) } else { self.say_goodbye(now, out) };
        }
        if greeted && self.is_ready_to_try() {
            if let Link::Open(open) = &mut self.link {
                open.leave(Then::Dial, DisconnectCause::Reconnecting, now);
            }
            return self.say_goodbye(now, out);
        }
        if self.is_held_back(open) {
            return;
        }
        if self.full_state.take(now) {
            self.report.demanded();
        }
        self.list_components(now);
        let changes = self.permitted_changes();
        let debounced = greeted && self.is_debounced(changes, now);
        let parts = if debounced { PartSet::NONE } else { self.select(changes, out) };
        if !parts.is_empty() || !greeted {
            // The first message is a report, also if there is no news (R-STATUS-01).
            return self.send(Kind::Report, parts, now, out);
        }
        if let Some(request) = self.request_to_send(now) {
            return self.send_with(
                Kind::Request,
                PartSet::NONE,
                Some((Self::request_part(), &request)),
                now,
                out,
            );
        }
        if let Some(custom) = self.next_custom(out) {
            return self.send_with(
                Kind::Custom,
                PartSet::NONE,
                Some((Part::CustomMessage, &custom)),
                now,
                out,
            );
        }
        if self.is_heartbeat_due(now) {
            self.send(Kind::Heartbeat, PartSet::NONE, now, out);
        }
    }

    /// Whether there is nothing to be sent but what may wait a little, and has to.
    fn is_debounced(&self, changes: PartSet, now: Mono) -> bool {
        changes.iter().all(|part| {
            let ready = match part {
                Part::Health => self.health_ready_at(),
                Part::PackageStatuses => self.packages_ready_at(),
                _ => None,
            };
            ready.is_some_and(|ready| ready > now)
        })
    }

    /// Which part is too large for the server can only be told if one at a time is under way.
    pub(super) const fn is_held_back(&self, open: &Open) -> bool {
        self.one_at_a_time && open.awaiting.is_some()
    }

    /// A message was written completely; over WebSocket that is as much as can be known.
    pub(super) fn written(&mut self, now: Mono) {
        if self.endpoints.transport() == Transport::Http {
            return;
        }
        let Some(kind) = self.sent() else { return };
        if let Link::Open(open) = &mut self.link
            && matches!(kind, Kind::Custom | Kind::Report | Kind::Request)
        {
            open.awaiting.get_or_insert(now);
        }
    }

    /// The message under way has arrived, as far as this transport can tell.
    pub(super) fn sent(&mut self) -> Option<Kind> {
        let Link::Open(open) = &mut self.link else { return None };
        let Busy { kind, .. } = open.busy.take()?;
        self.report.sent();
        self.stats.messages_sent += 1;
        self.components_told_if_sent();
        let Link::Open(open) = &mut self.link else { return Some(kind) };
        match (kind, &mut open.leaving) {
            (Kind::Custom, _) => self.custom_sent(),
            (Kind::Heartbeat, _) => self.stats.heartbeats_sent += 1,
            (Kind::Goodbye, Some(leaving)) => leaving.said = true,
            _ => {}
        }
        Some(kind)
    }

    /// The parts that changed and that the server takes. Before it has said what it takes, it is sent everything.
    pub(super) fn permitted_changes(&self) -> PartSet {
        let takes = |part: &Part| match (needs(*part), self.server) {
            (Some(needed), Some(server)) => server.contains(needed),
            _ => true,
        };
        self.report.changed().iter().filter(takes).collect()
    }

    /// When a change of health may be sent; at once if there is none.
    pub(super) fn health_ready_at(&self) -> Option<Mono> {
        self.health_sent.map(|sent| sent + self.settings.health_debounce)
    }

    /// The distance of heartbeats or polls; `None` for none. A server can stop heartbeats over WebSocket, but never
    /// polling: an interval that somebody forgot to fill in reads as 0.
    pub(super) fn interval(&self) -> Option<std::time::Duration> {
        let settings = &self.settings;
        let accepted = || self.connections.in_use().map(|offered| offered.heartbeat_seconds);
        let offered = self
            .offered_interval
            .or_else(|| settings.heartbeat.and_then(|_| accepted()))
            .map(|seconds| std::time::Duration::from_secs(seconds).min(settings.interval_max));
        match (self.endpoints.transport(), offered) {
            (Transport::WebSocket, Some(offered)) => {
                settings.heartbeat.and(Some(offered)).filter(|offered| !offered.is_zero())
            }
            (Transport::WebSocket, None) => settings.heartbeat,
            (Transport::Http, Some(offered)) if !offered.is_zero() => Some(offered),
            (Transport::Http, _) => Some(settings.poll_interval),
        }
    }

    /// When the next heartbeat or poll is due, if nothing is said before.
    pub(super) fn beat_at(&self, open: &Open) -> Option<Mono> {
        let interval = self.interval()?;
        Some(open.sent + interval.saturating_sub(interval.mul_f64(open.early)))
    }

    fn is_heartbeat_due(&self, now: Mono) -> bool {
        let Link::Open(open) = &self.link else { return false };
        self.beat_at(open).is_some_and(|at| at <= now)
    }

    /// The last message on this connection. Who stops for good still says what has changed.
    fn say_goodbye(&mut self, now: Mono, out: &mut Outbox) {
        let stops =
            matches!(&self.link, Link::Open(Open { leaving: Some(Leaving { then: Then::Finish, .. }), .. }));
        let parts = if stops { self.select(self.permitted_changes(), out) } else { PartSet::NONE };
        self.send(Kind::Goodbye, parts, now, out);
    }

    /// As many of the parts as one message may hold. A part that no message can hold is given up and recorded.
    fn select(&mut self, wanted: PartSet, out: &mut Outbox) -> PartSet {
        let limit = self.settings.send_limit();
        let envelope = self.envelope_bytes();
        let (mut bytes, mut selected) = (envelope, PartSet::NONE);
        for part in wanted.iter() {
            let Some(encoded) = self.report.encoded(part) else { continue };
            let needed = encode::bytes_field_len(part.field_number(), encoded.len());
            if envelope + needed > limit {
                self.report.refuse_size(part);
                self.stats.discarded_outgoing += 1;
                out.event(Event::Discarded { part, bytes: envelope + needed, limit });
                if part == Part::AvailableComponents {
                    self.components_told();
                }
            } else if bytes + needed <= limit && (!self.one_at_a_time || selected.is_empty()) {
                bytes += needed;
                selected.insert(part);
            }
        }
        selected
    }

    /// What the next message has beside its parts, in bytes; with room for the mark of a last message.
    fn envelope_bytes(&self) -> usize {
        let number = |value: u64| if value == 0 { 0 } else { 1 + encode::varint_len(value) };
        let header = usize::from(self.endpoints.transport() == Transport::WebSocket);
        let goodbye = match &self.link {
            Link::Open(Open { leaving: Some(_), .. }) => 2,
            _ => 0,
        };
        header
            + encode::bytes_field_len(INSTANCE_UID, self.uid.as_bytes().len())
            + number(self.sequence.0.wrapping_add(1))
            + number(self.capabilities().bits())
            + number(self.flags().bits())
            + goodbye
    }

    fn flags(&self) -> AgentToServerFlags {
        let asks = self.settings.request_uid && !self.uid_assigned;
        if asks { AgentToServerFlags::REQUEST_INSTANCE_UID } else { AgentToServerFlags::NONE }
    }

    fn send(&mut self, kind: Kind, parts: PartSet, now: Mono, out: &mut Outbox) {
        self.send_with(kind, parts, None, now, out);
    }

    /// Sends parts of the report, and one that is told only once.
    fn send_with(
        &mut self,
        kind: Kind,
        parts: PartSet,
        once: Option<(Part, &Bytes)>,
        now: Mono,
        out: &mut Outbox,
    ) {
        self.sequence = SequenceNum(self.sequence.0.wrapping_add(1));
        let message = out.begin();
        if self.endpoints.transport() == Transport::WebSocket && !self.settings.headerless {
            message.push(frame::HEADER);
        }
        encode::uid_field(INSTANCE_UID, &self.uid, message);
        encode::varint_field(SEQUENCE_NUM, self.sequence.0, message);
        encode::varint_field(CAPABILITIES, self.capabilities().bits(), message);
        for part in parts.iter() {
            if let Some(encoded) = self.report.encoded(part) {
                encode::bytes_field(part.field_number(), encoded, message);
            }
        }
        if let Some((part, encoded)) = once {
            encode::bytes_field(part.field_number(), encoded, message);
        }
        if kind == Kind::Goodbye {
            encode::bytes_field(Part::AgentDisconnect.field_number(), &[], message);
        }
        encode::varint_field(FLAGS, self.flags().bits(), message);
        self.report.sending(parts);
        if parts.contains(Part::Health) {
            self.health_sent = Some(now);
        }
        if parts.contains(Part::PackageStatuses) {
            self.packages_reported(now);
        }
        if let Link::Open(open) = &mut self.link {
            if kind == Kind::Heartbeat {
                open.early = 0.0;
            }
            open.greeted = true;
            open.unanswered = open.unanswered.saturating_add(1);
            open.sent = now;
            open.busy = Some(Busy { since: now, kind });
        }
        out.push(Output::Send);
    }
}

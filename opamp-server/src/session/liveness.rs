//! Whether an agent is there: connections that come and go, and silence.

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::Now;

use super::{Outbox, Session, SessionSettings};
use crate::snapshot::{ChangedFacts, ConnectionInfo, DisconnectReason, Liveness, Transport};

/// The slowest pace that is learned from an agent that polls.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

impl Session {
    pub(super) fn attach(&mut self, connection: Arc<ConnectionInfo>, now: Now) {
        if self.liveness != Liveness::Disconnected {
            // Taken over from a connection whose end nobody noticed.
            self.facts.count(|sticky| &mut sticky.disconnects);
        }
        let gave_up = matches!(self.facts.disconnect, Some((DisconnectReason::Timeout, _)));
        if gave_up && self.transport == Transport::Http && connection.transport == Transport::Http {
            // It may poll more slowly than was thought, or it was away: learn in steps, or a long absence would make
            // the next one invisible.
            let known = Duration::from_millis(self.poll_interval_ms.into());
            self.observe_gap((now.mono - self.last_seen.mono).min(known * 2));
        }
        self.transport = connection.transport;
        self.liveness = Liveness::Connected;
        self.last_seen = now;
        self.offer.reconnected();
        self.resync.reconnected();
        self.custom_told = 0;
        if let Some(extra) = &mut self.extra {
            extra.settings.reconnected_by_itself();
            extra.packages.reconnected();
        }
        self.facts.attach(connection);
    }

    pub(super) fn detach(&mut self, reason: DisconnectReason, now: Now, out: &mut Outbox) {
        if self.liveness == Liveness::Disconnected {
            return;
        }
        self.liveness = Liveness::Disconnected;
        self.restart_due = false; // commands do not wait for agents
        let dropped = self.extra.as_mut().map_or(0, |extra| extra.custom.drop_all());
        self.note_undelivered(dropped, out);
        self.facts.detach(reason, now.wall);
    }

    pub(super) fn alive(&mut self, now: Now) {
        if self.transport == Transport::Http && self.liveness != Liveness::Disconnected {
            self.observe_gap(now.mono - self.last_seen.mono);
        }
        self.last_seen = now;
        if self.liveness == Liveness::Stale {
            self.liveness = Liveness::Connected;
            self.facts.mark(ChangedFacts::LIVENESS);
        }
    }

    /// Learns the polling interval. A longer gap counts at once; shorter ones count by the time they cover, so that
    /// a burst of reports is not taken for a pace.
    fn observe_gap(&mut self, gap: Duration) {
        let (gap, known) =
            (u64::from(millis(gap.min(POLL_INTERVAL_MAX))), u64::from(self.poll_interval_ms).max(1));
        let learned = if gap >= known { gap } else { known - (known - gap) * gap / (4 * known) };
        self.poll_interval_ms = u32::try_from(learned).unwrap_or(u32::MAX);
    }

    pub(super) fn tick(&mut self, now: Now, out: &mut Outbox) {
        while self.deadline(&out.settings).is_some_and(|deadline| deadline <= now.mono) {
            match self.liveness {
                Liveness::Connected => {
                    self.liveness = Liveness::Stale;
                    self.facts.mark(ChangedFacts::LIVENESS);
                }
                Liveness::Stale | Liveness::Disconnected => self.detach(DisconnectReason::Timeout, now, out),
            }
        }
    }

    pub(super) fn stale_after(&self, settings: &SessionSettings) -> Duration {
        match self.transport {
            Transport::WebSocket => settings.websocket_stale_after,
            Transport::Http => {
                (Duration::from_millis(self.poll_interval_ms.into()) * 3).max(settings.http_stale_min)
            }
        }
    }
}

pub(super) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

//! Replicas: server sessions, facts, and the duties of a leader.

pub mod facts;
pub mod leader;
mod serve;

use std::collections::BTreeMap;
use std::time::Duration;

use opamp_proto::{InstanceUid, Mono, Now, Wall};
use opamp_server::session::{Input, Outbox, Session, SessionSettings};
use opamp_server::{Liveness, Transport};

use super::schedule::Alarm;
use facts::Facts;
use leader::Leader;

/// How often a replica looks for what it may have missed.
pub const SWEEP: Duration = Duration::from_secs(10);

/// One replica of the server.
#[derive(Debug)]
pub struct Replica {
    /// Its position in the world.
    pub position: usize,
    /// What it leads with, while it does.
    pub leader: Option<Leader>,
    /// By how many milliseconds its wall clock is wrong.
    pub skew_ms: i64,
    pub(super) up: bool,
    pub(super) back_at: Mono,
    pub(super) paused_until: Mono,
    /// It will stand still for so long as soon as it has decided something that has to be written.
    pub(super) pauses_at_write: Option<Duration>,
    pub(super) peers: BTreeMap<usize, Peer>,
    pub(super) out: Outbox,
    pub(super) alarm: Alarm,
    pub(super) sweep_at: Mono,
    /// When it asks for the lease next.
    pub(super) lease_at: Mono,
    /// It has asked for the lease and waits.
    pub(super) asks_lease: bool,
    /// How often it has started: answers to an earlier process are nobody's.
    pub(super) starts: u64,
}

/// One agent as a replica sees it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) session: Session,
    /// The connection it has, or had last.
    pub(super) connection: u64,
    pub(super) facts: Facts,
    /// What is known could not be written yet.
    pub(super) unwritten: bool,
}

impl Replica {
    /// A replica that has just started.
    pub fn new(position: usize) -> Self {
        // They do not all sweep and ask at the same moment.
        let first = Mono(500 * (position as u64 + 1));
        Self {
            position,
            leader: None,
            skew_ms: 0,
            up: true,
            back_at: Mono(0),
            paused_until: Mono(0),
            pauses_at_write: None,
            peers: BTreeMap::new(),
            out: Outbox::new(SessionSettings::default()),
            alarm: Alarm::default(),
            sweep_at: first,
            lease_at: first,
            asks_lease: false,
            starts: 1,
        }
    }

    /// Whether it accepts connections.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Until when it stands still, if it does: it neither ends nor does anything.
    pub fn stands_still(&self, now: Mono) -> Option<Mono> {
        Some(self.paused_until).filter(|until| *until > now)
    }

    /// The time as it sees it.
    pub fn now(&self, mono: Mono, wall: Wall) -> Now {
        Now { mono, wall: Wall(wall.0.saturating_add_signed(self.skew_ms)) }
    }

    /// It ends: sessions, leadership and everything it was about to do are gone.
    pub(super) fn crash(&mut self, now: Mono, back_at: Mono) {
        let (position, skew_ms, starts) = (self.position, self.skew_ms, self.starts + 1);
        *self = Self::new(position);
        (self.skew_ms, self.starts, self.up, self.back_at) = (skew_ms, starts, false, back_at);
        (self.sweep_at, self.lease_at) = (back_at.max(now), back_at.max(now));
    }

    /// When it has something to do.
    pub(super) fn deadline(&self) -> Mono {
        if !self.up {
            return self.back_at;
        }
        let sessions = self.peers.values().filter_map(|peer| peer.session.deadline(self.out.settings()));
        let leader = self.leader.as_ref().and_then(Leader::deadline);
        let own = [Some(self.sweep_at), Some(self.lease_at).filter(|_| !self.asks_lease), leader];
        let first = own.into_iter().flatten().chain(sessions).min().unwrap_or(self.sweep_at);
        first.max(self.paused_until)
    }

    /// Agents whose session waits for nothing but the time.
    pub(super) fn due(&self, now: Mono) -> Vec<usize> {
        let settings = self.out.settings();
        let due = |peer: &Peer| peer.session.deadline(settings).is_some_and(|deadline| deadline <= now);
        self.peers.iter().filter(|(_, peer)| due(peer)).map(|(agent, _)| *agent).collect()
    }

    /// The session of an agent takes something in; messages to it come out, as WebSocket messages, and what is known of it,
    /// if that has changed.
    pub(super) fn handle(
        &mut self,
        agent: usize,
        input: Input<'_>,
        now: Now,
    ) -> (Vec<Vec<u8>>, Option<Facts>) {
        let Some(peer) = self.peers.get_mut(&agent) else { return (Vec::new(), None) };
        self.out.clear();
        if peer.session.handle(input, now, &mut self.out).is_err() {
            return (Vec::new(), None);
        }
        let messages = self.out.messages().map(<[u8]>::to_vec).collect();
        let snapshot = peer.session.snapshot();
        let mut facts = peer.facts.after(&snapshot, peer.connection);
        let dead = snapshot.liveness == Liveness::Stale
            && snapshot.connection.as_ref().is_some_and(|info| info.transport == Transport::WebSocket);
        facts.connected &= !dead;
        let news = (facts != peer.facts).then(|| facts.clone());
        peer.facts = facts;
        (messages, news)
    }

    /// The session of an agent, made if there is none.
    pub(super) fn peer(
        &mut self,
        agent: usize,
        uid: InstanceUid,
        known: Option<&Facts>,
        now: Now,
    ) -> &mut Peer {
        let settings = self.out.settings();
        self.peers.entry(agent).or_insert_with(|| Peer {
            session: Session::new(uid, settings, now),
            connection: 0,
            facts: known.cloned().unwrap_or_default(),
            unwritten: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_crashed_keeps_its_wrong_clock_and_nothing_else() {
        let mut replica = Replica::new(1);
        replica.skew_ms = -600_000;
        replica.peer(3, InstanceUid::from_bytes([1; 16]), None, Now::default());
        replica.crash(Mono(1_000), Mono(9_000));
        assert!(!replica.is_up() && replica.peers.is_empty() && replica.leader.is_none());
        assert_eq!((replica.skew_ms, replica.deadline()), (-600_000, Mono(9_000)));
    }

    #[test]
    fn a_wrong_wall_clock_leaves_spans_alone() {
        let mut replica = Replica::new(0);
        replica.skew_ms = -500;
        assert_eq!(replica.now(Mono(7), Wall(10_000)), Now { mono: Mono(7), wall: Wall(9_500) });
    }

    #[test]
    fn a_replica_that_stands_still_does_nothing_before_it_goes_on() {
        let mut replica = Replica::new(0);
        replica.paused_until = Mono(60_000);
        assert_eq!(replica.stands_still(Mono(59_999)), Some(Mono(60_000)));
        assert_eq!(replica.stands_still(Mono(60_000)), None);
        assert_eq!(replica.deadline(), Mono(60_000));
    }
}

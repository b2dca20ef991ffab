//! What admission did, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::stats::Histogram;

/// Upper bounds of the histogram of waits for admission, in seconds.
pub const QUEUE_WAIT_BOUNDS_S: [f64; 8] = [0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Where peers are sent away, in the order they come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdmissionStage {
    /// The TLS handshake failed, or nothing came in time.
    Handshake,
    /// The server drains.
    Drain,
    /// The application throttles ([`ServerHandle::throttle`](crate::ServerHandle::throttle)).
    Throttle,
    /// The authenticator said no.
    Authentication,
    /// [`ServerSettings::connections_per_identity_max`](crate::ServerSettings::connections_per_identity_max).
    Identity,
    /// [`ServerSettings::connections_max`](crate::ServerSettings::connections_max).
    Connections,
    /// [`ServerSettings::buffered_bytes_max`](crate::ServerSettings::buffered_bytes_max).
    Memory,
    /// [`ServerSettings::agents_max`](crate::ServerSettings::agents_max).
    Agents,
}

impl AdmissionStage {
    /// Every stage, in the order of [`AdmissionStage::index`].
    pub const ALL: [Self; 8] = [
        Self::Handshake,
        Self::Drain,
        Self::Throttle,
        Self::Authentication,
        Self::Identity,
        Self::Connections,
        Self::Memory,
        Self::Agents,
    ];

    /// The stage as metric label and API value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Drain => "drain",
            Self::Throttle => "throttle",
            Self::Authentication => "authentication",
            Self::Identity => "identity",
            Self::Connections => "connections",
            Self::Memory => "memory",
            Self::Agents => "agents",
        }
    }

    /// Whether it takes who is sent away here no more than room to be let in. Those count when it is reckoned when others should
    /// come back; who is nobody in particular yet, or takes more than its share, must not keep others away by coming again
    /// and again.
    pub(crate) const fn is_for_want_of_room(self) -> bool {
        match self {
            Self::Connections | Self::Memory | Self::Agents => true,
            Self::Handshake | Self::Drain | Self::Throttle | Self::Authentication | Self::Identity => false,
        }
    }

    /// Position in [`AdmissionStage::ALL`], for counters kept in an array.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What a peer was too slow with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlowPeer {
    /// Connected, and did not end its TLS handshake, or sent nothing at all, within
    /// [`ServerSettings::handshake_timeout`](crate::ServerSettings::handshake_timeout).
    Handshake,
    /// Began its first request and did not end the headers within
    /// [`ServerSettings::header_read_timeout`](crate::ServerSettings::header_read_timeout).
    Headers,
    /// Did not end a request body within [`ServerSettings::body_timeout`](crate::ServerSettings::body_timeout).
    Body,
    /// Opened a WebSocket that carried no agent for
    /// [`ServerSettings::first_message_timeout`](crate::ServerSettings::first_message_timeout).
    FirstMessage,
    /// Began a message and did not end it within [`ServerSettings::body_timeout`](crate::ServerSettings::body_timeout).
    Message,
    /// Said nothing on its WebSocket, not even a pong, for
    /// [`ServerSettings::read_timeout`](crate::ServerSettings::read_timeout).
    Silent,
    /// Took nothing of what was written to it for
    /// [`ServerSettings::write_timeout`](crate::ServerSettings::write_timeout).
    Write,
}

impl SlowPeer {
    /// Everything a peer can be too slow with, in the order of [`SlowPeer::index`].
    pub const ALL: [Self; 7] = [
        Self::Handshake,
        Self::Headers,
        Self::Body,
        Self::FirstMessage,
        Self::Message,
        Self::Silent,
        Self::Write,
    ];

    /// As metric label and API value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Headers => "headers",
            Self::Body => "body",
            Self::FirstMessage => "first_message",
            Self::Message => "message",
            Self::Silent => "silent",
            Self::Write => "write",
        }
    }

    /// Position in [`SlowPeer::ALL`], for counters kept in an array.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Who was let in, who waited and who was sent away.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdmissionStats {
    /// Connections that [`serve`](crate::serve) let in.
    pub connections_admitted: u64,
    /// Of those, the ones that had to wait for [`ServerSettings::accept_rate`](crate::ServerSettings::accept_rate) or for a
    /// place among [`ServerSettings::http_connections_max`](crate::ServerSettings::http_connections_max).
    pub connections_deferred: u64,
    /// Connections that wait now.
    pub connections_waiting: u64,
    /// Connections whose peers went away while they waited; they cost the others nothing.
    pub connections_gone: u64,
    /// How long connections waited to be let in, those included that did not wait. Bounds: [`QUEUE_WAIT_BOUNDS_S`].
    pub queue_wait: Histogram<{ QUEUE_WAIT_BOUNDS_S.len() + 1 }>,
    /// Failures to accept a connection, for want of open files mostly.
    pub accept_failures: u64,
    /// Sent away at each stage, by [`AdmissionStage::index`]: connections, upgrades, polls and messages.
    pub rejected: [u64; AdmissionStage::ALL.len()],
    /// Bytes of incomplete and waiting messages.
    pub buffered: BufferedStats,
    /// Full-state requests that had to wait for [`ServerSettings::resync_rate`](crate::ServerSettings::resync_rate).
    pub resyncs_deferred: u64,
    /// Agents that wait for such a request now.
    pub resyncs_waiting: u64,
    /// Connections closed because their peers were too slow, by [`SlowPeer::index`].
    pub slow_peers_closed: [u64; SlowPeer::ALL.len()],
    /// The drain, once one has begun.
    pub drain: Option<DrainProgress>,
    /// How far the fleet is back since the start.
    pub fleet_return: FleetReturn,
}

/// The byte budget ([`ServerSettings::buffered_bytes_max`](crate::ServerSettings::buffered_bytes_max)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferedStats {
    /// Bytes there may be.
    pub max_bytes: u64,
    /// Bytes there are.
    pub used_bytes: u64,
    /// The most there were at one time.
    pub peak_bytes: u64,
    /// How often there was no room.
    pub denied: u64,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// WebSockets there were when it began.
    pub sockets: u64,
    /// Of those, how many were told to close.
    pub told: u64,
}

/// How far the fleet that an earlier process knew ([`ServerHandle::restore`](crate::ServerHandle::restore)) is back.
///
/// Expected is who was not known to be disconnected when the earlier process saw it last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FleetReturn {
    /// Agents that were restored and are expected back.
    pub expected: u64,
    /// Of those, how many were heard of since.
    pub returned: u64,
    /// Seconds from the start of the server until these shares of them were back: [`FLEET_RETURN_PERCENT`].
    pub seconds: [Option<f64>; FLEET_RETURN_PERCENT.len()],
}

/// The shares of the fleet whose return is timed, in percent.
pub const FLEET_RETURN_PERCENT: [u8; 4] = [50, 90, 99, 100];

/// The live counters behind [`AdmissionStats`].
#[derive(Debug, Default)]
pub(crate) struct AdmissionCounters {
    admitted: AtomicU64,
    deferred: AtomicU64,
    waiting: AtomicU64,
    gone: AtomicU64,
    waits: Mutex<Histogram<{ QUEUE_WAIT_BOUNDS_S.len() + 1 }>>,
    accept_failures: AtomicU64,
    rejected: [AtomicU64; AdmissionStage::ALL.len()],
    slow: [AtomicU64; SlowPeer::ALL.len()],
}

impl AdmissionCounters {
    pub(crate) fn admitted(&self, waited: Option<Duration>) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        self.deferred.fetch_add(waited.is_some().into(), Ordering::Relaxed);
        let waited = waited.unwrap_or_default().as_secs_f64();
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).observe(waited, &QUEUE_WAIT_BOUNDS_S);
    }

    pub(crate) fn gone(&self) {
        self.gone.fetch_add(1, Ordering::Relaxed);
    }

    /// More or fewer connections wait, of whatever listener.
    pub(crate) fn waiting(&self, before: usize, now: usize) {
        self.waiting.fetch_add((now as u64).wrapping_sub(before as u64), Ordering::Relaxed);
    }

    pub(crate) fn connections_waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, stage: AdmissionStage) {
        self.rejected[stage.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn slow(&self, peer: SlowPeer) {
        self.slow[peer.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// These counters; what others keep is left at zero.
    pub(crate) fn read(&self) -> AdmissionStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AdmissionStats {
            connections_admitted: load(&self.admitted),
            connections_deferred: load(&self.deferred),
            connections_waiting: load(&self.waiting),
            connections_gone: load(&self.gone),
            queue_wait: self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            accept_failures: load(&self.accept_failures),
            rejected: std::array::from_fn(|index| load(&self.rejected[index])),
            slow_peers_closed: std::array::from_fn(|index| load(&self.slow[index])),
            ..AdmissionStats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn stages_and_kinds_of_slowness_are_closed_sets_with_distinct_words() {
        let stages: BTreeSet<_> = AdmissionStage::ALL.iter().map(|stage| stage.as_str()).collect();
        assert_eq!(stages.len(), AdmissionStage::ALL.len());
        assert!(AdmissionStage::ALL.iter().enumerate().all(|(index, stage)| stage.index() == index));
        let slow: BTreeSet<_> = SlowPeer::ALL.iter().map(|slow| slow.as_str()).collect();
        assert_eq!(slow.len(), SlowPeer::ALL.len());
        assert!(SlowPeer::ALL.iter().enumerate().all(|(index, slow)| slow.index() == index));
    }

    #[test]
    fn waits_are_sorted_into_their_bounds() {
        let counters = AdmissionCounters::default();
        for waited in [None, Some(0), Some(1), Some(2), Some(500), Some(501), Some(60_000)] {
            counters.admitted(waited.map(Duration::from_millis));
        }
        let stats = counters.read();
        assert_eq!((stats.connections_admitted, stats.connections_deferred), (7, 6));
        assert_eq!(stats.queue_wait.counts, [3, 1, 0, 1, 1, 0, 0, 0, 1]);
        assert!((stats.queue_wait.sum_s - 61.004).abs() < 1e-9);
    }

    #[test]
    fn what_waits_at_several_listeners_adds_up() {
        let counters = AdmissionCounters::default();
        counters.waiting(0, 5);
        counters.waiting(0, 2);
        counters.waiting(5, 1);
        assert_eq!(counters.connections_waiting(), 3);
    }
}

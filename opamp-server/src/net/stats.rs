//! Typed counters; the application chooses the exporter.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::refusal::RefusalReason;
use crate::session::Effects;

/// Upper bounds of the WebSocket duration histogram, in seconds.
pub const WEBSOCKET_DURATION_BOUNDS_S: [f64; 6] = [60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0];

/// Counters of a server since its start, read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// `AgentToServer` messages received on either transport, refused ones included.
    pub frames_received: u64,
    /// `ServerToAgent` messages sent on either transport.
    pub frames_sent: u64,
    /// Refusals by [`RefusalReason::index`].
    pub frames_rejected: [u64; RefusalReason::ALL.len()],
    /// WebSockets open now.
    pub websocket_active: u64,
    /// WebSockets opened.
    pub websocket_opened: u64,
    /// How long closed WebSockets lasted.
    pub websocket_duration: Histogram,
    /// Plain HTTP requests that reached the protocol.
    pub http_requests: u64,
    /// Remote configurations offered.
    pub offers_sent: u64,
    /// Full-state requests sent.
    pub full_state_requested: u64,
    /// Restart commands sent.
    pub restarts_sent: u64,
    /// Messages not sent because they exceed the send limit (R-WS-18, R-HTTP-30).
    pub messages_discarded_oversize: u64,
    /// Agents the server keeps a session for.
    pub agents: u64,
}

/// A histogram with fixed bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Observations at or below each bound of [`WEBSOCKET_DURATION_BOUNDS_S`], not cumulative; the last is the rest.
    pub counts: [u64; WEBSOCKET_DURATION_BOUNDS_S.len() + 1],
    /// Sum of all observations in seconds.
    pub sum_s: f64,
}

impl Histogram {
    fn observe(&mut self, value_s: f64) {
        let bucket = WEBSOCKET_DURATION_BOUNDS_S.iter().position(|bound| value_s <= *bound);
        self.counts[bucket.unwrap_or(WEBSOCKET_DURATION_BOUNDS_S.len())] += 1;
        self.sum_s += value_s;
    }
}

/// The live counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames_received: AtomicU64,
    pub(crate) frames_sent: AtomicU64,
    rejected: [AtomicU64; RefusalReason::ALL.len()],
    websocket_active: AtomicU64,
    websocket_opened: AtomicU64,
    durations: Mutex<Histogram>,
    pub(crate) http_requests: AtomicU64,
    offers_sent: AtomicU64,
    full_state_requested: AtomicU64,
    restarts_sent: AtomicU64,
    discarded: AtomicU64,
}

impl Counters {
    pub(crate) fn rejected(&self, reason: RefusalReason, times: u32) {
        self.rejected[reason.index()].fetch_add(times.into(), Ordering::Relaxed);
    }

    pub(crate) fn effects(&self, effects: Effects) {
        if effects == Effects::default() {
            return;
        }
        self.offers_sent.fetch_add(effects.offers.into(), Ordering::Relaxed);
        self.full_state_requested.fetch_add(effects.full_state_requests.into(), Ordering::Relaxed);
        self.restarts_sent.fetch_add(effects.restarts.into(), Ordering::Relaxed);
        self.discarded.fetch_add(effects.discarded_oversize.into(), Ordering::Relaxed);
        self.rejected(RefusalReason::CapMismatch, effects.ignored_parts);
    }

    pub(crate) fn websocket_active(&self) -> u64 {
        self.websocket_active.load(Ordering::Relaxed)
    }

    pub(crate) fn websocket_opened(&self) {
        self.websocket_active.fetch_add(1, Ordering::Relaxed);
        self.websocket_opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn websocket_closed(&self, lasted: Duration) {
        self.websocket_active.fetch_sub(1, Ordering::Relaxed);
        if let Ok(mut durations) = self.durations.lock() {
            durations.observe(lasted.as_secs_f64());
        }
    }

    pub(crate) fn read(&self, agents: usize) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            frames_received: load(&self.frames_received),
            frames_sent: load(&self.frames_sent),
            frames_rejected: std::array::from_fn(|index| load(&self.rejected[index])),
            websocket_active: load(&self.websocket_active),
            websocket_opened: load(&self.websocket_opened),
            websocket_duration: self.durations.lock().map(|durations| durations.clone()).unwrap_or_default(),
            http_requests: load(&self.http_requests),
            offers_sent: load(&self.offers_sent),
            full_state_requested: load(&self.full_state_requested),
            restarts_sent: load(&self.restarts_sent),
            messages_discarded_oversize: load(&self.discarded),
            agents: agents as u64,
        }
    }
}

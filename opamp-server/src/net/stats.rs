//! Typed counters; the application chooses the exporter.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::admission::stats::AdmissionStats;
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
    /// How long closed WebSockets lasted. Bounds: [`WEBSOCKET_DURATION_BOUNDS_S`].
    pub websocket_duration: Histogram<{ WEBSOCKET_DURATION_BOUNDS_S.len() + 1 }>,
    /// Plain HTTP requests that reached the protocol.
    pub http_requests: u64,
    /// Remote configurations offered.
    pub offers_sent: u64,
    /// Connection settings offered.
    pub settings_offers_sent: u64,
    /// Packages offered.
    pub package_offers_sent: u64,
    /// Requests for lists of components sent.
    pub component_requests_sent: u64,
    /// Custom messages put into messages.
    pub custom_sent: u64,
    /// Custom messages received, of capabilities this server announces.
    pub custom_received: u64,
    /// Of those received, dropped because nobody took the events in time.
    pub custom_dropped: u64,
    /// Custom messages received of capabilities this server does not announce.
    pub custom_ignored: u64,
    /// Custom messages accepted for sending and dropped because the connection ended before.
    pub custom_undelivered: u64,
    /// Certificate requests received.
    pub certificates_requested: u64,
    /// Of those, granted.
    pub certificates_issued: u64,
    /// Of those, refused, by the library or by the issuer.
    pub certificates_refused: u64,
    /// Messages of somebody else under the `instance_uid` of an agent that is there.
    pub uid_conflicts: u64,
    /// Newcomers told to take over a fresh identity, repetitions included.
    pub rekeyed: u64,
    /// Requests and messages sent away because the server is throttled.
    pub throttled: u64,
    /// Full-state requests sent.
    pub full_state_requested: u64,
    /// Restart commands sent.
    pub restarts_sent: u64,
    /// Messages not sent because they exceed the send limit (R-WS-18, R-HTTP-30).
    pub messages_discarded_oversize: u64,
    /// Agents the server keeps a session for.
    pub agents: u64,
    /// Who was let in, who waited and who was sent away.
    pub admission: AdmissionStats,
}

/// A histogram with fixed bounds, one fewer than it has counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram<const COUNTS: usize> {
    /// Observations at or below each of the bounds, not cumulative; the last is the rest.
    pub counts: [u64; COUNTS],
    /// Sum of all observations in seconds.
    pub sum_s: f64,
}

impl<const COUNTS: usize> Histogram<COUNTS> {
    pub(crate) fn observe(&mut self, value_s: f64, bounds_s: &[f64]) {
        debug_assert_eq!(bounds_s.len() + 1, COUNTS, "the bounds of this histogram");
        let bucket = bounds_s.iter().position(|bound| value_s <= *bound);
        self.counts[bucket.unwrap_or(COUNTS - 1)] += 1;
        self.sum_s += value_s;
    }
}

impl<const COUNTS: usize> Default for Histogram<COUNTS> {
    fn default() -> Self {
        Self { counts: [0; COUNTS], sum_s: 0.0 }
    }
}

/// The live counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    frames: Frames,
    rejected: [AtomicU64; RefusalReason::ALL.len()],
    websocket_active: AtomicU64,
    websocket_opened: AtomicU64,
    durations: Mutex<Histogram<{ WEBSOCKET_DURATION_BOUNDS_S.len() + 1 }>>,
    pub(crate) http_requests: AtomicU64,
    offers_sent: AtomicU64,
    settings_offers_sent: AtomicU64,
    package_offers_sent: AtomicU64,
    component_requests_sent: AtomicU64,
    custom_sent: AtomicU64,
    custom_received: AtomicU64,
    pub(crate) custom_dropped: AtomicU64,
    custom_ignored: AtomicU64,
    custom_undelivered: AtomicU64,
    pub(crate) certificates_requested: AtomicU64,
    pub(crate) certificates_issued: AtomicU64,
    pub(crate) certificates_refused: AtomicU64,
    pub(crate) uid_conflicts: AtomicU64,
    pub(crate) rekeyed: AtomicU64,
    pub(crate) throttled: AtomicU64,
    full_state_requested: AtomicU64,
    restarts_sent: AtomicU64,
    discarded: AtomicU64,
}

/// What every message counts. One counter for all threads would travel between their caches with every message, and take along
/// what lies beside it.
#[derive(Debug, Default)]
struct Frames([Stripe; STRIPES]);

const STRIPES: usize = 16;

/// On its own cache lines: two, because they are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Frames {
    /// The stripe of this thread, which few others share.
    fn own(&self) -> &Stripe {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES);
        // A thread that ends may have lost its own.
        &self.0[OWN.try_with(|own| *own).unwrap_or_default()]
    }

    fn sum(&self, of: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        self.0.iter().map(|stripe| of(stripe).load(Ordering::Relaxed)).sum()
    }
}

impl Counters {
    pub(crate) fn frame_received(&self) {
        self.frames.own().received.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn frame_sent(&self) {
        self.frames.own().sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, reason: RefusalReason, times: u32) {
        self.rejected[reason.index()].fetch_add(times.into(), Ordering::Relaxed);
    }

    pub(crate) fn effects(&self, effects: Effects) {
        if effects == Effects::default() {
            return;
        }
        let counts = [
            (&self.offers_sent, effects.offers),
            (&self.settings_offers_sent, effects.settings_offers),
            (&self.package_offers_sent, effects.package_offers),
            (&self.full_state_requested, effects.full_state_requests),
            (&self.component_requests_sent, effects.component_requests),
            (&self.certificates_issued, effects.certificates_issued),
            (&self.certificates_refused, effects.certificates_refused),
            (&self.restarts_sent, effects.restarts),
            (&self.discarded, effects.discarded_oversize),
            (&self.custom_sent, effects.custom_sent),
            (&self.custom_received, effects.custom_received),
            (&self.custom_ignored, effects.custom_ignored),
            (&self.custom_undelivered, effects.custom_undelivered),
        ];
        for (counter, times) in counts.into_iter().filter(|(_, times)| *times > 0) {
            counter.fetch_add(times.into(), Ordering::Relaxed);
        }
        if effects.ignored_parts > 0 {
            self.rejected(RefusalReason::CapMismatch, effects.ignored_parts);
        }
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
            durations.observe(lasted.as_secs_f64(), &WEBSOCKET_DURATION_BOUNDS_S);
        }
    }

    pub(crate) fn read(&self, agents: usize, admission: AdmissionStats) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            frames_received: self.frames.sum(|stripe| &stripe.received),
            frames_sent: self.frames.sum(|stripe| &stripe.sent),
            frames_rejected: std::array::from_fn(|index| load(&self.rejected[index])),
            websocket_active: load(&self.websocket_active),
            websocket_opened: load(&self.websocket_opened),
            websocket_duration: self.durations.lock().map(|durations| durations.clone()).unwrap_or_default(),
            http_requests: load(&self.http_requests),
            offers_sent: load(&self.offers_sent),
            settings_offers_sent: load(&self.settings_offers_sent),
            package_offers_sent: load(&self.package_offers_sent),
            component_requests_sent: load(&self.component_requests_sent),
            custom_sent: load(&self.custom_sent),
            custom_received: load(&self.custom_received),
            custom_dropped: load(&self.custom_dropped),
            custom_ignored: load(&self.custom_ignored),
            custom_undelivered: load(&self.custom_undelivered),
            certificates_requested: load(&self.certificates_requested),
            certificates_issued: load(&self.certificates_issued),
            certificates_refused: load(&self.certificates_refused),
            uid_conflicts: load(&self.uid_conflicts),
            rekeyed: load(&self.rekeyed),
            throttled: load(&self.throttled),
            full_state_requested: load(&self.full_state_requested),
            restarts_sent: load(&self.restarts_sent),
            messages_discarded_oversize: load(&self.discarded),
            agents: agents as u64,
            admission,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_many_threads_count_are_all_counted() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| {
                    for _ in 0..100 {
                        counters.frame_received();
                    }
                    counters.frame_sent();
                });
            }
        });
        let stats = counters.read(0, AdmissionStats::default());
        assert_eq!((stats.frames_received, stats.frames_sent), (3_200, 32));
    }
}

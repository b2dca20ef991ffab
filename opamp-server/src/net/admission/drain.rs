//! Ending a server in waves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::core::Core;
use super::stats::DrainProgress;
use crate::refusal::CloseCode;
use crate::snapshot::DisconnectReason;

/// The distance of two waves.
const WAVE: Duration = Duration::from_millis(100);

/// How far the drain is.
#[derive(Debug, Default)]
pub(crate) struct Draining {
    begun: AtomicBool,
    sockets: AtomicU64,
    told: AtomicU64,
}

impl Draining {
    pub(crate) fn read(&self) -> Option<DrainProgress> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let progress = DrainProgress { sockets: load(&self.sockets), told: load(&self.told) };
        self.begun.load(Ordering::Acquire).then_some(progress)
    }
}

/// How many sockets to close at once, and how many with each wave after that: `rate` per second, or as many as it takes to
/// have told all of them after `span`.
fn waves(sockets: usize, rate: u32, span: Duration) -> (usize, usize) {
    let rate = usize::try_from(rate).unwrap_or(usize::MAX);
    if rate == 0 || sockets <= rate {
        return (sockets, sockets.max(1));
    }
    let steps = usize::try_from(span.as_millis() / WAVE.as_millis()).unwrap_or(usize::MAX);
    if steps == 0 {
        return (sockets, sockets);
    }
    let paced = rate.div_ceil(10); // ten waves a second
    let wave = paced.max((sockets - rate).div_ceil(steps));
    (rate, wave)
}

impl Core {
    /// Closes every WebSocket, a wave at a time; true if all were closed by the deadline.
    pub(crate) async fn drain(&self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        self.draining.cancel();
        let connections = self.connections.all();
        let progress = &self.admission.draining;
        if !progress.begun.swap(true, Ordering::AcqRel) {
            progress.sockets.store(connections.len() as u64, Ordering::Relaxed);
        }
        self.sockets.close();
        // The last ones told need time to answer.
        let answers = self.settings.close_timeout.min(deadline / 2);
        let (first, wave) = waves(connections.len(), self.settings.drain_rate, deadline - answers);
        let mut rest = connections.as_slice();
        let (mut count, mut next) = (first, Instant::now());
        while !rest.is_empty() {
            sleep_until(next).await;
            let (now, later) = rest.split_at(count.min(rest.len()));
            for connection in now {
                let told = connection.close(CloseCode::GoingAway, DisconnectReason::ServerShutdown);
                progress.told.fetch_add(told.into(), Ordering::Relaxed);
            }
            (rest, count, next) = (later, wave, next + WAVE);
        }
        drop(connections);
        let in_time = timeout_at(end, self.sockets.wait()).await.is_ok();
        self.drained.cancel();
        self.changes.close();
        in_time
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opamp_proto::Wall;

    use super::*;
    use crate::net::auth::InsecureAcceptEveryone;
    use crate::net::builder::OpampServer;
    use crate::net::clock::TokioClock;
    use crate::net::connection::Connection;
    use crate::net::presented::Presented;
    use crate::net::settings::ServerSettings;
    use crate::snapshot::{Principal, Transport};

    /// A server with sockets that close as soon as they are told, or never. When each was told, in milliseconds.
    fn server(rate: u32, sockets: usize, stubborn: usize) -> (Arc<Core>, Arc<Mutex<Vec<u128>>>) {
        let settings = ServerSettings { drain_rate: rate, ..ServerSettings::default() };
        let builder = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).settings(settings);
        let (service, ..) = builder.clock(Arc::new(TokioClock::starting_at(Wall(0)))).build();
        let (core, told, began) = (service.0, Arc::<Mutex<Vec<u128>>>::default(), Instant::now());
        for socket in 0..sockets {
            let now = core.now();
            let info = core.next_connection(Transport::WebSocket, Principal::anonymous(), None, now);
            let connection = Arc::new(Connection::new(info, Presented::default(), now.mono));
            core.register(&connection);
            let (core, told) = (Arc::clone(&core), Arc::clone(&told));
            core.sockets.clone().spawn(async move {
                connection.ordered().await;
                let (code, reason) = connection.take_orders().close.unwrap();
                assert_eq!((code, reason), (CloseCode::GoingAway, DisconnectReason::ServerShutdown));
                told.lock().unwrap().push(began.elapsed().as_millis());
                if socket < stubborn {
                    std::future::pending::<()>().await;
                }
                core.unregister(&connection, core.now().mono);
            });
        }
        (core, told)
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_closes_in_waves_and_says_how_far_it_is() {
        let (core, told) = server(100, 300, 0);
        assert_eq!(core.admission.draining.read(), None);
        let drain = tokio::spawn({
            let core = Arc::clone(&core);
            async move { core.drain(Duration::from_secs(60)).await }
        });
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        let progress = DrainProgress { sockets: 300, told: 200 };
        assert_eq!(core.admission.draining.read(), Some(progress));
        assert_eq!(core.counters.websocket_active(), 100, "those whose turn has not come are served");
        assert!(drain.await.unwrap());
        let told = told.lock().unwrap();
        assert_eq!(told.iter().filter(|at| **at == 0).count(), 100);
        assert_eq!((told.len(), *told.last().unwrap()), (300, 2_000));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_a_drain_holds_whoever_does_not_close() {
        let (core, told) = server(10, 1_000, 1);
        let began = Instant::now();
        assert!(!core.drain(Duration::from_secs(10)).await);
        assert_eq!(began.elapsed().as_secs(), 10);
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1_000);
        assert!(*told.last().unwrap() <= 8_000, "with time left to answer: {}", told.last().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn few_sockets_are_closed_at_once_and_nobody_is_waited_for() {
        for sockets in [0, 1, 2_000] {
            let (core, told) = server(2_000, sockets, 0);
            let began = Instant::now();
            assert!(core.drain(Duration::from_secs(60)).await);
            assert!(began.elapsed().is_zero() && told.lock().unwrap().len() == sockets);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_is_opened_meanwhile_is_closed_at_once() {
        let (core, _) = server(1, 50, 0);
        let drain = core.drain(Duration::from_secs(60));
        let late = async {
            let now = core.now();
            let info = core.next_connection(Transport::WebSocket, Principal::anonymous(), None, now);
            let connection = Arc::new(Connection::new(info, Presented::default(), now.mono));
            core.register(&connection);
            assert!(connection.take_orders().close.is_some());
            core.unregister(&connection, now.mono);
        };
        let (in_time, ()) = tokio::join!(drain, late);
        assert!(in_time);
    }

    /// When each socket is told, in milliseconds.
    fn plan(sockets: usize, rate: u32, span_ms: u64) -> Vec<u64> {
        let (first, wave) = waves(sockets, rate, Duration::from_millis(span_ms));
        let waves = std::iter::once(first).chain(std::iter::repeat(wave)).zip(0u64..);
        waves.flat_map(|(count, number)| std::iter::repeat_n(number * 100, count)).take(sockets).collect()
    }

    #[test]
    fn a_small_fleet_is_told_at_once_and_a_large_one_at_the_rate() {
        assert!(plan(2_000, 2_000, 60_000).iter().all(|at| *at == 0));
        let large = plan(100_000, 2_000, 60_000);
        assert_eq!(large.iter().filter(|at| **at == 0).count(), 2_000);
        assert_eq!(*large.last().unwrap(), 49_000);
        assert!((1..=490).all(|wave| large.iter().filter(|at| **at == wave * 100).count() == 200));
    }

    #[test]
    fn a_short_deadline_makes_the_waves_larger() {
        for (sockets, span_ms) in [(100_000, 8_000), (19_500, 500), (2_001, 100), (1_000_000, 3_333)] {
            let told = plan(sockets, 2_000, span_ms);
            assert_eq!(told.len(), sockets);
            assert!(*told.last().unwrap() <= span_ms, "{sockets} within {span_ms} ms");
        }
        assert!(plan(100_000, 2_000, 99).iter().all(|at| *at == 0), "no time for a second wave");
        assert!(plan(100_000, 0, 60_000).iter().all(|at| *at == 0), "no rate, no waves");
        assert!(plan(0, 2_000, 60_000).is_empty());
    }
}

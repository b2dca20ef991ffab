//! The agent's own metrics: measured here, sent where the server says, by OTLP/HTTP.
//!
//! Values are cumulative, so one that could not be sent is made up for by the next.

mod metric;
mod process;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use opamp_client::connection::{SettingsPolicy, Signal, TelemetrySettings};
use opamp_client::{
    Client, Clock as _, OwnTelemetryHandler, Proxy, Rejected, Stats, SystemClock, TelemetrySender, TlsSource,
    Wall,
};
use tokio::sync::watch;

use self::metric::{Metric, Point, Span, request};
use crate::description::description;
use crate::live::Live;

/// The media type of OTLP in protobuf.
const PROTOBUF: &str = "application/x-protobuf";
/// How long one export may take. The next one has newer values.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait that a destination can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Who measures and sends.
pub(crate) struct OwnMetrics {
    tls: Option<TlsSource>,
    proxy: Proxy,
    policy: SettingsPolicy,
    destination: watch::Sender<Option<Arc<TelemetrySender>>>,
    exports: Mutex<Exports>,
}

/// What became of exports so far.
#[derive(Clone, Copy, Debug, Default)]
struct Exports {
    sent: u64,
    failed: u64,
}

impl OwnMetrics {
    pub(crate) fn new(tls: Option<TlsSource>, proxy: Proxy, policy: SettingsPolicy) -> Arc<Self> {
        let destination = watch::Sender::new(None);
        Arc::new(Self { tls, proxy, policy, destination, exports: Mutex::default() })
    }

    /// Measures and sends at each interval, as long as there is a destination; the first time as soon as there is one.
    pub(crate) async fn run(self: Arc<Self>, live: Arc<Live>, client: Client) {
        let mut destination = self.destination.subscribe();
        let mut is_failing = false;
        loop {
            let sender = destination.borrow_and_update().clone();
            let Some(sender) = sender else {
                // The other half is in `self`.
                let _ = destination.changed().await;
                continue;
            };
            let begun = Instant::now();
            let pause = self.export(&sender, &live, &client, &mut is_failing).await;
            let wait = live.local.own_metrics_interval.max(pause).saturating_sub(begun.elapsed());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = destination.changed() => is_failing = false,
            }
        }
    }

    /// Sends once. Returns how long the destination wants to be left alone.
    async fn export(
        &self,
        sender: &TelemetrySender,
        live: &Live,
        client: &Client,
        is_failing: &mut bool,
    ) -> Duration {
        let exports = *self.exports();
        let body = measured(live, client, exports);
        match sender.send(PROTOBUF, body.into()).await {
            Ok(_) => {
                self.exports().sent += 1;
                if std::mem::take(is_failing) {
                    tracing::info!("own metrics are taken again");
                }
                Duration::ZERO
            }
            Err(failure) => {
                self.exports().failed += 1;
                if !std::mem::replace(is_failing, true) {
                    tracing::warn!("own metrics cannot be sent: {failure}");
                }
                failure.retry_after.unwrap_or_default().min(PAUSE_MAX)
            }
        }
    }

    fn exports(&self) -> MutexGuard<'_, Exports> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client calls with a destination.
pub(crate) struct Destination(pub(crate) Arc<OwnMetrics>);

impl OwnTelemetryHandler for Destination {
    fn apply(
        &self,
        signal: Signal,
        settings: Arc<TelemetrySettings>,
        _client: Client,
    ) -> BoxFuture<'_, Result<(), Rejected>> {
        let own = Arc::clone(&self.0);
        Box::pin(async move {
            let made = tokio::task::spawn_blocking(move || {
                let sender = TelemetrySender::new(&settings, own.tls.as_ref(), &own.proxy, own.policy)?;
                tracing::info!("{} go to another destination", signal.as_str());
                own.destination.send_replace(Some(Arc::new(sender.timeout(TIMEOUT))));
                Ok(())
            });
            made.await.unwrap_or_else(|_| Err("the agent is ending".into()))
        })
    }
}

fn measured(live: &Live, client: &Client, exports: Exports) -> Vec<u8> {
    let now = SystemClock::new().now().wall;
    let nanos = |wall: Wall| wall.0.saturating_mul(1_000_000);
    let span = Span { started: nanos(live.started), now: nanos(now) };
    let identity = description(&live.effective()).identifying_attributes(&client.uid());
    let mut metrics = process::metrics(Path::new("/proc/self"));
    #[allow(clippy::cast_precision_loss, reason = "seconds are no account")]
    let uptime = now.0.saturating_sub(live.started.0) as f64 / 1e3;
    metrics
        .push(Metric::gauge("process.uptime", "s", "How long the agent has run.").point(Point::real(uptime)));
    metrics.extend(of_agent(&client.stats(), exports));
    request(&identity, metrics, span)
}

/// What only this agent knows of itself (R-OWN-10).
fn of_agent(stats: &Stats, exports: Exports) -> Vec<Metric> {
    let connected = u64::from(stats.is_connected);
    vec![
        Metric::gauge("self_agent.connected", "1", "Whether the agent is connected to its server.")
            .point(Point::whole(connected)),
        Metric::counter(
            "self_agent.connected.time",
            "s",
            "How long it was connected, all connections together.",
        )
        .point(Point::real(stats.connected.as_secs_f64())),
        Metric::counter("self_agent.reconnects", "{connection}", "Connections after the first.")
            .point(Point::whole(stats.reconnects)),
        Metric::counter("self_agent.connects.failed", "{attempt}", "Attempts to connect that failed.")
            .point(Point::whole(stats.connects_failed)),
        Metric::counter("self_agent.messages", "{message}", "Messages between agent and server.")
            .point(Point::whole(stats.messages_sent).of("direction", "sent"))
            .point(Point::whole(stats.messages_received).of("direction", "received")),
        Metric::counter("self_agent.exports", "{export}", "Exports of own metrics before this one.")
            .point(Point::whole(exports.sent).of("result", "taken"))
            .point(Point::whole(exports.failed).of("result", "failed")),
    ]
}

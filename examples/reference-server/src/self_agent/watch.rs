//! The Self-Agent's task: its own connection, round after round of probes, and the health that it reports.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opamp_client::{
    Client, ClientSettings, DisconnectCause, Event, Failure, FailureKind, Health, retry::RetrySettings,
    session::SessionSettings,
};
use opamp_proto::Wall;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    Person,
    board::{Fault, Finding, Probe, ProbeState, Report, Verdict},
    digestion::Said,
    external::External,
    identity::Identity,
    pin::Served,
    probe::{Door, DoorError, InProcess, timed},
};
use crate::{api::state::App, config::SelfAgentConfig};

/// Rounds in a row that must find the agent's own connection missing before it counts. One is no news: an operator may
/// have closed it, and it is being made anew.
const MISSED_ROUNDS: u32 = 2;

/// Longest wait before a first attempt to connect anew, and between two reports of health.
const PROMPT: Duration = Duration::from_secs(1);

pub(super) struct Watch {
    app: Arc<App>,
    identity: Identity,
    in_process: InProcess,
    /// For the agent itself.
    front_door: Door,
    /// For the probes.
    side_door: Door,
    external: External,
    /// Why the agent has no connection, as far as it knows.
    lost: Arc<Mutex<Option<Failure>>>,
    missed_rounds: u32,
    /// How the agent is by its own word: well or not, and the verdict.
    told: Option<(bool, &'static str)>,
}

impl Watch {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// There is no way to the port.
    pub(super) fn new(
        app: Arc<App>,
        person: Person,
        opamp_addr: SocketAddr,
        served: Option<&Served>,
    ) -> Result<Self, DoorError> {
        let Person { credentials, identity } = person;
        let door = |credential| {
            Door::new(opamp_addr, &app.config.opamp.path, served, credential, &credentials.marks)
        };
        let (front_door, side_door) = (door(&credentials.agent)?, door(&credentials.probe)?);
        let config = app.config.self_agent.clone();
        let (uid, opamp, fleet) = (identity.uid(), app.opamp.clone(), app.fleet.clone());
        Ok(Watch {
            in_process: InProcess::new(uid, opamp, fleet, config.interval),
            external: External::new(config, &credentials, served),
            app,
            identity,
            front_door,
            side_door,
            lost: Arc::default(),
            missed_rounds: 0,
            told: None,
        })
    }

    /// Looks again and again until it is stopped, and then says goodbye.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut rounds = interval(self.config().interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.connect();
            tokio::select! {
                _ = rounds.tick() => {}
                () = stop.cancelled() => break,
            }
            let round = tokio::select! {
                round = self.round() => round,
                () = stop.cancelled() => break,
            };
            self.conclude(round);
        }
        if let Some(client) = self.client() {
            client.stop();
            client.stopped().await;
        }
    }

    fn config(&self) -> &SelfAgentConfig {
        &self.app.config.self_agent
    }

    fn client(&self) -> Option<&Client> {
        self.app.self_agent.client.get()
    }

    /// Starts the agent, if that has not succeeded yet.
    fn connect(&self) {
        if self.client().is_some() {
            return;
        }
        let lost = Arc::clone(&self.lost);
        let take = move |event: Event, _: Client| {
            if let Some(news) = connection_news(event) {
                *lost.lock().unwrap_or_else(PoisonError::into_inner) = news;
            }
            std::future::ready(())
        };
        let settings = settings(self.config(), self.app.config.server.shutdown_timeout);
        let builder = self.front_door.builder().state(self.identity.clone()).on_event(take);
        match builder.settings(settings).start() {
            // Nobody else puts one there.
            Ok(client) => drop(self.app.self_agent.client.set(client)),
            Err(error) => {
                let failure = Failure::new(FailureKind::Local, error.to_string());
                *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            }
        }
    }

    /// All probes at the same time, and a look at the agent's own connection.
    async fn round(&mut self) -> [Option<Finding>; Probe::ALL.len()] {
        let limit = self.config().timeout;
        let stats = self.app.self_agent.stats();
        let said = Said { messages: stats.messages_sent, health: self.told };
        let said = stats.is_connected.then_some(said);
        let (in_process, loopback, external) = tokio::join!(
            timed(limit, self.in_process.run(said)),
            timed(limit, self.side_door.probe(limit)),
            self.external.look(limit)
        );
        let loopback = self.with_own_connection(loopback);
        [Some(in_process), Some(loopback), external]
    }

    /// The port is well if new connections succeed and the agent keeps its own.
    fn with_own_connection(&mut self, mut loopback: Finding) -> Finding {
        if self.app.self_agent.stats().is_connected {
            self.missed_rounds = 0;
            return loopback;
        }
        self.missed_rounds = self.missed_rounds.saturating_add(1);
        if self.missed_rounds < MISSED_ROUNDS || loopback.result.is_err() {
            return loopback;
        }
        if let Some(client) = self.client() {
            // New connections succeed again: there is no need to wait any longer. It fails only for a stopped agent.
            let _ = client.reconnect();
        }
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lost = lost.unwrap_or_else(|| Failure::new(FailureKind::Closed, "it is being made"));
        let fault = Fault::from(lost);
        let detail = format!("the Self-Agent's own connection is down: {}", fault.detail);
        loopback.result = Err(Fault { detail, lasts: true, ..fault });
        loopback
    }

    /// Makes the findings known: to the board, to the log if the verdict is news, and through the agent to the inventory.
    fn conclude(&mut self, round: [Option<Finding>; Probe::ALL.len()]) {
        let own = &self.app.self_agent;
        let (verdict, is_news) = own.board.take(round, self.app.now(), Instant::now());
        let report = own.report();
        if is_news {
            log(verdict, &report);
        }
        let health = health(&report, self.app.started_at);
        self.told = self.client().map(|_| (health.is_healthy(), verdict.as_str()));
        if let Some(client) = self.client() {
            // It fails only for a stopped agent.
            let _ = client.set_health(health);
        }
    }
}

/// Probe by probe; what is not configured is no part of it.
fn health(report: &Report, started: Wall) -> Health {
    let parts = Probe::ALL.into_iter().zip(&report.probes).filter_map(|(probe, record)| {
        let health = match (record.settled, record.fault()) {
            (ProbeState::Ok, _) => Health::healthy(started),
            (_, Some(fault)) => Health::unhealthy(started, fault.to_string()),
            _ => return None,
        };
        Some((probe.as_str(), health))
    });
    Health::of_components(started, parts).status(report.verdict.as_str())
}

fn log(verdict: Verdict, report: &Report) {
    let fault = report.probes.iter().find_map(|record| record.fault()).map(ToString::to_string);
    let fault = fault.unwrap_or_default();
    match verdict {
        Verdict::Ok => tracing::info!("the Self-Agent reaches the server"),
        Verdict::Server => tracing::error!(fault, "the Self-Agent finds the server at fault"),
        Verdict::NetworkPath => {
            tracing::warn!(fault, "the server answers, but not at `self_agent.external_url`");
        }
        Verdict::Unknown if fault.is_empty() => {}
        Verdict::Unknown => tracing::error!(fault, "the Self-Agent cannot look at `self_agent.external_url`"),
    }
}

/// What an event says of the agent's connection: that there is one, or why there is none; `None` if nothing.
fn connection_news(event: Event) -> Option<Option<Failure>> {
    match event {
        Event::Connected { .. } => Some(None),
        Event::ConnectFailed { failure, .. }
        | Event::Disconnected { cause: DisconnectCause::Failed { failure, .. }, .. } => Some(Some(failure)),
        _ => None,
    }
}

/// An agent that is alone on its way has no herd to think of, and notices within a few rounds what goes wrong.
fn settings(config: &SelfAgentConfig, shutdown: Duration) -> ClientSettings {
    let (interval, timeout) = (config.interval, config.timeout);
    // Goodbye and close have their turn before the server drains, see `Running::stop`.
    let goodbye = shutdown / 20;
    let prompt = PROMPT.min(interval / 4);
    let defaults = RetrySettings::default();
    let retry = RetrySettings {
        first: prompt,
        initial: prompt,
        max: defaults.max.min(interval),
        slow_initial: defaults.slow_initial.min(interval),
        slow_max: defaults.slow_max.min(interval),
        ..defaults
    };
    let defaults = SessionSettings::default();
    let session = SessionSettings {
        // By these it is seen in each round whether what it says is taken in.
        heartbeat: defaults.heartbeat.map(|distance| distance.min(interval)),
        health_debounce: prompt,
        connect_timeout: timeout,
        response_timeout: defaults.response_timeout.min(interval * 2),
        ping_interval: defaults.ping_interval.min(interval),
        read_timeout: defaults.read_timeout.min(interval * 2),
        stop_timeout: defaults.stop_timeout.min(goodbye),
        close_timeout: defaults.close_timeout.min(goodbye),
        retry,
        ..defaults
    };
    ClientSettings { session, redirects_max: 0, ..ClientSettings::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_has_gone_silent_is_noticed_within_two_intervals_and_one_attempt_follows_soon() {
        for interval in [Duration::from_millis(500), Duration::from_secs(10), Duration::from_secs(3_600)] {
            let config =
                SelfAgentConfig { interval, timeout: interval / 2, ..crate::Config::default().self_agent };
            let session = settings(&config, Duration::from_secs(10)).session;
            assert!(session.read_timeout <= interval * 2 && session.response_timeout <= interval * 2);
            assert!(session.ping_interval <= interval && session.ping_interval < session.read_timeout);
            assert!(session.heartbeat.is_some_and(|distance| distance <= interval));
            assert!(session.retry.max <= interval && session.retry.slow_max <= interval);
            assert_eq!(session.connect_timeout, interval / 2);
        }
    }
}

//! The loop that drives a session: what happens goes in, what it wants done is done.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use opamp_proto::Mono;
use tokio::task::{JoinError, JoinHandle};

use super::client::Shared;
use super::clock::Clock;
use super::connector::{Connector, Rigour};
use super::lanes::{Lanes, Outcome};
use super::link::Link;
use super::offered::Offered;
use crate::event::Event;
use crate::saved::{StateError, StateStore};
use crate::session::{Input, Outbox, Output, Session};

/// One agent, running.
pub(crate) struct Driver {
    session: Session,
    out: Outbox,
    link: Link,
    lanes: Lanes,
    shared: Arc<Shared>,
    connector: Arc<Connector>,
    offered: Arc<Offered>,
    state: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    probe: Option<BoxFuture<'static, bool>>,
    alarm: Option<(Mono, BoxFuture<'static, ()>)>,
    /// A save that takes its time. There is one at a time, or an older state could replace a newer one.
    saving: Option<JoinHandle<Result<(), StateError>>>,
    /// There is something newer than what is being saved.
    unsaved: bool,
    /// A save has failed, and the session does not know yet.
    not_saved: bool,
    /// Which custom capabilities of the server the application knows of.
    announced: u64,
    /// Dropped last, when everything else is gone: whoever waits for the end may start anew at once.
    _end: End,
}

/// However a driver ends, nobody is left waiting for it: also when its runtime goes away.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl Driver {
    pub(crate) fn new(
        session: Session,
        lanes: Lanes,
        shared: Arc<Shared>,
        offered: Arc<Offered>,
        state: Arc<dyn StateStore>,
    ) -> Self {
        let connector = Arc::clone(offered.configured());
        let clock = Arc::clone(&connector.clock);
        let (out, link) = (Outbox::new(), Link::None);
        Self {
            session,
            out,
            link,
            lanes,
            _end: End(Arc::clone(&shared)),
            shared,
            connector,
            offered,
            state,
            clock,
            probe: None,
            alarm: None,
            saving: None,
            unsaved: false,
            not_saved: false,
            announced: 0,
        }
    }

    /// Runs until the agent has stopped.
    pub(crate) async fn run(self) {
        if AssertUnwindSafe(self.drive()).catch_unwind().await.is_err() {
            tracing::error!("the agent has stopped because of a mistake in this library; please report it");
        }
    }

    async fn drive(mut self) {
        let connections = self.session.saved().connections;
        self.lanes.restore(connections.telemetry, connections.others);
        if let Some(accepted) = connections.accepted
            && let Err(why) = self.offered.examine(accepted).await
        {
            self.tell(Input::SettingsUnusable(why)).await;
        }
        self.change_capabilities().await;
        // The first report is to be complete, so what is asked for it is waited for.
        let (mut refreshing, mut installing) = (self.lanes.refresh(), self.lanes.installed());
        let mut started = !refreshing && !installing;
        if started {
            self.tell(Input::Start).await;
        }
        while !self.session.is_finished() {
            self.set_alarm();
            // In no fixed order, so that neither a busy application nor a busy server shuts the other out.
            tokio::select! {
                () = self.shared.changed() => self.take_pending().await,
                Some(outcome) = self.lanes.outcomes.recv() => {
                    // Of each kind the first: more may be asked for meanwhile.
                    refreshing &= !matches!(outcome, Outcome::Effective(_) | Outcome::NoEffective);
                    installing &= !matches!(outcome, Outcome::Installed(_));
                    self.take_outcome(outcome).await;
                    if !started && !refreshing && !installing {
                        started = true;
                        self.tell(Input::Start).await;
                    }
                }
                event = self.link.next() => self.tell(event.as_input()).await,
                reachable = answer(&mut self.probe) => {
                    self.probe = None;
                    self.tell(Input::Probed(reachable)).await;
                }
                result = saved(&mut self.saving) => {
                    self.saving = None;
                    self.tell_unsaved(result);
                    if self.unsaved {
                        self.save().await;
                    }
                }
                () = ring(&mut self.alarm) => {
                    self.alarm = None;
                    self.tell(Input::Tick).await;
                }
            }
            self.publish();
            self.shared.custom.left(self.session.custom_waiting());
        }
        self.await_outcome().await;
        self.finish_saving().await;
        // Whoever waits for the end may open the same packages at once.
        let too_late =
            self.clock.sleep_until(self.clock.now().mono + self.connector.settings.session.close_timeout);
        tokio::select! {
            () = self.lanes.end() => {}
            () = too_late => {}
        }
    }

    /// A disk that was slow before gets the last state too, if it takes until after the end.
    async fn finish_saving(&mut self) {
        let too_late = self.clock.sleep_until(self.clock.now().mono + self.connector.settings.save_timeout);
        let Some(mut saving) = self.saving.take() else { return };
        tokio::select! {
            biased;
            result = &mut saving => self.tell_unsaved(result),
            () = too_late => {
                if std::mem::take(&mut self.unsaved) {
                    let (state, saved) = (Arc::clone(&self.state), self.session.saved());
                    // Blocking, so that it is waited for at the end of the runtime; nobody is there any more to be told.
                    let runtime = tokio::runtime::Handle::current();
                    tokio::task::spawn_blocking(move || {
                        let _ = runtime.block_on(saving);
                        let _ = state.save(&saved);
                    });
                }
                return;
            }
        }
        if self.unsaved {
            self.save().await;
        }
    }

    /// Waits a little for what is still being applied, or it would be applied again by the next process. A handler may
    /// well stop the agent as the last thing it does.
    async fn await_outcome(&mut self) {
        let settings = &self.connector.settings.session;
        let mut too_late = self.clock.sleep_until(self.clock.now().mono + settings.stop_timeout);
        self.lanes.cancel_packages();
        while self.session.is_applying() {
            tokio::select! {
                Some(outcome) = self.lanes.outcomes.recv() => self.take_outcome(outcome).await,
                () = &mut too_late => return self.tell(Input::Abandoned).await,
            }
        }
    }

    async fn take_pending(&mut self) {
        let pending = self.shared.take();
        let told = [
            pending.description.map(Input::Describe),
            pending.effective.map(Input::EffectiveConfig),
            pending.health.map(Input::Health),
            pending.components.map(Input::AvailableComponents),
            pending.certificate.then_some(Input::RequestCertificate),
            pending.reconnect.then_some(Input::Reconnect),
            pending.stop.then_some(Input::Stop),
        ];
        if pending.refresh {
            self.lanes.refresh();
        }
        self.change_capabilities().await;
        let custom = self.shared.custom.take().into_iter().map(Input::Custom);
        for input in custom.chain(told.into_iter().flatten()) {
            self.tell(input).await;
        }
    }

    /// Installs handlers of custom capabilities, and takes them away.
    async fn change_capabilities(&mut self) {
        let changes = self.shared.custom.take_changes();
        if changes.is_empty() {
            return;
        }
        for (name, handler) in changes {
            self.lanes.install_custom(name, handler);
        }
        self.tell(Input::CustomCapabilities(self.lanes.custom_capabilities())).await;
    }

    async fn take_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Config { hash, result, effective } => {
                self.tell(Input::ConfigOutcome { hash, result, effective }).await;
            }
            Outcome::Certificate(result) => self.tell(Input::CertificateRequest(result)).await,
            Outcome::Connections { hash, failed } => {
                self.tell(Input::ConnectionsOutcome { hash, failed }).await;
            }
            Outcome::Installed(Some(statuses)) => self.tell(Input::PackageStatuses(statuses)).await,
            Outcome::PackageStatuses(statuses) => self.tell(Input::PackageStatuses(statuses)).await,
            Outcome::Packages { hash, result } => self.tell(Input::PackagesOutcome { hash, result }).await,
            Outcome::Effective(config) => self.tell(Input::EffectiveConfig(config)).await,
            // Nobody knows, or not yet: then nothing is said of it.
            Outcome::Installed(None) | Outcome::NoEffective => {}
        }
    }

    async fn tell(&mut self, input: Input<'_>) {
        // Only what comes from the application is refused, and only after a stop, which the client has refused already.
        let _ = self.session.handle(input, self.clock.now(), &mut self.out);
        loop {
            while let Some(output) = self.out.take() {
                self.perform(output).await;
            }
            if !std::mem::take(&mut self.not_saved) {
                return;
            }
            let _ = self.session.handle(Input::NotSaved, self.clock.now(), &mut self.out);
        }
    }

    async fn perform(&mut self, output: Output) {
        match output {
            Output::Abort => self.link = Link::None,
            Output::Apply(config) => {
                self.publish();
                self.lanes.apply(config);
            }
            Output::CancelPackages => self.lanes.cancel_packages(),
            Output::Close(code) => self.link.close(code),
            Output::Connect { endpoint } => {
                self.probe = None;
                self.link = Link::dial(&self.connector, endpoint);
            }
            Output::ConnectOffered(settings) => {
                self.probe = None;
                self.link = Link::dial_offered(self.offered.dial(settings));
            }
            Output::Connections(change) => {
                let examination = change.opamp.clone().map(|settings| self.offered.examine(settings));
                self.publish();
                self.lanes.connections(*change, examination);
            }
            Output::Custom(message) => {
                self.publish();
                self.lanes.custom(message);
            }
            Output::Event(event) => {
                // Who is told finds the client as it is told.
                self.publish();
                self.lanes.event(event);
            }
            Output::Persist => self.save().await,
            Output::Ping => self.link.ping(),
            Output::Probe { endpoint } => {
                let probe = Arc::clone(&self.connector).try_out(endpoint, Rigour::SomebodyIsThere);
                self.probe = Some(Box::pin(async move { probe.await.is_ok() }));
            }
            Output::ProbeOffered(settings) => self.probe = Some(self.offered.probe(settings)),
            Output::RequestCertificate(uid) => self.lanes.request_certificate(uid),
            Output::Restart => self.lanes.restart(),
            Output::Send => self.link.send(&self.session.uid(), self.out.message()),
            Output::SyncPackages(offer) => {
                self.publish();
                self.lanes.sync_packages(offer);
            }
        }
    }

    /// Saves before anything that builds on it leaves this process. A disk that does not answer does not take the agent
    /// with it.
    async fn save(&mut self) {
        self.unsaved = true;
        let mut too_late =
            self.clock.sleep_until(self.clock.now().mono + self.connector.settings.save_timeout);
        while self.unsaved {
            let mut saving = self.saving.take().unwrap_or_else(|| {
                self.unsaved = false;
                let (state, saved) = (Arc::clone(&self.state), self.session.saved());
                tokio::task::spawn_blocking(move || state.save(&saved))
            });
            tokio::select! {
                biased;
                result = &mut saving => self.tell_unsaved(result),
                () = &mut too_late => {
                    self.saving = Some(saving);
                    let why = "saving takes too long".to_owned();
                    self.not_saved = true;
                    return self.lanes.event(Event::StateNotSaved { why });
                }
            }
        }
    }

    fn tell_unsaved(&mut self, result: Result<Result<(), StateError>, JoinError>) {
        let why = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "saving failed in a way it should not".to_owned(),
        };
        self.not_saved = true;
        self.lanes.event(Event::StateNotSaved { why });
    }

    /// The wait for the session's deadline, made anew only when that has moved.
    fn set_alarm(&mut self) {
        let deadline = self.session.deadline();
        if self.alarm.as_ref().map(|(at, _)| *at) != deadline {
            self.alarm = deadline.map(|at| (at, self.clock.sleep_until(at)));
        }
    }

    fn publish(&mut self) {
        let now = self.clock.now().mono;
        let mut stats = self.session.stats(now);
        stats.events_dropped = self.lanes.events_dropped();
        stats.custom_dropped += self.lanes.custom_dropped();
        let (announced, theirs) = self.session.server_custom_capabilities();
        if announced != self.announced {
            self.announced = announced;
            self.shared.custom.announced(Arc::clone(theirs));
        }
        self.shared.publish(self.session.uid(), stats, now);
    }
}

async fn answer(probe: &mut Option<BoxFuture<'static, bool>>) -> bool {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

async fn ring(alarm: &mut Option<(Mono, BoxFuture<'static, ()>)>) {
    match alarm {
        Some((_, wait)) => wait.await,
        None => std::future::pending().await,
    }
}

async fn saved(
    saving: &mut Option<JoinHandle<Result<(), StateError>>>,
) -> Result<Result<(), StateError>, JoinError> {
    match saving {
        Some(saving) => saving.await,
        None => std::future::pending().await,
    }
}

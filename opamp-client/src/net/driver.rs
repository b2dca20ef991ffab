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
    state: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    probe: Option<BoxFuture<'static, bool>>,
    alarm: Option<(Mono, BoxFuture<'static, ()>)>,
    /// A save that takes its time. There is one at a time, or an older state could replace a newer one.
    saving: Option<JoinHandle<Result<(), StateError>>>,
    /// There is something newer than what is being saved.
    unsaved: bool,
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
        connector: Arc<Connector>,
        state: Arc<dyn StateStore>,
    ) -> Self {
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
            state,
            clock,
            probe: None,
            alarm: None,
            saving: None,
            unsaved: false,
        }
    }

    /// Runs until the agent has stopped.
    pub(crate) async fn run(self) {
        if AssertUnwindSafe(self.drive()).catch_unwind().await.is_err() {
            tracing::error!("the agent has stopped because of a mistake in this library; please report it");
        }
    }

    async fn drive(mut self) {
        // The first report is to be complete, so what is asked for it is waited for.
        let mut begun = !self.lanes.refresh();
        if begun {
            self.tell(Input::Start).await;
        }
        while !self.session.is_finished() {
            self.set_alarm();
            // In no fixed order, so that neither a busy application nor a busy server shuts the other out.
            tokio::select! {
                () = self.shared.changed() => self.take_pending().await,
                Some(outcome) = self.lanes.outcomes.recv() => {
                    self.take_outcome(outcome).await;
                    if !std::mem::replace(&mut begun, true) {
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
        }
        self.await_outcome().await;
        self.finish_saving().await;
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
        while self.session.is_applying() {
            tokio::select! {
                Some(outcome) = self.lanes.outcomes.recv() => self.take_outcome(outcome).await,
                () = &mut too_late => self.tell(Input::Abandoned).await,
            }
        }
    }

    async fn take_pending(&mut self) {
        let pending = self.shared.take();
        let told = [
            pending.description.map(Input::Describe),
            pending.effective.map(Input::EffectiveConfig),
            pending.health.map(Input::Health),
            pending.reconnect.then_some(Input::Reconnect),
            pending.stop.then_some(Input::Stop),
        ];
        if pending.refresh {
            self.lanes.refresh();
        }
        for input in told.into_iter().flatten() {
            self.tell(input).await;
        }
    }

    async fn take_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Config { hash, result, effective } => {
                self.tell(Input::ConfigOutcome { hash, result, effective }).await;
            }
            Outcome::Effective(config) => self.tell(Input::EffectiveConfig(config)).await,
            Outcome::NoEffective => {}
        }
    }

    async fn tell(&mut self, input: Input<'_>) {
        // Only what comes from the application is refused, and only after a stop, which the client has refused already.
        let _ = self.session.handle(input, self.clock.now(), &mut self.out);
        while let Some(output) = self.out.take() {
            self.perform(output).await;
        }
    }

    async fn perform(&mut self, output: Output) {
        match output {
            Output::Abort => self.link = Link::None,
            Output::Apply(config) => {
                self.publish();
                self.lanes.apply(config);
            }
            Output::Close(code) => self.link.close(code),
            Output::Connect { endpoint } => {
                self.probe = None;
                self.link = Link::dial(&self.connector, endpoint);
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
            Output::Restart => self.lanes.restart(),
            Output::Send => self.link.send(&self.session.uid(), self.out.message()),
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
                    return self.lanes.event(Event::StateNotSaved { why });
                }
            }
        }
    }

    fn tell_unsaved(&self, result: Result<Result<(), StateError>, JoinError>) {
        let why = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "saving failed in a way it should not".to_owned(),
        };
        self.lanes.event(Event::StateNotSaved { why });
    }

    /// The wait for the session's deadline, made anew only when that has moved.
    fn set_alarm(&mut self) {
        let deadline = self.session.deadline();
        if self.alarm.as_ref().map(|(at, _)| *at) != deadline {
            self.alarm = deadline.map(|at| (at, self.clock.sleep_until(at)));
        }
    }

    fn publish(&self) {
        let now = self.clock.now().mono;
        let mut stats = self.session.stats(now);
        stats.events_dropped = self.lanes.events_dropped();
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

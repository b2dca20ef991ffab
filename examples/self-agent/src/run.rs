//! The program: an agent, started anew whenever its server or its operator wants that.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::agent::{Agent, AgentError, Plan};
use crate::config::Config;
use crate::logging::LogLevel;
use crate::storage::{Storage, StorageError};

/// What an operator wants of a running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration file and certificates again.
    Reload,
    /// Say goodbye and end.
    Stop,
}

/// Why the program cannot go on.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RunError(#[from] Reason);

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("the agent ended although nobody asked it to")]
    Ended,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// How a run of an agent ends.
enum Next {
    Restart,
    Stop,
}

/// Everything that outlives a run of the agent.
struct Program<'a> {
    file: &'a Path,
    log: LogLevel,
    plan: Plan,
    storage: Arc<Storage>,
}

/// Runs an agent by a configuration file until it is ordered to stop. `log` follows `telemetry.logs.level`.
///
/// On a restart command the agent says goodbye, the file is read again, and an agent starts by it; a file that cannot
/// be used leaves the previous configuration in force, which shows in log and health. [`Order::Reload`] does the
/// same if the file says something new, and otherwise connects anew, with what certificates and tokens are now.
///
/// # Errors
///
/// [`RunError`] if it cannot start, or not start anew even with the previous configuration.
pub async fn run(file: &Path, log: LogLevel, orders: mpsc::Receiver<Order>) -> Result<(), RunError> {
    Ok(run_until_stopped(file, log, orders).await?)
}

/// Checks a configuration file and all files it names, and returns it.
///
/// # Errors
///
/// [`RunError`] with what cannot be used.
pub fn check(file: &Path) -> Result<Config, RunError> {
    let plan = Plan::read(file).map_err(|error| RunError(AgentError::from(error).into()))?;
    plan.check().map_err(|error| RunError(error.into()))?;
    Ok(plan.config)
}

async fn run_until_stopped(
    file: &Path,
    log: LogLevel,
    mut orders: mpsc::Receiver<Order>,
) -> Result<(), Reason> {
    let plan = Plan::read(file).map_err(AgentError::from)?;
    let storage = Arc::new(Storage::open(&plan.config.storage_directory)?);
    let mut program = Program { file, log, plan, storage };
    let (asked, mut restarts) = mpsc::channel(1);
    let mut agent = program.start(None, &asked).await?;
    loop {
        let next = program.serve(&agent, &mut orders, &mut restarts).await;
        if matches!(next, Ok(Next::Stop)) {
            tracing::info!("stopping: saying goodbye to the server");
        }
        agent.stop().await;
        if matches!(next?, Next::Stop) {
            tracing::info!("stopped");
            return Ok(());
        }
        // Whatever else is ordered meanwhile, the start does.
        tokio::select! {
            () = agent.release() => {}
            () = stop_ordered(&mut orders) => {
                tracing::info!("stopped");
                return Ok(());
            }
        }
        while let Ok(order) = orders.try_recv() {
            if order == Order::Stop {
                tracing::info!("stopped");
                return Ok(());
            }
        }
        agent = program.restart(&asked).await?;
        // Asked for before it was done.
        while restarts.try_recv().is_ok() {}
    }
}

impl Program<'_> {
    async fn start(&self, trouble: Option<String>, asked: &mpsc::Sender<()>) -> Result<Agent, AgentError> {
        Agent::start(&self.plan, &self.storage, &self.log, trouble, asked.clone()).await
    }

    /// Lets an agent run until something ends it.
    async fn serve(
        &self,
        agent: &Agent,
        orders: &mut mpsc::Receiver<Order>,
        restarts: &mut mpsc::Receiver<()>,
    ) -> Result<Next, Reason> {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Reload) => {
                        if self.reload(agent) {
                            return Ok(Next::Restart);
                        }
                    }
                    Some(Order::Stop) | None => return Ok(Next::Stop),
                },
                Some(()) = restarts.recv() => {
                    tracing::info!("the server wants this agent to restart");
                    return Ok(Next::Restart);
                }
                () = agent.client.stopped() => return Err(Reason::Ended),
            }
        }
    }

    /// Whether the file says something new.
    fn reload(&self, agent: &Agent) -> bool {
        match Plan::read(self.file) {
            Ok(plan) if plan.config != self.plan.config => {
                tracing::info!("the configuration file has changed; starting anew");
                return true;
            }
            Ok(_) => {
                tracing::info!("the configuration file has not changed; connecting anew");
                agent.live.file_read(None);
                // Only an agent that has stopped does not.
                let _ = agent.client.reconnect();
            }
            Err(error) => {
                let trouble = kept_previous(&error);
                agent.live.file_read(Some(trouble));
            }
        }
        false
    }

    /// Starts by the file as it is now, or by the previous configuration.
    async fn restart(&mut self, asked: &mpsc::Sender<()>) -> Result<Agent, Reason> {
        let previous = (self.plan.clone(), Arc::clone(&self.storage));
        let trouble = match self.start_anew(asked).await {
            Ok(agent) => return Ok(agent),
            Err(reason) => kept_previous(&reason),
        };
        (self.plan, self.storage) = previous;
        Ok(self.start(Some(trouble), asked).await?)
    }

    async fn start_anew(&mut self, asked: &mpsc::Sender<()>) -> Result<Agent, Reason> {
        let plan = Plan::read(self.file).map_err(AgentError::from)?;
        if !same_directory(&plan.config.storage_directory, &self.plan.config.storage_directory) {
            self.storage = Arc::new(Storage::open(&plan.config.storage_directory)?);
        }
        self.plan = plan;
        Ok(self.start(None, asked).await?)
    }
}

/// Ends when the agent is to stop for good.
async fn stop_ordered(orders: &mut mpsc::Receiver<Order>) {
    while let Some(Order::Reload) = orders.recv().await {}
}

/// Whether two names are of one directory.
fn same_directory(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    one == other || real(one).is_some_and(|one| real(other) == Some(one))
}

fn kept_previous(why: &dyn std::fmt::Display) -> String {
    tracing::error!(
        "the configuration file cannot be used, the previous configuration stays in force: {why}"
    );
    why.to_string()
}

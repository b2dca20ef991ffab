//! How the agent is: simple checks, made again and again, reported when they change.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opamp_client::{Client, Health};

use crate::connection::TokenFile;
use crate::live::Live;

/// The word for an agent that is up, well or not. It does not change with time, or every report would be news.
const RUNNING: &str = "running";

/// How often writing is tried at most: a file that is made durable wears a small machine's flash.
const WRITE_SPACING: Duration = Duration::from_secs(10);

/// Checks everything once. May block for as long as the disk does.
pub(crate) fn check(live: &Live) -> Health {
    let started = live.started;
    let component = |trouble: Option<String>| match trouble {
        None => Health::healthy(started),
        Some(why) => Health::unhealthy(started, why),
    };
    let troubles = live.troubles();
    let mut components =
        vec![("configuration", component(troubles.configuration)), ("storage", component(storage(live)))];
    if live.local.capabilities.remote_config {
        components.push(("remote_config", component(troubles.remote_config)));
    }
    if let Some(trouble) = credentials(live) {
        components.push(("credentials", component(trouble)));
    }
    Health::of_components(started, components).status(RUNNING)
}

/// Checks and reports until the agent stops.
pub(crate) async fn watch(live: Arc<Live>, client: Client) {
    let mut interval = live.interval();
    loop {
        let pause = *interval.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = interval.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let checked = Arc::clone(&live);
        let Ok(health) = tokio::task::spawn_blocking(move || check(&checked)).await else { return };
        tracing::debug!(healthy = health.is_healthy(), "health checked");
        if client.set_health(health).is_err() {
            return;
        }
    }
}

fn storage(live: &Live) -> Option<String> {
    let directory = live.storage.directory();
    live.writing.trouble(
        || Some(format!("{} cannot be written: {}", directory.display(), directory.metadata().err()?)),
        || Some(format!("{} cannot be written: {}", directory.display(), live.storage.probe().err()?)),
    )
}

/// The files this agent shows or trusts; outer `None` if there are none.
fn credentials(live: &Live) -> Option<Option<String>> {
    let server = &live.local.server;
    let identity = server.tls.identity.iter().flat_map(|(chain, key)| [chain, key]);
    let files: Vec<_> = server.tls.ca_file.iter().chain(identity).chain(&server.bearer_token_file).collect();
    if files.is_empty() {
        return None;
    }
    let unreadable = files.iter().find_map(|file| {
        let error = File::open(file).and_then(|file| file.metadata()).err()?;
        Some(format!("{} cannot be read: {error}", file.display()))
    });
    let unusable = || {
        let token = server.bearer_token_file.as_ref().and_then(|file| TokenFile(file.clone()).read().err());
        let tls = || {
            let error = live.tls.as_ref()?.check().err()?;
            Some(live.local.tls_error(&error).to_string())
        };
        token.or_else(tls)
    };
    Some(unreadable.or_else(|| live.credentials.trouble(&files, unusable)))
}

/// Whether the storage directory can be written, which is tried now and then.
#[derive(Debug, Default)]
pub(crate) struct Writing(Mutex<Option<(Instant, Option<String>)>>);

impl Writing {
    /// `look` costs nothing and is done each time; `attempt` writes.
    fn trouble(
        &self,
        look: impl FnOnce() -> Option<String>,
        attempt: impl FnOnce() -> Option<String>,
    ) -> Option<String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trouble) = look() {
            // Whatever was known is of a directory that is not there any more.
            *known = None;
            return Some(trouble);
        }
        if known.as_ref().is_none_or(|(tried, _)| tried.elapsed() >= WRITE_SPACING) {
            *known = Some((Instant::now(), attempt()));
        }
        known.as_ref().and_then(|(_, trouble)| trouble.clone())
    }
}

/// Whether files can be used, tried again only when they have changed. A connection made with what was there before
/// goes on, but the next start would fail.
#[derive(Debug, Default)]
pub(crate) struct CredentialFiles(Mutex<Option<(Vec<Stamp>, Option<String>)>>);

/// By what a changed file is noticed.
type Stamp = Option<(SystemTime, u64)>;

impl CredentialFiles {
    fn trouble(&self, files: &[&PathBuf], attempt: impl FnOnce() -> Option<String>) -> Option<String> {
        let stamp = |file: &&PathBuf| {
            let metadata = std::fs::metadata(file).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        let now: Vec<Stamp> = files.iter().map(stamp).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|(stamps, _)| *stamps != now) {
            *known = Some((now, attempt()));
        }
        known.as_ref().and_then(|(_, trouble)| trouble.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn writing_is_tried_now_and_then_and_a_lost_directory_shows_at_once() {
        let (writing, writes) = (Writing::default(), Cell::new(0));
        let attempt = || {
            writes.set(writes.get() + 1);
            None
        };
        for _ in 0..100 {
            assert_eq!(writing.trouble(|| None, attempt), None);
        }
        assert_eq!(writes.get(), 1);
        let lost = || Some("lost".to_owned());
        assert_eq!(writing.trouble(lost, attempt), lost());
        assert_eq!(
            (writing.trouble(|| None, attempt), writes.get()),
            (None, 2),
            "it is another directory now"
        );
        let full = || Some("full".to_owned());
        let long_ago = Instant::now().checked_sub(WRITE_SPACING).unwrap();
        *writing.0.lock().unwrap() = Some((long_ago, None));
        assert_eq!(writing.trouble(|| None, full), full(), "tried again after the spacing");
        assert_eq!(writing.trouble(|| None, attempt), full(), "and remembered");
    }
}

//! Fetching files: by GET, continued where it broke off, and never more than was agreed to.

mod answer;
mod settings;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use opamp_proto::Mono;
use sha2::{Digest as _, Sha256};

use self::answer::{Answer, Known};
pub use self::settings::DownloadSettings;
use super::files::FileSystem;
use super::offer::OfferedFile;
use super::status::DownloadDetails;
use crate::event::Transport;
use crate::net::clock::Clock;
use crate::net::connector::Connector;
use crate::net::credentials::Credentials;
use crate::net::endpoint::{Endpoint, with_path};
use crate::net::exchange;
use crate::net::polling;
use crate::net::proxy::Proxy;
use crate::net::settings::ClientSettings;
use crate::net::tls::TlsSource;
use crate::retry::Pace;

/// Written to disk at a time.
const WRITE_BYTES: usize = 256 << 10;
/// Read from disk at a time.
const READ_BYTES: usize = 64 << 10;
/// The longest note about a download that is read.
const NOTE_BYTES_MAX: u64 = 1 << 10;

/// Fetches files.
pub(super) struct Fetcher {
    connector: Connector,
    settings: DownloadSettings,
    clock: Arc<dyn Clock>,
    files: Arc<dyn FileSystem>,
    /// Held by what is done to the disk until it is done, also if nobody waits for it any more: a write that was given up on a
    /// slow disk must not reach a file that is being fetched anew, or has been verified.
    disk: Arc<tokio::sync::Mutex<()>>,
}

/// One file on its way.
struct Download<'a> {
    fetcher: &'a Fetcher,
    path: PathBuf,
    /// How much of it is on disk.
    have: u64,
    known: Known,
    /// Something was there before this began, or before the connection broke: it may not be of one piece.
    is_pieced: bool,
    pace: Pacing<'a>,
}

/// When to tell of progress.
struct Pacing<'a> {
    tell: &'a (dyn Fn(DownloadDetails) + Sync),
    last: Mono,
    had: u64,
}

/// Why an attempt brought nothing more.
enum Stop {
    Later(String, Option<Duration>),
    Never(String),
}

impl Fetcher {
    pub(super) fn new(
        settings: DownloadSettings,
        tls: Option<TlsSource>,
        proxy: Proxy,
        clock: Arc<dyn Clock>,
        files: Arc<dyn FileSystem>,
    ) -> Self {
        let connector = Connector {
            endpoints: Vec::new(),
            tls,
            proxy,
            credentials: Credentials::new(),
            settings: ClientSettings::default(),
            clock: Arc::clone(&clock),
        };
        Self { connector, settings, clock, files, disk: Arc::default() }
    }

    /// Fetches a file to a path, where the start of it may be already. Whether it came in one piece; if not, and it is not what
    /// it should be, another attempt from the beginning may do better. May be dropped where it waits.
    pub(super) async fn fetch(
        &self,
        file: &OfferedFile,
        path: &Path,
        tell: &(dyn Fn(DownloadDetails) + Sync),
    ) -> Result<bool, String> {
        let too_late = self.after(self.settings.total_timeout);
        let seconds = self.settings.total_timeout.as_secs();
        tokio::select! {
            fetched = self.to_the_end(file, path, tell) => fetched,
            () = too_late => Err(format!("the download did not end within {seconds} s")),
        }
    }

    /// Waits until nothing is written any more that was given up on; false if that takes longer than a download may. May be
    /// dropped where it waits.
    pub(super) async fn settled(&self) -> bool {
        let too_late = self.after(self.settings.total_timeout);
        tokio::select! {
            biased;
            _ = self.disk.lock() => true,
            () = too_late => false,
        }
    }

    /// Forgets what is there of a file.
    pub(super) async fn discard(&self, path: &Path) {
        let (files, paths) = (Arc::clone(&self.files), [path.to_owned(), note(path)]);
        let discarded = self.on_disk(move || paths.iter().try_for_each(|path| files.remove(path)));
        if let Err(error) = discarded.await {
            tracing::debug!(%error, path = %path.display(), "download stays");
        }
    }

    /// The SHA-256 of a file as it lies on disk.
    pub(super) async fn hash(&self, path: &Path) -> Result<[u8; 32], String> {
        let (files, path) = (Arc::clone(&self.files), path.to_owned());
        self.on_disk(move || {
            let mut reader = files.read(&path)?;
            let (mut hash, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => return Ok(hash.finalize().into()),
                    Ok(count) => hash.update(&buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        })
        .await
    }

    /// Does what blocks where that is allowed, when what was begun before is done.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let turn = Arc::clone(&self.disk).lock_owned().await;
        let work = move || {
            let _turn = turn;
            work()
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                Err(format!("the download cannot be kept: {error}; check permissions and free space"))
            }
            Err(_) => Err("the agent is ending".to_owned()),
        }
    }

    async fn to_the_end(
        &self,
        file: &OfferedFile,
        path: &Path,
        tell: &(dyn Fn(DownloadDetails) + Sync),
    ) -> Result<bool, String> {
        let (origin, credentials) = self.addressed(file)?;
        let mut download = Download::find(self, path, tell).await?;
        if download.have > 0 && download.known.total == Some(download.have) {
            // All of it came before, and whoever asked for it ended.
            return Ok(false);
        }
        let (mut fruitless, mut restarts) = (0, 0);
        loop {
            let had = download.have;
            let stop = match download.attempt(&origin, &credentials).await {
                Ok(true) => break,
                Ok(false) => {
                    restarts += 1;
                    if restarts > self.settings.restarts_max {
                        return Err("the server has another file each time it is asked".to_owned());
                    }
                    download.restart();
                    continue;
                }
                Err(stop) => stop,
            };
            let (why, after) = match stop {
                Stop::Later(why, after) => (why, after),
                Stop::Never(why) => return Err(why),
            };
            fruitless = if download.have > had { 0 } else { fruitless + 1 };
            if fruitless >= self.settings.fruitless_max.max(1) {
                return Err(format!("{why}; given up after {fruitless} attempts in a row without progress"));
            }
            tracing::debug!(%why, have = download.have, "download broke off");
            download.is_pieced = true;
            self.after(self.delay(fruitless, after)).await;
        }
        let (files, path) = (Arc::clone(&self.files), download.path.clone());
        self.on_disk(move || files.sync(&path)).await?;
        Ok(!download.is_pieced)
    }

    /// Where to ask, and with what.
    fn addressed(&self, file: &OfferedFile) -> Result<(Endpoint, Credentials), String> {
        // `Endpoint` knows where OpAMP servers are; files without a path are at the root.
        let url = with_path(file.url());
        let origin =
            Endpoint::parse(&url).map_err(|_| "the offered download_url is no usable URL".to_owned())?;
        if origin.transport != Transport::Http {
            return Err("the offered download_url is neither https nor http".to_owned());
        }
        if !origin.tls && !self.settings.allow_plain_http {
            return Err(format!("{origin} has no TLS, which this agent wants for downloads"));
        }
        let mut credentials = Credentials::new();
        for (name, value) in file.headers() {
            if [RANGE.as_str(), IF_RANGE.as_str()].iter().any(|own| own.eq_ignore_ascii_case(name)) {
                return Err(format!("the offered header {name} is set by the download itself"));
            }
            credentials.add(name, value).map_err(|error| format!("the offer cannot be used: {error}"))?;
        }
        Ok((origin, credentials))
    }

    fn delay(&self, fruitless: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.settings.retry_delay.saturating_mul(1 << fruitless.saturating_sub(1).min(16));
        asked.unwrap_or(doubled).max(self.settings.retry_delay).min(self.settings.retry_delay_max)
    }

    fn after(&self, wait: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(self.clock.now().mono + wait)
    }

    /// Waits for something that must not take longer than a connection may be silent.
    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Result<T, Stop> {
        let too_late = self.after(self.settings.idle_timeout);
        let seconds = self.settings.idle_timeout.as_secs();
        tokio::select! {
            biased;
            done = future => Ok(done),
            () = too_late => Err(Stop::Later(format!("the download server was silent for {seconds} s"), None)),
        }
    }
}

impl<'a> Download<'a> {
    /// What is there of it.
    async fn find(
        fetcher: &'a Fetcher,
        path: &Path,
        tell: &'a (dyn Fn(DownloadDetails) + Sync),
    ) -> Result<Self, String> {
        let (files, there) = (Arc::clone(&fetcher.files), path.to_owned());
        let reading = fetcher.on_disk(move || {
            let have = files.length(&there)?.unwrap_or(0);
            let mut text = String::new();
            let note = note(&there);
            if have > 0 && files.length(&note)?.is_some() {
                files.read(&note)?.take(NOTE_BYTES_MAX).read_to_string(&mut text)?;
            }
            Ok((have, Known::from_file(&text)))
        });
        let (have, known) = reading.await?;
        let pace = Pacing { tell, last: fetcher.clock.now().mono, had: have };
        // What is longer than allowed is of no use.
        let have = if have > fetcher.settings.file_bytes_max { 0 } else { have };
        Ok(Self { fetcher, path: path.to_owned(), have, known, is_pieced: have > 0, pace })
    }

    /// Nothing of what is there belongs to what the server has.
    fn restart(&mut self) {
        (self.have, self.known, self.is_pieced) = (0, Known::default(), false);
        self.pace.had = 0;
    }

    /// Asks for what is missing. Whether it is complete, or the server has another file than the one whose start is there.
    async fn attempt(&mut self, origin: &Endpoint, credentials: &Credentials) -> Result<bool, Stop> {
        let fetcher = self.fetcher;
        let mut seen = vec![origin.clone()];
        loop {
            let target = seen.last().unwrap_or(origin);
            let mut headers = if target.is_same_origin(origin) {
                credentials.headers().await.map_err(|failure| Stop::Never(failure.to_string()))?
            } else {
                credentials.public()
            };
            self.ask_for_the_rest(&mut headers);
            let answer = fetcher.in_time(ask(&fetcher.connector, target, headers)).await??;
            let (parts, body) = answer.response.into_parts();
            let now = fetcher.clock.now().wall;
            match answer::read(parts.status, &parts.headers, self.have, &self.known, now) {
                Answer::Content { from, total } => {
                    self.begin(from, Known::of(&parts.headers, total)).await?;
                    return self.take(body).await.map(|()| true);
                }
                Answer::Complete => return Ok(true),
                Answer::Anew => return Ok(false),
                Answer::Later(why, after) => return Err(Stop::Later(why, after)),
                Answer::Never(why) => return Err(Stop::Never(why)),
                Answer::Redirect(location) => {
                    let next = target.redirected(&with_path(&location)).map_err(Stop::Never)?;
                    if !next.tls && !fetcher.settings.allow_plain_http {
                        return Err(Stop::Never(format!(
                            "the download is redirected to {next}, which has no TLS"
                        )));
                    }
                    if seen.contains(&next) {
                        return Err(Stop::Never(format!("redirects lead in circles, back to {next}")));
                    }
                    let max = fetcher.settings.redirects_max;
                    if seen.len() > max as usize {
                        return Err(Stop::Never(format!(
                            "more than {max} redirects, the last one to {next}"
                        )));
                    }
                    seen.push(next);
                }
            }
        }
    }

    fn ask_for_the_rest(&self, headers: &mut HeaderMap) {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.have == 0 {
            return;
        }
        if let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.have)) {
            headers.insert(RANGE, range);
        }
        // Without a validator the rest is asked for all the same: the hash says whether it fits.
        if let Some(etag) = self.known.etag.as_deref().and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(IF_RANGE, etag);
        }
    }

    /// Notes what the server says of the file before anything of it is kept.
    async fn begin(&mut self, from: u64, mut known: Known) -> Result<(), Stop> {
        let max = self.fetcher.settings.file_bytes_max;
        if let Some(total) = known.total.filter(|total| *total > max) {
            return Err(Stop::Never(format!("the file has {total} bytes; this agent takes {max} at most")));
        }
        if from == 0 {
            // The server ignores ranges, or its file has changed.
            self.restart();
        } else {
            known = Known {
                etag: known.etag.or(self.known.etag.take()),
                total: known.total.or(self.known.total),
            };
        }
        if known == self.known && self.have > 0 {
            return Ok(());
        }
        self.known = known;
        let (files, path, note_path) = (Arc::clone(&self.fetcher.files), self.path.clone(), note(&self.path));
        let (have, text) = (self.have, self.known.to_file());
        let noted = self.fetcher.on_disk(move || {
            // First the start of another file goes, then what is said about it.
            files.append(&path, have, &[])?;
            files.write(&note_path, text.as_bytes())
        });
        noted.await.map_err(Stop::Never)
    }

    async fn take(&mut self, mut body: hyper::body::Incoming) -> Result<(), Stop> {
        let max = self.fetcher.settings.file_bytes_max;
        let mut waiting = Vec::new();
        let ended = loop {
            let frame = match self.fetcher.in_time(body.frame()).await {
                Ok(None) => break Ok(()),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    break Err(Stop::Later(format!("the download broke off: {error}"), None));
                }
                Err(silence) => break Err(silence),
            };
            let Ok(data) = frame.into_data() else { continue };
            let so_far = self.have + waiting.len() as u64 + data.len() as u64;
            if so_far > max {
                return Err(Stop::Never(format!(
                    "the file does not end; this agent takes {max} bytes at most"
                )));
            }
            waiting.extend_from_slice(&data);
            if waiting.len() >= WRITE_BYTES {
                self.write(std::mem::take(&mut waiting)).await?;
            }
            self.tell_of(so_far);
        };
        // What came before the end is kept, however it ended.
        self.write(waiting).await?;
        let short = self.known.total.filter(|total| self.have < *total);
        match (ended, short) {
            (Ok(()), Some(total)) => Err(Stop::Later(format!("{} of {total} bytes came", self.have), None)),
            (ended, _) => ended,
        }
    }

    async fn write(&mut self, data: Vec<u8>) -> Result<(), Stop> {
        if data.is_empty() {
            return Ok(());
        }
        let (files, path, have) = (Arc::clone(&self.fetcher.files), self.path.clone(), self.have);
        let length = data.len() as u64;
        let written = self.fetcher.on_disk(move || files.append(&path, have, &data));
        written.await.map_err(Stop::Never)?;
        self.have += length;
        Ok(())
    }

    fn tell_of(&mut self, so_far: u64) {
        let now = self.fetcher.clock.now().mono;
        let since = now - self.pace.last;
        if since < self.fetcher.settings.progress_interval {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "a percentage is no account")]
        let (part, whole) = (so_far as f64, self.known.total.map(|total| total as f64));
        #[allow(clippy::cast_precision_loss, reason = "a rate is no account")]
        let new = so_far.saturating_sub(self.pace.had) as f64;
        let percent = whole.filter(|whole| *whole > 0.0).map_or(0.0, |whole| part / whole * 100.0);
        (self.pace.tell)(DownloadDetails::new(percent, new / since.as_secs_f64()));
        (self.pace.last, self.pace.had) = (now, so_far);
    }
}

/// One request, without looking at what comes back.
async fn ask(connector: &Connector, target: &Endpoint, headers: HeaderMap) -> Result<exchange::Answer, Stop> {
    let stop = |failure: crate::failure::Failure| {
        let why = failure.to_string();
        match failure.kind.pace() {
            Pace::Usual | Pace::Throttled => Stop::Later(why, failure.retry_after),
            Pace::Slow => Stop::Never(why),
        }
    };
    let reached = connector.reach(target).await.map_err(stop)?;
    let request = polling::question(target, reached.through_proxy.as_ref(), headers).map_err(stop)?;
    exchange::ask(reached.io, request)
        .await
        .map_err(|error| Stop::Later(format!("the request failed: {error}"), None))
}

/// What is known about the file at a path stands beside it.
fn note(path: &Path) -> PathBuf {
    path.with_extension("note")
}

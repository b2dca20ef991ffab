//! Limits and habits of downloads.

use std::time::Duration;

/// Everything about downloads that can be set. Each file is fetched by itself, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct DownloadSettings {
    /// Whether addresses without TLS are taken. Default no: content is verified all the same, but whoever is on the way sees
    /// it and the headers offered with it.
    pub allow_plain_http: bool,
    /// Largest file, in bytes. Default 1 GiB. What is longer, or does not end, is given up there, so this is also what one
    /// package can take of the disk.
    pub file_bytes_max: u64,
    /// Silence after which a connection or an answer is given up. Default 30 s.
    pub idle_timeout: Duration,
    /// How long fetching one file may take altogether, with all attempts. Default 1 h.
    pub total_timeout: Duration,
    /// Attempts in a row that bring nothing new before a file is given up. Default 12, which with the pauses between them is
    /// about six minutes: a download server may be restarted or moved meanwhile. One that brings something begins a new count,
    /// so that a large file gets through a bad network; `total_timeout` ends that too.
    ///
    /// A package that was given up has failed, and the same offer does not try it again, see
    /// [`Installer`](crate::packages::Installer).
    pub fruitless_max: u32,
    /// Pause before another attempt. Default 1 s; each fruitless attempt doubles it, up to `retry_delay_max`.
    pub retry_delay: Duration,
    /// Longest pause before another attempt, also if the server asks for more. Default 60 s.
    pub retry_delay_max: Duration,
    /// Redirects followed for one request. Default 5.
    pub redirects_max: u32,
    /// How often a file is begun anew because the server has another one than before. Default 2.
    pub restarts_max: u32,
    /// Least distance of two reports of progress. Default 2 s. Changes of state are reported at once.
    pub progress_interval: Duration,
}

impl Default for DownloadSettings {
    fn default() -> Self {
        Self {
            allow_plain_http: false,
            file_bytes_max: 1 << 30,
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(3_600),
            fruitless_max: 12,
            retry_delay: Duration::from_secs(1),
            retry_delay_max: Duration::from_secs(60),
            redirects_max: 5,
            restarts_max: 2,
            progress_interval: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_server_may_be_away_for_minutes() {
        let settings = DownloadSettings::default();
        let pauses = (0..settings.fruitless_max - 1)
            .map(|fruitless| (settings.retry_delay * (1 << fruitless)).min(settings.retry_delay_max));
        let span: Duration = pauses.sum();
        assert!(span >= Duration::from_secs(300), "{span:?}");
        assert!(span < settings.total_timeout / 2, "{span:?}: a server that is gone is told of in time");
    }
}

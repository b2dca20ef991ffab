//! Limits and habits of the drivers.

use std::time::Duration;

use crate::session::SessionSettings;

/// Everything about a client that can be set beside where it connects and what it does.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientSettings {
    /// Intervals and limits of the conversation.
    pub session: SessionSettings,
    /// Largest message that is received, in bytes, after decompression. Default 64 MiB (R-WS-08, R-HTTP-19). A
    /// larger value lets the server make this process hold that much.
    pub receive_bytes_max: usize,
    /// Outgoing WebSocket messages are split into frames of this many payload bytes, 16 MiB at most. Default
    /// 4,096. Some gateways cut frames above 32 KB.
    pub frame_bytes: usize,
    /// Whether request bodies over HTTP are compressed with gzip (R-HTTP-12). Default no: not every server takes it.
    pub compress: bool,
    /// Smallest request body that is compressed. Default 1,024 bytes.
    pub compress_min_bytes: usize,
    /// Redirects followed one after the other. Default 5.
    pub redirects_max: u32,
    /// Events kept for a handler that is slow; the oldest are dropped, and counted. Default 256.
    pub events_kept: usize,
    /// How long applying one remote configuration, or one restart, may take. Then the handler is dropped where it waits;
    /// the configuration counts as failed, and the next command is taken. A handler that blocks cannot be dropped: the next
    /// configuration waits for it, as long as this, and then counts as failed too. The same holds for settings of connections,
    /// and for examining those of the connection to the server, which may read from a disk. Default 10 min.
    pub handler_timeout: Duration,
    /// How long the provider of the effective configuration may take. Then it is dropped where it waits, and the agent
    /// goes on with what it had. At the start nothing is reported before. Default 10 s.
    ///
    /// As long may those who install packages take at the start to say what is installed. They are not dropped then: the
    /// first report goes without packages, and what they say follows when they have ended.
    pub provider_timeout: Duration,
    /// How long saving the state may take before the agent goes on without. Default 5 s.
    pub save_timeout: Duration,
    /// Custom messages of one capability that wait for a handler that is slow; more are dropped, counted and told. Default
    /// 100.
    pub custom_kept: usize,
    /// Bytes of custom messages of one capability that wait for a handler that is slow; what is beyond is dropped, counted and
    /// told, and so is a single message that is larger. Default 16 MiB. A server can make this process hold that much for each
    /// capability, and one message beside that its handler is at.
    pub custom_kept_bytes: usize,
    /// How long the packages of one offer may take. Then the handler is dropped where it waits, and the offer counts as
    /// failed. Default 6 h: downloads may be large and lines slow, and handlers have timeouts of their own.
    pub package_timeout: Duration,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            session: SessionSettings::default(),
            receive_bytes_max: 64 << 20,
            frame_bytes: 4_096,
            compress: false,
            compress_min_bytes: 1_024,
            redirects_max: 5,
            events_kept: 256,
            handler_timeout: Duration::from_secs(600),
            provider_timeout: Duration::from_secs(10),
            save_timeout: Duration::from_secs(5),
            custom_kept: 100,
            custom_kept_bytes: 16 << 20,
            package_timeout: Duration::from_secs(6 * 3600),
        }
    }
}

//! What happens to a session.

use std::fmt;

use opamp_proto::ConfigHash;

use crate::components::Components;
use crate::config::{EffectiveConfig, Rejected};
use crate::connection::{CertificateSigningRequest, Signal};
use crate::custom::CustomMessage;
use crate::description::Description;
use crate::failure::Failure;
use crate::health::Health;
use crate::packages::{PackageStatuses, PackagesRejected};

/// What happens to a session.
#[non_exhaustive]
pub enum Input<'a> {
    /// The agent ends in good order, and what it was applying has not come to an end in time; not held against the
    /// configuration.
    Abandoned,
    /// A sign of life of the server that is no message: a ping or pong.
    Alive,
    /// What is built into the agent. From the first one on the agent reports it.
    AvailableComponents(Components),
    /// What became of [`Output::RequestCertificate`](super::Output::RequestCertificate).
    CertificateRequest(Result<CertificateSigningRequest, Rejected>),
    /// The server ended the WebSocket, with the code and text of its Close frame if it sent one; or it answered ours.
    Closed {
        /// The code.
        code: Option<u16>,
        /// The text.
        reason: String,
    },
    /// What became of the configuration of [`Output::Apply`](super::Output::Apply).
    ConfigOutcome {
        /// Its hash.
        hash: ConfigHash,
        /// Whether it is in use now.
        result: Result<(), Rejected>,
        /// The configuration that is in use now, if that is reported.
        effective: Option<EffectiveConfig>,
    },
    /// The connection of [`Output::Connect`](super::Output::Connect) or
    /// [`Output::ConnectOffered`](super::Output::ConnectOffered) stands.
    Connected,
    /// What became of the connections of [`Output::Connections`](super::Output::Connections).
    ConnectionsOutcome {
        /// The hash of the offer.
        hash: ConfigHash,
        /// What is no good and why, by its field in the offer: `opamp`, `own_metrics`, `own_traces`, `own_logs`, or
        /// `other_connections[name]`. What is not named here is in use, or for `opamp` fit to be tried.
        failed: Vec<(ConnectionPart, Rejected)>,
    },
    /// Send this custom message when the server can have it. What [`Session::check_custom`](super::Session::check_custom)
    /// refuses is dropped.
    Custom(CustomMessage),
    /// The custom capabilities of this agent. From the first time on they are announced; none is a change too (R-CUST-03).
    CustomCapabilities(Vec<String>),
    /// The agent describes itself anew.
    Describe(Description),
    /// The configuration that is in use. From the first one on the agent reports it.
    EffectiveConfig(EffectiveConfig),
    /// Connecting failed, or the connection or exchange did.
    Failed(Failure),
    /// How the agent is. From the first one on the agent reports it.
    Health(Health),
    /// What [`Output::Persist`](super::Output::Persist) asked for could not be done.
    NotSaved,
    /// How far packages are: the first time what is installed at the start, then what the application tells while it works
    /// on [`Output::SyncPackages`](super::Output::SyncPackages). Always all packages; the newest counts.
    PackageStatuses(PackageStatuses),
    /// What became of the offer of [`Output::SyncPackages`](super::Output::SyncPackages) as a whole.
    PackagesOutcome {
        /// The hash of the offer.
        hash: ConfigHash,
        /// Whether it could be processed.
        result: Result<(), PackagesRejected>,
    },
    /// Whether the endpoint of [`Output::Probe`](super::Output::Probe) can be connected to.
    Probed(bool),
    /// The content of one binary WebSocket message, or the body of an answer with a status of success.
    Received(&'a [u8]),
    /// Leave the server in good order and connect anew.
    Reconnect,
    /// Ask the server for a client certificate, as soon as it can be asked.
    RequestCertificate,
    /// The settings that were accepted earlier make no connection on this machine any more. To be told before
    /// [`Input::Start`].
    SettingsUnusable(Rejected),
    /// Begin.
    Start,
    /// Leave the server in good order and end.
    Stop,
    /// [`Session::deadline`](super::Session::deadline) has passed.
    Tick,
    /// The WebSocket carried something that makes it unusable.
    Unusable(Unusable),
    /// The WebSocket message of [`Output::Send`](super::Output::Send) was written completely.
    Written,
}

/// Shows what happened; of bytes only how many there are, because of what may be in them.
impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned => f.write_str("Abandoned"),
            Self::Alive => f.write_str("Alive"),
            Self::AvailableComponents(_) => f.write_str("AvailableComponents"),
            Self::CertificateRequest(result) => write!(f, "CertificateRequest({result:?})"),
            Self::Closed { code, reason } => write!(f, "Closed({code:?}, {reason:?})"),
            Self::ConfigOutcome { hash, result, .. } => write!(f, "ConfigOutcome({hash:?}, {result:?})"),
            Self::Connected => f.write_str("Connected"),
            Self::ConnectionsOutcome { hash, failed } => {
                write!(f, "ConnectionsOutcome({hash:?}, {failed:?})")
            }
            Self::Custom(message) => write!(f, "Custom({message:?})"),
            Self::CustomCapabilities(names) => write!(f, "CustomCapabilities({names:?})"),
            Self::Describe(description) => write!(f, "Describe({description:?})"),
            Self::EffectiveConfig(config) => write!(f, "EffectiveConfig({config:?})"),
            Self::Failed(failure) => write!(f, "Failed({failure:?})"),
            Self::Health(health) => write!(f, "Health({health:?})"),
            Self::NotSaved => f.write_str("NotSaved"),
            Self::PackageStatuses(statuses) => write!(f, "PackageStatuses({statuses:?})"),
            Self::PackagesOutcome { hash, result } => write!(f, "PackagesOutcome({hash:?}, {result:?})"),
            Self::Probed(reachable) => write!(f, "Probed({reachable})"),
            Self::Received(bytes) => write!(f, "Received({} bytes)", bytes.len()),
            Self::Reconnect => f.write_str("Reconnect"),
            Self::RequestCertificate => f.write_str("RequestCertificate"),
            Self::SettingsUnusable(why) => write!(f, "SettingsUnusable({why:?})"),
            Self::Start => f.write_str("Start"),
            Self::Stop => f.write_str("Stop"),
            Self::Tick => f.write_str("Tick"),
            Self::Unusable(what) => write!(f, "Unusable({what:?})"),
            Self::Written => f.write_str("Written"),
        }
    }
}

/// A part of an offer of connection settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionPart {
    /// `opamp`.
    Opamp,
    /// `other_connections`, the one of this name.
    Other(String),
    /// `own_metrics`, `own_traces` or `own_logs`.
    Own(Signal),
}

impl fmt::Display for ConnectionPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opamp => f.write_str("opamp"),
            Self::Other(name) => write!(f, "other_connections[{name:?}]"),
            Self::Own(signal) => f.write_str(signal.as_str()),
        }
    }
}

/// What makes a WebSocket, or an answer over HTTP, unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// A message above the receive limit; nothing of it was kept (R-WS-13, R-HTTP-24).
    Oversize {
        /// The limit in bytes.
        limit: usize,
    },
    /// A text message, which OpAMP does not use (R-WS-01).
    Text,
    /// A violation of RFC 6455.
    Violation(String),
}

/// The agent was stopped: what it is told now would never be reported. Start a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent was stopped; this is not reported any more")]
pub struct Stopped;

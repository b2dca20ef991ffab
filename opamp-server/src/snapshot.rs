//! What the server knows of an agent, as values that leave it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::BitOr;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentCapabilities, ConfigHash, InstanceUid, Part, PartSet, SequenceNum, Wall, pb};
use prost::Message as _;

use crate::desired::Desired;
use crate::refusal::RefusalReason;
use crate::reported::ReportedState;

/// Liveness of an agent the server has a session for.
///
/// `expired` and `never_seen` belong to the inventory, which knows agents the server has no session for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// There is a connection, or polls arrive in time.
    Connected,
    /// The connection is open or polls were expected, but there was no sign of life for the stale threshold.
    Stale,
    /// The connection is closed, or polls have ceased.
    Disconnected,
}

/// Why an agent is disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The transport ended without `agent_disconnect`.
    Closed,
    /// The server met an internal error.
    Error,
    /// The agent said `agent_disconnect` (R-LIFE-08).
    Graceful,
    /// The server refused what the peer sent.
    Refused(RefusalReason),
    /// Another connection took over this agent.
    Replaced,
    /// The application asked for it.
    Requested,
    /// The server shut down.
    ServerShutdown,
    /// Nothing was heard, or nothing could be written, within the deadline.
    Timeout,
}

impl DisconnectReason {
    /// The reason as API value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Error => "error",
            Self::Graceful => "graceful",
            Self::Refused(_) => "refused",
            Self::Replaced => "replaced",
            Self::Requested => "requested",
            Self::ServerShutdown => "server_shutdown",
            Self::Timeout => "timeout",
        }
    }

    /// Whether the agent itself said good-bye.
    pub const fn is_graceful(self) -> bool {
        matches!(self, Self::Graceful)
    }
}

/// How an agent is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Plain HTTP polling.
    Http,
    /// WebSocket.
    WebSocket,
}

impl Transport {
    /// The transport as API value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::WebSocket => "websocket",
        }
    }
}

/// Who authenticated a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// By what means.
    pub kind: PrincipalKind,
    /// The name the authenticator gave: token name, certificate identity, …; empty if anonymous.
    pub id: String,
}

impl Principal {
    /// Who it is, unless it is nobody in particular.
    #[cfg(feature = "net")]
    pub(crate) fn named(&self) -> Option<String> {
        (self.kind != PrincipalKind::Anonymous).then(|| self.to_string())
    }

    /// Nobody in particular: authentication is off.
    pub const fn anonymous() -> Self {
        Self { kind: PrincipalKind::Anonymous, id: String::new() }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            PrincipalKind::Anonymous => f.write_str("anonymous"),
            kind => write!(f, "{}:{}", kind.as_str(), self.id),
        }
    }
}

/// By what means a connection was authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// Not at all.
    Anonymous,
    /// By a verified client certificate.
    Certificate,
    /// By something of the application's own.
    Custom,
    /// By a bearer token.
    Token,
}

impl PrincipalKind {
    /// The kind as API value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Certificate => "certificate",
            Self::Custom => "custom",
            Self::Token => "token",
        }
    }
}

/// One connection, or one run of polls that the server treats as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Grows with every connection of this process.
    pub id: u64,
    /// How the agent is attached.
    pub transport: Transport,
    /// Where it comes from, if the transport told.
    pub remote_addr: Option<SocketAddr>,
    /// Who authenticated it.
    pub principal: Principal,
    /// When it began.
    pub connected_at: Wall,
}

/// What an agent reported of its remote configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfigReport {
    /// `last_remote_config_hash`, verbatim.
    pub hash: ConfigHash,
    /// A value of [`opamp_proto::pb::RemoteConfigStatuses`]; unknown numbers are kept.
    pub status: i32,
    /// Error text, bounded by `Limits::string_bytes_max`.
    pub error: String,
}

/// What an agent reported of its connection settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSettingsReport {
    /// `last_connection_settings_hash`, verbatim.
    pub hash: ConfigHash,
    /// A value of [`opamp_proto::pb::ConnectionSettingsStatuses`]; unknown numbers are kept.
    pub status: i32,
    /// Error text, bounded by `Limits::string_bytes_max`.
    pub error: String,
}

/// What an agent reported of its packages as a whole. The single ones are in its state, under
/// [`Part::PackageStatuses`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackagesReport {
    /// `server_provided_all_packages_hash`, verbatim.
    pub hash: ConfigHash,
    /// Where the packages stand together.
    pub state: PackagesState,
    /// What went wrong: with the offer as a whole, or else with the first package that failed, behind its name.
    pub error: String,
}

/// Where the packages of one agent stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PackagesState {
    /// The offer could not be processed, or nothing is being worked on any more and at least one package failed to install.
    Failed,
    /// Every package reported is installed, and is what was offered.
    Installed,
    /// At least one package waits, is being downloaded or installed, or is not yet what was offered.
    Pending,
}

/// A failure that a newest-wins view would hide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureFact {
    /// The hash of the offer that failed.
    pub hash: ConfigHash,
    /// The agent's words.
    pub error: String,
    /// When the report arrived.
    pub at: Wall,
}

/// One kind of offer to one agent: what it was offered, and what it says about that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferFacts<R> {
    /// Generation of the desired state the session works with.
    pub generation: u64,
    /// What is desired, if it was offered since it was desired, and when last.
    pub offered: Option<(ConfigHash, Wall)>,
    /// What the agent reported last.
    pub report: Option<R>,
    /// The agent reported FAILED for what is desired, which is not offered again before the generation changes.
    pub failed: bool,
    /// The offer that is due exceeds the send limit, so that it is never sent.
    pub too_large: bool,
    /// The last failure reported.
    pub last_failure: Option<FailureFact>,
    /// The last success reported: the hash, and when.
    pub last_applied: Option<(ConfigHash, Wall)>,
}

impl<R> Default for OfferFacts<R> {
    fn default() -> Self {
        Self {
            generation: 0,
            offered: None,
            report: None,
            failed: false,
            too_large: false,
            last_failure: None,
            last_applied: None,
        }
    }
}

/// Facts that only grow: what a snapshot of the newest state would lose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StickyFacts {
    /// Connections attached.
    pub connects: u32,
    /// Connections lost, gracefully or not.
    pub disconnects: u32,
    /// Gaps seen in `sequence_num`.
    pub gaps: u32,
    /// Times the agent's `start_time_unix_nano` moved: restarts.
    pub start_time_changes: u32,
    /// Times the server asked for full state.
    pub full_state_requests: u32,
    /// Parts ignored because their capability was not announced.
    pub ignored_parts: u32,
    /// Messages of somebody else under this agent's `instance_uid` (R-ID-14).
    pub uid_conflicts: u32,
    /// When the last of them came, to the minute: what follows within one is counted only.
    pub last_uid_conflict: Option<Wall>,
    /// Custom messages to it that were accepted for sending and dropped because its connection ended before.
    pub custom_undelivered: u32,
}

/// Position of a compressible status part in tables of eight, in the order of [`Part::ALL`].
pub(crate) const fn status_index(part: Part) -> Option<usize> {
    Some(match part {
        Part::AgentDescription => 0,
        Part::Health => 1,
        Part::EffectiveConfig => 2,
        Part::RemoteConfigStatus => 3,
        Part::PackageStatuses => 4,
        Part::CustomCapabilities => 5,
        Part::AvailableComponents => 6,
        Part::ConnectionSettingsStatus => 7,
        Part::AgentDisconnect | Part::ConnectionSettingsRequest | Part::CustomMessage => return None,
    })
}

/// Everything the server knows of one agent at one moment.
#[derive(Clone, Debug)]
pub struct AgentSnapshot {
    /// The agent's current identity on the wire.
    pub uid: InstanceUid,
    /// Whether it is there.
    pub liveness: Liveness,
    /// Why and since when it is not, if it is disconnected.
    pub disconnect: Option<(DisconnectReason, Wall)>,
    /// The connection it has, or had last: shared with the session, and never changed.
    pub connection: Option<Arc<ConnectionInfo>>,
    /// Capabilities it announced, unknown bits kept.
    pub capabilities: AgentCapabilities,
    /// The last `sequence_num`, if any message was seen.
    pub sequence_num: SequenceNum,
    /// Last sign of life.
    pub last_seen: Wall,
    /// Its status, encoded.
    pub state: ReportedState,
    /// Its remote configuration.
    pub remote_config: OfferFacts<RemoteConfigReport>,
    /// Its connection settings.
    pub connection_settings: OfferFacts<ConnectionSettingsReport>,
    /// Its packages.
    pub packages: OfferFacts<PackagesReport>,
    /// Its components in full, as an encoded `AvailableComponents`: those it reported, or those known under the hash it
    /// reported (R-COMP-09).
    pub components: Option<Bytes>,
    /// Facts that only grow.
    pub sticky: StickyFacts,
    /// Parts of the last status message that were ignored for want of their capability.
    pub ignored: PartSet,
}

impl AgentSnapshot {
    /// The custom capabilities the agent announced last (R-CUST-03).
    pub fn custom_capabilities(&self) -> Vec<String> {
        let announced = self.state.part(Part::CustomCapabilities).cloned();
        let decoded = announced.and_then(|bytes| pb::CustomCapabilities::decode(bytes).ok());
        decoded.map(|list| list.capabilities).unwrap_or_default()
    }
}

/// An agent's snapshot together with what changed materially since the last one that was delivered.
#[derive(Clone, Debug)]
pub struct AgentChange {
    /// The state now.
    pub snapshot: AgentSnapshot,
    /// Status parts that changed materially.
    pub changed: PartSet,
    /// Other facts that changed.
    pub facts: ChangedFacts,
    /// The identity before, if it was reassigned since (R-ID-11).
    pub previous_uid: Option<InstanceUid>,
}

/// Which facts beside the status parts changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangedFacts(u16);

impl ChangedFacts {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// A connection was attached or lost.
    pub const CONNECTION: Self = Self(1);
    /// Connected, stale or disconnected.
    pub const LIVENESS: Self = Self(1 << 1);
    /// The announced capabilities.
    pub const CAPABILITIES: Self = Self(1 << 2);
    /// The identity.
    pub const UID: Self = Self(1 << 3);
    /// Something was offered, or turned out too large to be.
    pub const OFFER: Self = Self(1 << 4);
    /// The remote config status.
    pub const REMOTE_CONFIG: Self = Self(1 << 5);
    /// One of the sticky facts.
    pub const STICKY: Self = Self(1 << 6);
    /// The connection settings status.
    pub const CONNECTION_SETTINGS: Self = Self(1 << 7);
    /// The package statuses, as far as they are summed up in [`PackagesReport`].
    pub const PACKAGES: Self = Self(1 << 8);
    /// The full list of components became known.
    pub const COMPONENTS: Self = Self(1 << 9);

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing changed.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitOr for ChangedFacts {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is known of an agent from an earlier process, so that it need not be asked again.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Its identity on the wire.
    pub uid: InstanceUid,
    /// The checkpointed sequence number; none if it was never seen.
    pub sequence_num: Option<SequenceNum>,
    /// Capabilities it announced last.
    pub capabilities: AgentCapabilities,
    /// The checkpointed last sign of life.
    pub last_seen: Wall,
    /// Status parts the application holds.
    pub known: PartSet,
    /// Material digests ([`opamp_proto::material::digest`]) of those parts, so that an equal report is no change.
    pub digests: Vec<(Part, u64)>,
    /// What was with its remote configuration.
    pub remote_config: OfferSeed<RemoteConfigReport>,
    /// What was with its connection settings.
    pub connection_settings: OfferSeed<ConnectionSettingsReport>,
    /// What was with its packages.
    pub packages: OfferSeed<PackagesReport>,
    /// Facts that only grow, continued.
    pub sticky: StickyFacts,
    /// What it should have.
    pub desired: Desired,
    /// The encoded `CustomCapabilities` it announced last: it does not repeat them while they are unchanged.
    pub custom_capabilities: Option<Bytes>,
    /// Its components in full, as an encoded `AvailableComponents`. They go into the server's cache, so that neither this agent
    /// nor another of its build is asked again (R-COMP-09).
    pub components: Option<Bytes>,
    /// `ComponentHealth.start_time_unix_nano` of its last report, 0 if unknown.
    pub start_time_unix_nano: u64,
    /// Who authenticated its last connection.
    pub principal: Option<Principal>,
    /// Why it was disconnected, if that is known.
    pub disconnect: Option<(DisconnectReason, Wall)>,
}

/// What is known of one kind of offer from an earlier process.
#[derive(Clone, Debug)]
pub struct OfferSeed<R> {
    /// What the agent reported last.
    pub report: Option<R>,
    /// The last offer made. If it is the one that is desired, an agent that reports nothing about it is not offered the same
    /// again.
    pub offered: Option<OfferedBefore>,
    /// The agent reported FAILED for what is desired since it was desired: it is not offered again until the desired
    /// generation changes.
    pub failed: bool,
    /// The last failure reported.
    pub last_failure: Option<FailureFact>,
    /// The last success reported.
    pub last_applied: Option<(ConfigHash, Wall)>,
}

/// An offer an earlier process made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedBefore {
    /// Its hash.
    pub hash: ConfigHash,
    /// The generation it was offered in.
    pub generation: u64,
}

impl<R> Default for OfferSeed<R> {
    fn default() -> Self {
        Self { report: None, offered: None, failed: false, last_failure: None, last_applied: None }
    }
}

impl Seed {
    /// An agent of which no more is known than that it is to be expected.
    pub fn new(uid: InstanceUid) -> Self {
        Self {
            uid,
            sequence_num: None,
            capabilities: AgentCapabilities::NONE,
            last_seen: Wall(0),
            known: PartSet::NONE,
            digests: Vec::new(),
            remote_config: OfferSeed::default(),
            connection_settings: OfferSeed::default(),
            packages: OfferSeed::default(),
            sticky: StickyFacts::default(),
            desired: Desired::default(),
            custom_capabilities: None,
            components: None,
            start_time_unix_nano: 0,
            principal: None,
            disconnect: None,
        }
    }
}

/// Where an agent's conversation stands; kept so that a restart needs no full state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The agent.
    pub uid: InstanceUid,
    /// Its last sequence number.
    pub sequence_num: SequenceNum,
    /// Its last sign of life.
    pub last_seen: Wall,
}

/// Where a change of desired state went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// The agent polls; it gets the change with its next answer (R-HTTP-03).
    NextPoll,
    /// There is no session; the desired state waits for the agent.
    NoSession,
    /// There is a socket, and its task was woken (R-WS-23).
    Pushed,
}

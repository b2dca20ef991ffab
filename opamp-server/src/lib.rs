//! The server side of OpAMP (Open Agent Management Protocol).
//!
//! - [`session`]: one agent's conversation as a plain struct: events in, messages out; no IO, no clock.
//! - [`capability`]: the gating matrix, and permits without which an offer does not compile.
//! - [`refusal`]: what is refused, why, and how that shows on the wire.
//! - With feature `net` (default): both transports behind one `tower::Service`, authentication, dispatch, `serve`.
//!
//! Credentials and bodies of configurations are in no log of this crate. The WebSocket library below it writes whole frames
//! to the `log` facade at level TRACE: keep its target `tungstenite` at INFO where that is collected.
//!
//! Storage, inventory and rollouts are not this crate's: it takes what each agent should have
//! ([`Desired`]) and tells what each agent reports ([`AgentChange`]).

pub mod capability;
mod custom;
mod desired;
pub mod refusal;
pub mod reply;
mod reported;
pub mod session;
mod snapshot;

pub use custom::{CustomCapabilities, CustomError, CustomMessage, QueueBound};
pub use desired::{
    ConnectionSettingsOffer, DEFAULT_HEARTBEAT_INTERVAL_S, Desired, InvalidOffer, OfferRules, PackagesOffer,
    RemoteConfigOffer, SettingsParts, Target,
};
pub use refusal::RefusalReason;
pub use reported::ReportedState;
pub use snapshot::{
    AgentChange, AgentSnapshot, ChangedFacts, Checkpoint, ConnectionInfo, ConnectionSettingsReport,
    DisconnectReason, Dispatch, FailureFact, Liveness, OfferFacts, OfferSeed, OfferedBefore, PackagesReport,
    PackagesState, Principal, PrincipalKind, RemoteConfigReport, Seed, StickyFacts, Transport,
};

#[cfg(feature = "net")]
mod net;
#[cfg(feature = "net")]
pub use net::{
    admission::stats::{
        AdmissionStage, AdmissionStats, BufferedStats, DrainProgress, FLEET_RETURN_PERCENT, FleetReturn,
        QUEUE_WAIT_BOUNDS_S, SlowPeer,
    },
    auth::{
        AnyOf, AuthRequest, Authenticate, Denied, DeniedReason, InsecureAcceptEveryone, MutualTls,
        StaticToken, StaticTokens,
    },
    builder::{Builder, DEFAULT_PATH, OpampServer},
    certificates::{CertificateRefused, CertificateRequest, IssueCertificate},
    changes::{Event, Events, ReceivedCustom, Refusal},
    clock::{Clock, SystemClock, TokioClock},
    driver::Driver,
    handle::{CommandError, ServerHandle},
    network::{Network, NetworkError},
    peer::PeerInfo,
    serve::{serve, serve_with},
    service::OpampService,
    settings::{DuplicateSettings, FrameReader, OtherCredential, SameCredential, ServerSettings},
    stats::{Histogram, Stats, WEBSOCKET_DURATION_BOUNDS_S},
    throttle::Throttle,
    tls::TlsSource,
};

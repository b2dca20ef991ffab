//! The agent side of OpAMP (Open Agent Management Protocol): makes any program a well-behaved agent.
//!
#![cfg_attr(feature = "net", doc = "```no_run")]
#![cfg_attr(not(feature = "net"), doc = "```ignore")]
//! use opamp_client::{
//!     Client, Clock as _, Description, EffectiveConfig, FileState, Health, Rejected, RemoteConfig, SystemClock,
//! };
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let description = Description::new("com.example.agent").version("1.0.0");
//!     let client = Client::builder("ws://127.0.0.1:4320/v1/opamp", description)
//!         .state(FileState::new("/var/lib/example/opamp-state"))
//!         .health(Health::healthy(SystemClock::new().now().wall))
//!         .effective_config(|| async { EffectiveConfig::single(std::fs::read("agent.yaml").unwrap_or_default()) })
//!         .on_remote_config(|config: RemoteConfig, _| async move {
//!             let body = config.single().ok_or("this agent has a single file")?;
//!             std::fs::write("agent.yaml", body).map_err(|error| Rejected::new(error.to_string()))
//!         })
//!         .on_restart(|client: Client| async move { client.stop() })
//!         .start()?;
//!     client.stopped().await; // heartbeats, reconnects and reports happen by themselves
//!     Ok(())
//! }
//! ```
//!
//! | subject | where |
//! |---|---|
//! | running an agent | [`Client`], [`Builder`], [`ClientSettings`] |
//! | what it reports | [`Description`], [`Health`], [`EffectiveConfig`], [`Components`] |
//! | what it takes | [`RemoteConfigHandler`], [`RestartHandler`], [`EffectiveConfigProvider`] |
//! | connections that the server sets | [`connection`], [`OwnTelemetryHandler`], [`OtherConnectionsHandler`], [`CertificateRequester`] |
//! | what goes beyond the protocol | [`CustomMessage`], [`CustomMessageHandler`] |
//! | what it is told | [`EventHandler`], [`Event`], [`Failure`] |
//! | reaching the server | [`TlsSource`], [`Proxy`], [`TokenSource`] |
//! | what it keeps | [`StateStore`], [`FileState`] |
//! | packages | [`packages`] |
//! | one conversation as a plain struct, without IO or clock | [`session`] |
//! | when to try again | [`retry`] |
//!
//! Without the feature `net` (on by default) the last two remain, with the types they use, and neither tokio nor a clock
//! nor a source of randomness. The feature `native-roots` adds trust in the certificate authorities of the operating
//! system; `csr` adds a requester of client certificates; `packages` adds an installer that downloads and verifies them.
//!
//! Credentials and bodies of configurations are in no log of this crate. The WebSocket library below it writes whole frames
//! to the `log` facade at level TRACE: keep its target `tungstenite` at INFO where that is collected.
//!
//! # Capabilities follow from what is installed
//!
//! There is no way to announce what an agent does not do. An agent without a description does not compile:
//!
//! ```compile_fail
//! opamp_client::Client::builder("ws://127.0.0.1:4320").start();
//! ```
//!
//! Neither does one that reports an effective configuration nobody provides,
//!
//! ```compile_fail
//! use opamp_client::{Client, Description};
//! Client::builder("ws://127.0.0.1:4320", Description::new("com.example.agent")).effective_config().start();
//! ```
//!
//! one that takes remote configurations and does not say what became of them,
//!
//! ```compile_fail
//! use opamp_client::{Client, Description, RemoteConfig};
//! Client::builder("ws://127.0.0.1:4320", Description::new("com.example.agent"))
//!     .on_remote_config(|_: RemoteConfig, _: Client| async {})
//!     .start();
//! ```
//!
//! one that claims to restart without knowing how,
//!
//! ```compile_fail
//! use opamp_client::{Client, Description};
//! Client::builder("ws://127.0.0.1:4320", Description::new("com.example.agent")).on_restart(true).start();
//! ```
//!
//! or health that is bad for no reason.
//!
//! ```compile_fail
//! opamp_client::Health::unhealthy(opamp_client::Wall(0));
//! ```

// Half of what is linked to does not exist without the drivers.
#![cfg_attr(not(feature = "net"), allow(rustdoc::broken_intra_doc_links))]

mod components;
mod config;
pub mod connection;
mod custom;
mod description;
mod event;
mod failure;
mod health;
pub mod packages;
pub mod retry;
mod saved;
pub mod session;
mod stats;

pub use components::{Component, Components};
pub use config::{ConfigFile, EffectiveConfig, Rejected, RemoteConfig};
pub use custom::{CustomCapabilityError, CustomMessage, SendCustomError};
pub use description::{AttributeValue, Description};
pub use event::{DisconnectCause, Event, ServerErrorKind, ServerFault, Transport};
pub use failure::{Failure, FailureKind, TlsProblem};
pub use health::Health;
pub use opamp_proto::{ConfigHash, InstanceUid, Mono, Now, SequenceNum, Wall};
pub use saved::{Forgetful, OfferStatus, SavedConnections, SavedOffer, SavedState, StateError, StateStore};
pub use session::Stopped;
pub use stats::Stats;

#[cfg(feature = "net")]
mod net;
#[cfg(feature = "csr")]
pub use net::ecdsa::EcdsaRequester;
#[cfg(feature = "net")]
#[doc(hidden)]
pub use net::fuzzing;
#[cfg(feature = "net")]
pub use net::{
    builder::{Builder, ProbeError, StartError},
    client::Client,
    clock::{Clock, SystemClock},
    credentials::{HeaderError, TokenSource},
    endpoint::EndpointError,
    handler::{
        CertificateRequester, CustomMessageHandler, EffectiveConfigProvider, EventHandler,
        OtherConnectionsHandler, OwnTelemetryHandler, RemoteConfigHandler, RestartHandler,
    },
    proxy::{Proxy, ProxyError},
    settings::ClientSettings,
    state_file::FileState,
    telemetry::TelemetrySender,
    tls::{MinTlsVersion, TlsError, TlsOptions, TlsSource},
};

//! Connections as a server sets them: to itself, for the agent's own telemetry, and others that only the agent knows.
//!
//! | subject | where |
//! |---|---|
//! | settings of a connection to an OpAMP server | [`OpampSettings`] |
//! | where the agent's own telemetry goes | [`TelemetrySettings`], [`Signal`] |
//! | connections that the agent alone understands | [`OtherSettings`] |
//! | what they are made of | [`Header`], [`ClientCertificate`], [`TlsParameters`], [`ProxyParameters`], [`Secret`] |
//! | what a server may not change | [`SettingsPolicy`] |
//! | a certificate that the agent asks for | [`CertificateSigningRequest`] |
//!
//! Trust nothing in them: each is the word of whoever runs the server (R-SEC-01). `Debug` shows no header, no key, and of an
//! address neither user nor query.

mod certificate;
mod merge;
mod parts;
mod policy;
mod secret;
mod wire;

pub use self::certificate::CertificateSigningRequest;
pub(crate) use self::certificate::Validity;
pub use self::parts::{
    ClientCertificate, Header, OpampSettings, OtherSettings, ProxyParameters, Signal, TelemetrySettings,
    TlsParameters,
};
pub use self::policy::SettingsPolicy;
pub(crate) use self::policy::{InUse, is_tls};
pub use self::secret::Secret;

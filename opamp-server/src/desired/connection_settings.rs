//! Connection settings to offer: OpAMP itself, own telemetry, other connections.

use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{ConfigHash, encode, pb};
use prost::Message;

use super::{Offered, validate};

pub use super::validate::InvalidOffer;

/// The heartbeat interval an OpAMP offer carries if none is given, in seconds (R-HB-12).
pub const DEFAULT_HEARTBEAT_INTERVAL_S: u64 = 30;

/// What is allowed in an offer beyond the usual. The default allows none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfferRules {
    /// Destinations of own telemetry may be `http://` URLs (R-CONN-33). Telemetry and its credentials then cross the network
    /// in the clear.
    pub insecure_telemetry: bool,
    /// A heartbeat interval of 0 stays 0 and turns heartbeats off, instead of being filled with
    /// [`DEFAULT_HEARTBEAT_INTERVAL_S`]. The server then notices a silent agent by its own pings only.
    pub heartbeats_off: bool,
    /// The OpAMP certificate answers the agent's own signing request: it comes without its private key, which never left the
    /// agent (R-CSR-10), and must. Without this a certificate without its key is refused (R-TLS-17).
    pub issued_certificate: bool,
}

/// Connection settings ready to be offered: checked, hashed over all of them (R-CONN-16), encoded part by part, shared by
/// every agent they are meant for.
///
/// An agent without the capability ReportsConnectionSettingsStatus is offered them once in a generation, or a client that
/// reconnects to apply settings would do so for ever. If that one message was lost, nobody learns of it: desire them anew.
#[derive(Clone)]
pub struct ConnectionSettingsOffer(Arc<Inner>);

struct Inner {
    hash: ConfigHash,
    settings: pb::ConnectionSettingsOffers,
    /// The encoded `OpAMPConnectionSettings` without its heartbeat interval, which a capability of its own gates.
    opamp: Bytes,
    /// The encoded `TelemetryConnectionSettings` of metrics, traces and logs.
    telemetry: [Bytes; 3],
    /// `other_connections`, encoded as fields of `ConnectionSettingsOffers`: tags and lengths included.
    other: Bytes,
}

impl ConnectionSettingsOffer {
    /// Checks and encodes an offer by the usual rules; see [`ConnectionSettingsOffer::with_rules`].
    ///
    /// # Errors
    ///
    /// [`InvalidOffer`] names the field and what to do about it, never its value.
    pub fn new(settings: pb::ConnectionSettingsOffers) -> Result<Self, InvalidOffer> {
        Self::with_rules(settings, OfferRules::default())
    }

    /// Checks and encodes an offer.
    ///
    /// The heartbeat interval is filled in if it is 0 (see [`OfferRules::heartbeats_off`]), because 0 would turn heartbeats off;
    /// the hash is computed over all settings, whatever `hash` held.
    ///
    /// # Errors
    ///
    /// [`InvalidOffer`] for an offer of nothing, an OpAMP endpoint that is no WebSocket or HTTP URL (R-CONN-25), a telemetry
    /// endpoint that is no HTTPS URL with a path (R-CONN-32, R-CONN-33), a proxy without its address (R-TLS-12), a certificate that
    /// is not PEM, lacks its key or its CA, or has a CA although it is self-signed (R-TLS-16, R-TLS-17, R-TLS-18), and headers
    /// that HTTP cannot carry.
    pub fn with_rules(
        mut settings: pb::ConnectionSettingsOffers,
        rules: OfferRules,
    ) -> Result<Self, InvalidOffer> {
        validate::settings(&settings, rules)?;
        if let Some(opamp) = &mut settings.opamp
            && opamp.heartbeat_interval_seconds == 0
            && !rules.heartbeats_off
        {
            opamp.heartbeat_interval_seconds = DEFAULT_HEARTBEAT_INTERVAL_S;
        }
        settings.hash = opamp_proto::hash::connection_settings_hash(&settings).to_bytes();
        Ok(Self::restored(settings))
    }

    /// An offer that was accepted once and comes back from storage: taken as it is, hash included. What was valid when it
    /// was made must load, whatever the rules of a later version say.
    pub fn restored(settings: pb::ConnectionSettingsOffers) -> Self {
        let hash = match settings.hash.is_empty() {
            true => opamp_proto::hash::connection_settings_hash(&settings),
            false => ConfigHash::new(settings.hash.clone()),
        };
        let settings = pb::ConnectionSettingsOffers { hash: hash.to_bytes(), ..settings };
        let opamp = settings
            .opamp
            .as_ref()
            .map(|opamp| pb::OpAmpConnectionSettings { heartbeat_interval_seconds: 0, ..opamp.clone() });
        let telemetry = [&settings.own_metrics, &settings.own_traces, &settings.own_logs].map(encoded);
        let other = pb::ConnectionSettingsOffers {
            other_connections: settings.other_connections.clone(),
            ..Default::default()
        };
        Self(Arc::new(Inner {
            hash,
            opamp: encoded(&opamp),
            telemetry,
            other: other.encode_to_vec().into(),
            settings,
        }))
    }

    /// The hash the agent reports back: over all settings, sent or not.
    pub fn hash(&self) -> &ConfigHash {
        &self.0.hash
    }

    /// The settings in full, hash and heartbeat interval filled in. They hold secrets; their `Debug` hides them.
    pub fn settings(&self) -> &pb::ConnectionSettingsOffers {
        &self.0.settings
    }

    /// The parts this offer has anything to say about.
    pub fn parts(&self) -> SettingsParts {
        let settings = &self.0.settings;
        let interval = settings.opamp.as_ref().is_some_and(|opamp| opamp.heartbeat_interval_seconds != 0);
        [
            (SettingsParts::OPAMP, settings.opamp.is_some()),
            (SettingsParts::HEARTBEAT_INTERVAL, interval),
            (SettingsParts::OWN_METRICS, settings.own_metrics.is_some()),
            (SettingsParts::OWN_TRACES, settings.own_traces.is_some()),
            (SettingsParts::OWN_LOGS, settings.own_logs.is_some()),
            (SettingsParts::OTHER_CONNECTIONS, !settings.other_connections.is_empty()),
        ]
        .into_iter()
        .filter(|(_, present)| *present)
        .fold(SettingsParts::NONE, |parts, (part, _)| parts | part)
    }

    /// The parts in which this offer says the same as `other`.
    pub(crate) fn same_parts(&self, other: &Self) -> SettingsParts {
        if Arc::ptr_eq(&self.0, &other.0) {
            // The agent has what is desired, and every one of its heartbeats asks.
            return SettingsParts::EVERY;
        }
        let (this, that) = (&*self.0, &*other.0);
        let interval =
            |inner: &Inner| inner.settings.opamp.as_ref().map_or(0, |opamp| opamp.heartbeat_interval_seconds);
        [
            (SettingsParts::OPAMP, this.opamp == that.opamp),
            (SettingsParts::HEARTBEAT_INTERVAL, interval(this) == interval(that)),
            (SettingsParts::OWN_METRICS, this.telemetry[0] == that.telemetry[0]),
            (SettingsParts::OWN_TRACES, this.telemetry[1] == that.telemetry[1]),
            (SettingsParts::OWN_LOGS, this.telemetry[2] == that.telemetry[2]),
            (SettingsParts::OTHER_CONNECTIONS, this.other == that.other),
        ]
        .into_iter()
        .filter(|(_, same)| *same)
        .fold(SettingsParts::NONE, |parts, (part, _)| parts | part)
    }

    /// Appends the encoded `ConnectionSettingsOffers` with these parts and the hash over all. The caller sees to it that they
    /// are permitted.
    pub(crate) fn encode(&self, parts: SettingsParts, out: &mut Vec<u8>) {
        let inner = &*self.0;
        encode::bytes_field(1, inner.hash.as_bytes(), out);
        if parts.contains(SettingsParts::OPAMP) {
            let interval = self.interval(parts);
            let mut opamp = Vec::with_capacity(inner.opamp.len() + 11);
            opamp.extend_from_slice(&inner.opamp);
            encode::varint_field(4, interval, &mut opamp);
            encode::bytes_field(2, &opamp, out);
        }
        for (index, part) in [SettingsParts::OWN_METRICS, SettingsParts::OWN_TRACES, SettingsParts::OWN_LOGS]
            .into_iter()
            .enumerate()
        {
            if parts.contains(part) {
                encode::bytes_field(3 + index as u32, &inner.telemetry[index], out);
            }
        }
        if parts.contains(SettingsParts::OTHER_CONNECTIONS) {
            out.extend_from_slice(&inner.other);
        }
    }

    /// An upper bound of what [`ConnectionSettingsOffer::encode`] appends for these parts.
    pub(crate) fn encoded_len_max(&self, parts: SettingsParts) -> usize {
        let inner = &*self.0;
        let field = |part, bytes: &Bytes| match parts.contains(part) {
            // Tag, length and heartbeat interval take at most 32 bytes.
            true => bytes.len() + 32,
            false => 0,
        };
        inner.hash.as_bytes().len()
            + 16
            + field(SettingsParts::OPAMP, &inner.opamp)
            + field(SettingsParts::OWN_METRICS, &inner.telemetry[0])
            + field(SettingsParts::OWN_TRACES, &inner.telemetry[1])
            + field(SettingsParts::OWN_LOGS, &inner.telemetry[2])
            + field(SettingsParts::OTHER_CONNECTIONS, &inner.other)
    }

    fn interval(&self, parts: SettingsParts) -> u64 {
        let opamp = self.0.settings.opamp.as_ref();
        opamp
            .filter(|_| parts.contains(SettingsParts::HEARTBEAT_INTERVAL))
            .map_or(0, |opamp| opamp.heartbeat_interval_seconds)
    }
}

impl Offered for ConnectionSettingsOffer {
    fn hash(&self) -> &ConfigHash {
        &self.0.hash
    }
}

/// Shows hash and parts, never what is in them.
impl fmt::Debug for ConnectionSettingsOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSettingsOffer")
            .field("hash", &self.0.hash)
            .field("parts", &self.parts())
            .finish()
    }
}

/// Parts of connection settings, each gated by capabilities of its own.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SettingsParts(u8);

impl SettingsParts {
    /// No part.
    pub const NONE: Self = Self(0);
    /// `opamp`, without its heartbeat interval.
    pub const OPAMP: Self = Self(1);
    /// `opamp.heartbeat_interval_seconds`.
    pub const HEARTBEAT_INTERVAL: Self = Self(1 << 1);
    /// `own_metrics`.
    pub const OWN_METRICS: Self = Self(1 << 2);
    /// `own_traces`.
    pub const OWN_TRACES: Self = Self(1 << 3);
    /// `own_logs`.
    pub const OWN_LOGS: Self = Self(1 << 4);
    /// `other_connections`.
    pub const OTHER_CONNECTIONS: Self = Self(1 << 5);
    const EVERY: Self = Self((1 << 6) - 1);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::OPAMP, "opamp"),
        (Self::HEARTBEAT_INTERVAL, "heartbeat_interval_seconds"),
        (Self::OWN_METRICS, "own_metrics"),
        (Self::OWN_TRACES, "own_traces"),
        (Self::OWN_LOGS, "own_logs"),
        (Self::OTHER_CONNECTIONS, "other_connections"),
    ];

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is no part.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The parts that are here but not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for SettingsParts {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for SettingsParts {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for SettingsParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.into_iter().filter(|(part, _)| self.contains(*part)).map(|(_, name)| name);
        f.debug_set().entries(names).finish()
    }
}

fn encoded<M: Message>(part: &Option<M>) -> Bytes {
    part.as_ref().map(|part| part.encode_to_vec().into()).unwrap_or_default()
}

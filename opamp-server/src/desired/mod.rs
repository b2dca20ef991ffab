//! What an agent should have: the input the dispatcher gives a session, never a queue of messages.

mod certificate;
mod connection_settings;
mod packages;
mod remote_config;
#[cfg(test)]
mod tests;
mod validate;

use opamp_proto::ConfigHash;

pub use self::connection_settings::{
    ConnectionSettingsOffer, DEFAULT_HEARTBEAT_INTERVAL_S, InvalidOffer, OfferRules, SettingsParts,
};
pub use self::packages::PackagesOffer;
pub use self::remote_config::RemoteConfigOffer;

/// What one agent should have, kind by kind. The session compares it with what the agent reports and sends only the
/// difference. A kind that is left at its default changes nothing, so that callers may set one kind at a time.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The configuration the agent should run.
    pub remote_config: Target<RemoteConfigOffer>,
    /// The connection settings it should use.
    pub connection_settings: Target<ConnectionSettingsOffer>,
    /// The packages it should have.
    pub packages: Target<PackagesOffer>,
}

/// One kind of what an agent should have. Each kind is judged by its own generation.
#[derive(Clone, Debug)]
pub struct Target<O> {
    /// Grows with every change of this kind for this agent. A new generation makes the session forget that an earlier
    /// offer of the same hash failed; an older one than is known, or the same with the same hash, changes nothing. 0 with
    /// no offer is "nothing was ever desired".
    pub generation: u64,
    /// What the agent should have, or none to leave it alone.
    pub offer: Option<O>,
}

impl<O> Target<O> {
    /// This offer, as of this generation; none leaves the agent alone from now on.
    pub fn new(generation: u64, offer: Option<O>) -> Self {
        Self { generation, offer }
    }
}

impl<O> Default for Target<O> {
    fn default() -> Self {
        Self { generation: 0, offer: None }
    }
}

impl Desired {
    /// Sets the configuration and leaves the other kinds as they are.
    pub fn remote_config(generation: u64, offer: impl Into<Option<RemoteConfigOffer>>) -> Self {
        Self { remote_config: Target::new(generation, offer.into()), ..Self::default() }
    }

    /// Sets the connection settings and leaves the other kinds as they are.
    pub fn connection_settings(generation: u64, offer: impl Into<Option<ConnectionSettingsOffer>>) -> Self {
        Self { connection_settings: Target::new(generation, offer.into()), ..Self::default() }
    }

    /// Sets the packages and leaves the other kinds as they are.
    pub fn packages(generation: u64, offer: impl Into<Option<PackagesOffer>>) -> Self {
        Self { packages: Target::new(generation, offer.into()), ..Self::default() }
    }
}

/// What the three kinds of offers have in common.
pub(crate) trait Offered {
    /// The hash the agent reports back.
    fn hash(&self) -> &ConfigHash;
}

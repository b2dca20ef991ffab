//! What became of the configurations the server offered.
//!
//! ```text
//!             offer: another hash                outcome
//! nothing ─────────────────────────► applying ─────────────► applied or failed
//!                                      │   ▲                        │
//!                    offer: another    ▼   │ outcome of the one     │ offer: another hash
//!                    hash          applying,│ before                 ▼
//!                                  next one waits ◄───────────── applying
//! ```
//!
//! What is reported is always about the configuration received last, also if it could not be applied (R-CONF-22).
//! The same hash again is no news (R-CONF-09). One configuration is applied at a time; of those that arrive
//! meanwhile only the newest waits.

use bytes::Bytes;
use opamp_proto::{ConfigHash, pb};
use prost::Message as _;

use crate::config::{Rejected, RemoteConfig};
use crate::saved::{ConfigStatus, SavedConfig};

/// How often a configuration is begun without an end before it is held for the cause.
const ATTEMPTS_MAX: u32 = 3;

/// The configuration received last, and what is being done about it.
#[derive(Debug, Default)]
pub(super) struct ConfigState {
    last: Option<SavedConfig>,
    /// What the application works on, which may not be the last any more.
    applying: Option<ConfigHash>,
    next: Option<RemoteConfig>,
    /// An earlier process ended while applying this.
    interrupted: Option<SavedConfig>,
}

/// What an offer leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Offered {
    /// It is the last one again.
    Known,
    /// It is new, and may be applied now.
    Apply(RemoteConfig),
    /// It is new, and waits for the one that is being applied, or cannot be applied at all.
    Noted,
}

impl ConfigState {
    /// Goes on where an earlier process ended.
    ///
    /// A configuration that was being applied counts as never received, so that the server offers it again. One that was
    /// interrupted over and over has probably brought the agent down, and failed.
    pub(super) fn restore(saved: Option<SavedConfig>) -> Self {
        let mut state = Self::default();
        match saved {
            Some(saved) if saved.status == ConfigStatus::Applying && saved.attempts >= ATTEMPTS_MAX => {
                let error =
                    format!("the agent ended {} times while it applied this configuration", saved.attempts);
                state.last = Some(SavedConfig { status: ConfigStatus::Failed, error, ..saved });
            }
            Some(saved) if saved.status == ConfigStatus::Applying => state.interrupted = Some(saved),
            other => state.last = other,
        }
        state
    }

    /// Takes an offer. `files` is `None` if the server sent a hash without a configuration.
    pub(super) fn offer(&mut self, hash: ConfigHash, files: Option<pb::AgentConfigMap>) -> Offered {
        if self.last.as_ref().is_some_and(|last| last.hash == hash) {
            return Offered::Known;
        }
        let interrupted = self.interrupted.as_ref().filter(|interrupted| interrupted.hash == hash);
        let attempts = interrupted.map_or(0, |interrupted| interrupted.attempts);
        let (mut status, mut error) = (ConfigStatus::Applying, String::new());
        self.next = None;
        if files.is_none() {
            status = ConfigStatus::Failed;
            "the offer holds no configuration".clone_into(&mut error);
        }
        self.last = Some(SavedConfig { hash, status, error, attempts });
        let (Some(files), Some(last)) = (files, &self.last) else { return Offered::Noted };
        let config = RemoteConfig::new(last.hash.clone(), files);
        if self.applying.is_some() {
            self.next = Some(config);
            return Offered::Noted;
        }
        Offered::Apply(self.begin(config))
    }

    /// Whether the application is at work on a configuration.
    pub(super) const fn is_applying(&self) -> bool {
        self.applying.is_some()
    }

    /// The agent ends in good order before the application has come to an end with what it was given: whatever the
    /// reason, the configuration has not brought it down.
    pub(super) fn abandon(&mut self) {
        self.next = None;
        if let Some(hash) = self.applying.take()
            && let Some(last) = self.last.as_mut().filter(|last| last.hash == hash)
        {
            last.attempts = last.attempts.saturating_sub(1);
        }
    }

    fn begin(&mut self, config: RemoteConfig) -> RemoteConfig {
        self.applying = Some(config.hash().clone());
        if let Some(last) = &mut self.last {
            last.attempts = last.attempts.saturating_add(1);
        }
        config
    }

    /// Takes the outcome of the configuration that was being applied, and returns the next one to apply. Whether the
    /// outcome is news is told by [`ConfigState::status`].
    pub(super) fn outcome(
        &mut self,
        hash: &ConfigHash,
        result: Result<(), Rejected>,
    ) -> Option<RemoteConfig> {
        if self.applying.as_ref() != Some(hash) {
            return None;
        }
        self.applying = None;
        if let Some(last) = self.last.as_mut().filter(|last| last.hash == *hash) {
            self.next = None;
            self.interrupted = None;
            last.attempts = 0;
            (last.status, last.error) = match result {
                Ok(()) => (ConfigStatus::Applied, String::new()),
                Err(rejected) => (ConfigStatus::Failed, rejected.reason().to_owned()),
            };
            return None;
        }
        let next = self.next.take()?;
        Some(self.begin(next))
    }

    /// What is to be kept over a restart.
    pub(super) fn saved(&self) -> Option<SavedConfig> {
        self.last.clone().or_else(|| self.interrupted.clone())
    }

    /// The encoded `RemoteConfigStatus`.
    pub(super) fn status(&self) -> Bytes {
        let status = match &self.last {
            None => pb::RemoteConfigStatus::default(),
            Some(last) => pb::RemoteConfigStatus {
                last_remote_config_hash: last.hash.to_bytes(),
                status: match last.status {
                    ConfigStatus::Applied => pb::RemoteConfigStatuses::Applied,
                    ConfigStatus::Applying => pb::RemoteConfigStatuses::Applying,
                    ConfigStatus::Failed => pb::RemoteConfigStatuses::Failed,
                } as i32,
                error_message: last.error.clone(),
            },
        };
        status.encode_to_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(byte: u8) -> ConfigHash {
        ConfigHash::new(vec![byte])
    }

    fn offer(state: &mut ConfigState, byte: u8) -> Offered {
        state.offer(hash(byte), Some(pb::AgentConfigMap::default()))
    }

    fn reported(state: &ConfigState) -> (u8, ConfigStatus, String) {
        let message = pb::RemoteConfigStatus::decode(state.status()).unwrap();
        let status = match message.status() {
            pb::RemoteConfigStatuses::Applied => ConfigStatus::Applied,
            pb::RemoteConfigStatuses::Applying => ConfigStatus::Applying,
            pb::RemoteConfigStatuses::Failed => ConfigStatus::Failed,
            pb::RemoteConfigStatuses::Unset => panic!("nothing is reported"),
        };
        (message.last_remote_config_hash[0], status, message.error_message)
    }

    fn is_apply(offered: &Offered, byte: u8) -> bool {
        matches!(offered, Offered::Apply(config) if *config.hash() == hash(byte))
    }

    #[test]
    fn before_the_first_offer_the_status_is_unset() {
        assert!(ConfigState::default().status().is_empty());
    }

    #[test]
    fn a_failed_configuration_is_reported_as_failed_and_never_again_as_applying() {
        let mut state = ConfigState::default();
        assert!(is_apply(&offer(&mut state, 1), 1));
        assert_eq!(reported(&state), (1, ConfigStatus::Applying, String::new()));
        assert_eq!(state.outcome(&hash(1), Err("no such exporter".into())), None);
        assert_eq!(reported(&state), (1, ConfigStatus::Failed, "no such exporter".into()));
        assert_eq!(offer(&mut state, 1), Offered::Known);
        assert_eq!(reported(&state).1, ConfigStatus::Failed);
    }

    #[test]
    fn the_text_of_a_failure_is_gone_with_the_next_success() {
        let mut state = ConfigState::default();
        offer(&mut state, 1);
        state.outcome(&hash(1), Err("broken".into()));
        offer(&mut state, 2);
        assert_eq!(reported(&state), (2, ConfigStatus::Applying, String::new()));
        state.outcome(&hash(2), Ok(()));
        assert_eq!(reported(&state), (2, ConfigStatus::Applied, String::new()));
    }

    #[test]
    fn of_offers_that_arrive_while_one_is_applied_only_the_newest_follows() {
        let mut state = ConfigState::default();
        offer(&mut state, 1);
        assert_eq!(offer(&mut state, 2), Offered::Noted);
        assert_eq!(offer(&mut state, 3), Offered::Noted);
        assert_eq!(reported(&state), (3, ConfigStatus::Applying, String::new()));
        let next = state.outcome(&hash(1), Ok(())).unwrap();
        assert_eq!(next.hash(), &hash(3));
        assert_eq!(reported(&state), (3, ConfigStatus::Applying, String::new()), "1 is no news any more");
        assert_eq!(state.outcome(&hash(3), Ok(())), None);
        assert_eq!(reported(&state), (3, ConfigStatus::Applied, String::new()));
    }

    #[test]
    fn an_offer_taken_back_while_it_was_applied_is_not_applied_twice() {
        let mut state = ConfigState::default();
        offer(&mut state, 1);
        offer(&mut state, 2);
        assert_eq!(offer(&mut state, 1), Offered::Noted);
        assert_eq!(state.outcome(&hash(1), Ok(())), None);
        assert_eq!(reported(&state), (1, ConfigStatus::Applied, String::new()));
        assert_eq!(state.outcome(&hash(1), Ok(())), None, "an outcome nobody waits for");
    }

    #[test]
    fn an_offer_without_a_configuration_fails_under_its_hash() {
        let mut state = ConfigState::default();
        assert_eq!(state.offer(hash(1), None), Offered::Noted);
        assert_eq!(reported(&state).1, ConfigStatus::Failed);
        assert_eq!(state.offer(hash(1), None), Offered::Known);
    }

    #[test]
    fn what_is_over_is_known_after_a_restart() {
        for result in [Ok(()), Err(Rejected::new("x"))] {
            let mut state = ConfigState::default();
            offer(&mut state, 1);
            state.outcome(&hash(1), result);
            let mut restarted = ConfigState::restore(state.saved());
            assert_eq!(restarted.status(), state.status());
            assert_eq!(offer(&mut restarted, 1), Offered::Known);
        }
    }

    #[test]
    fn what_was_interrupted_is_taken_again_but_not_for_ever() {
        let mut state = ConfigState::default();
        offer(&mut state, 1);
        for _ in 1..ATTEMPTS_MAX {
            state = ConfigState::restore(state.saved());
            assert!(state.status().is_empty(), "so that the server offers it again");
            state = ConfigState::restore(state.saved());
            assert!(is_apply(&offer(&mut state, 1), 1), "a restart without an offer does not count");
        }
        let mut state = ConfigState::restore(state.saved());
        assert_eq!(reported(&state).1, ConfigStatus::Failed);
        assert_eq!(offer(&mut state, 1), Offered::Known);
        assert!(is_apply(&offer(&mut state, 2), 2));
    }

    #[test]
    fn a_stop_in_good_order_is_not_held_against_the_configuration() {
        let mut state = ConfigState::default();
        for _ in 0..10 {
            assert!(is_apply(&offer(&mut state, 1), 1));
            assert!(state.is_applying());
            state.abandon();
            state = ConfigState::restore(state.saved());
        }
        offer(&mut state, 1);
        assert_eq!(offer(&mut state, 2), Offered::Noted, "it waits, and is not begun");
        for _ in 0..10 {
            state = ConfigState::restore(state.saved());
        }
        assert!(is_apply(&offer(&mut state, 2), 2));
    }
}

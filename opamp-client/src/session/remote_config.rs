//! What became of the configurations the server offered.

use bytes::Bytes;
use opamp_proto::{ConfigHash, pb};
use prost::Message as _;

use super::offers::{Offer, OfferState};
use crate::config::RemoteConfig;
use crate::saved::{OfferStatus, SavedOffer};

/// The configuration received last, and what is being done about it.
pub(super) type ConfigState = OfferState<RemoteConfig>;

impl Offer for RemoteConfig {
    fn hash(&self) -> &ConfigHash {
        Self::hash(self)
    }
}

/// What an earlier process left.
pub(super) fn restore(saved: Option<SavedOffer>) -> ConfigState {
    ConfigState::restore(saved, "this configuration")
}

/// The content of an offer. Without `files` the server sent a hash without a configuration.
pub(super) fn content(hash: &ConfigHash, files: Option<pb::AgentConfigMap>) -> Result<RemoteConfig, String> {
    let files = files.ok_or("the offer holds no configuration")?;
    Ok(RemoteConfig::new(hash.clone(), files))
}

/// The encoded `RemoteConfigStatus`.
pub(super) fn status(state: &ConfigState) -> Bytes {
    let status = match state.last() {
        None => pb::RemoteConfigStatus::default(),
        Some(last) => pb::RemoteConfigStatus {
            last_remote_config_hash: last.hash.to_bytes(),
            status: match last.status {
                OfferStatus::Applied => pb::RemoteConfigStatuses::Applied,
                OfferStatus::Applying => pb::RemoteConfigStatuses::Applying,
                OfferStatus::Failed => pb::RemoteConfigStatuses::Failed,
            } as i32,
            error_message: last.error.clone(),
        },
    };
    status.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::super::offers::{ATTEMPTS_MAX, Offered};
    use super::*;

    fn hash(byte: u8) -> ConfigHash {
        ConfigHash::new(vec![byte])
    }

    fn offer(state: &mut ConfigState, byte: u8) -> Offered<RemoteConfig> {
        state.offer(hash(byte), content(&hash(byte), Some(pb::AgentConfigMap::default())))
    }

    fn reported(state: &ConfigState) -> (u8, OfferStatus, String) {
        let message = pb::RemoteConfigStatus::decode(status(state)).unwrap();
        let reported = match message.status() {
            pb::RemoteConfigStatuses::Applied => OfferStatus::Applied,
            pb::RemoteConfigStatuses::Applying => OfferStatus::Applying,
            pb::RemoteConfigStatuses::Failed => OfferStatus::Failed,
            pb::RemoteConfigStatuses::Unset => panic!("nothing is reported"),
        };
        (message.last_remote_config_hash[0], reported, message.error_message)
    }

    fn is_apply(offered: &Offered<RemoteConfig>, byte: u8) -> bool {
        matches!(offered, Offered::Apply(config) if *config.hash() == hash(byte))
    }

    #[test]
    fn before_the_first_offer_the_status_is_unset() {
        assert!(status(&ConfigState::default()).is_empty());
    }

    #[test]
    fn a_failed_configuration_is_reported_as_failed_and_never_again_as_applying() {
        let mut state = ConfigState::default();
        assert!(is_apply(&offer(&mut state, 1), 1));
        assert_eq!(reported(&state), (1, OfferStatus::Applying, String::new()));
        assert_eq!(state.outcome(&hash(1), Err("no such exporter".into())), None);
        assert_eq!(reported(&state), (1, OfferStatus::Failed, "no such exporter".into()));
        assert_eq!(offer(&mut state, 1), Offered::Known);
        assert_eq!(reported(&state).1, OfferStatus::Failed);
    }

    #[test]
    fn the_text_of_a_failure_is_gone_with_the_next_success() {
        let mut state = ConfigState::default();
        offer(&mut state, 1);
        state.outcome(&hash(1), Err("broken".into()));
        offer(&mut state, 2);
        assert_eq!(reported(&state), (2, OfferStatus::Applying, String::new()));
        state.outcome(&hash(2), Ok(()));
        assert_eq!(reported(&state), (2, OfferStatus::Applied, String::new()));
    }

    #[test]
    fn of_offers_that_arrive_while_one_is_applied_only_the_newest_follows() {
        let mut state = ConfigState::default();
        offer(&mut state, 1);
        assert_eq!(offer(&mut state, 2), Offered::Noted);
        assert_eq!(offer(&mut state, 3), Offered::Noted);
        assert_eq!(reported(&state), (3, OfferStatus::Applying, String::new()));
        let next = state.outcome(&hash(1), Ok(())).unwrap();
        assert_eq!(next.hash(), &hash(3));
        assert_eq!(reported(&state), (3, OfferStatus::Applying, String::new()), "1 is no news any more");
        assert_eq!(state.outcome(&hash(3), Ok(())), None);
        assert_eq!(reported(&state), (3, OfferStatus::Applied, String::new()));
    }

    #[test]
    fn an_offer_taken_back_while_it_was_applied_is_not_applied_twice() {
        let mut state = ConfigState::default();
        offer(&mut state, 1);
        offer(&mut state, 2);
        assert_eq!(offer(&mut state, 1), Offered::Noted);
        assert_eq!(state.outcome(&hash(1), Ok(())), None);
        assert_eq!(reported(&state), (1, OfferStatus::Applied, String::new()));
        assert_eq!(state.outcome(&hash(1), Ok(())), None, "an outcome nobody waits for");
    }

    #[test]
    fn an_offer_without_a_configuration_fails_under_its_hash() {
        let mut state = ConfigState::default();
        assert_eq!(state.offer(hash(1), content(&hash(1), None)), Offered::Noted);
        assert_eq!(reported(&state).1, OfferStatus::Failed);
        assert_eq!(state.offer(hash(1), content(&hash(1), None)), Offered::Known);
    }

    #[test]
    fn what_is_over_is_known_after_a_restart() {
        for result in [Ok(()), Err("x".to_owned())] {
            let mut state = ConfigState::default();
            offer(&mut state, 1);
            state.outcome(&hash(1), result);
            let mut restarted = restore(state.saved());
            assert_eq!(status(&restarted), status(&state));
            assert_eq!(offer(&mut restarted, 1), Offered::Known);
        }
    }

    #[test]
    fn what_was_interrupted_is_taken_again_but_not_for_ever() {
        let mut state = ConfigState::default();
        offer(&mut state, 1);
        for _ in 1..ATTEMPTS_MAX {
            state = restore(state.saved());
            assert!(status(&state).is_empty(), "so that the server offers it again");
            state = restore(state.saved());
            assert!(is_apply(&offer(&mut state, 1), 1), "a restart without an offer does not count");
        }
        let mut state = restore(state.saved());
        assert_eq!(reported(&state).1, OfferStatus::Failed);
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
            state = restore(state.saved());
        }
        offer(&mut state, 1);
        assert_eq!(offer(&mut state, 2), Offered::Noted, "it waits, and is not begun");
        for _ in 0..10 {
            state = restore(state.saved());
        }
        assert!(is_apply(&offer(&mut state, 2), 2));
    }
}

//! What became of something that a server offers under a hash: a configuration, connections, packages.
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
//! What is reported is always about the offer received last, also if it could not be applied (R-CONF-22, R-CONN-20). The
//! same hash again is no news (R-CONF-09). One offer is applied at a time; of those that arrive meanwhile only the
//! newest waits.

use opamp_proto::ConfigHash;

use crate::saved::{OfferStatus, SavedOffer};

/// How often an offer is begun without an end before it is held for the cause.
pub(super) const ATTEMPTS_MAX: u32 = 3;

/// The offer received last, and what is being done about it.
#[derive(Debug)]
pub(super) struct OfferState<T> {
    last: Option<SavedOffer>,
    /// What is being worked on, which may not be the last any more.
    applying: Option<ConfigHash>,
    next: Option<T>,
    /// An earlier process ended while applying this.
    interrupted: Option<SavedOffer>,
}

/// What can be offered.
pub(super) trait Offer {
    fn hash(&self) -> &ConfigHash;
}

/// What an offer leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Offered<T> {
    /// It is the last one again.
    Known,
    /// It is new, and may be applied now.
    Apply(T),
    /// It is new, and waits for the one that is being applied, or cannot be applied at all.
    Noted,
}

impl<T> Default for OfferState<T> {
    fn default() -> Self {
        Self { last: None, applying: None, next: None, interrupted: None }
    }
}

impl<T: Offer> OfferState<T> {
    /// Goes on where an earlier process ended. `what` names the offer in words.
    ///
    /// An offer that was being applied counts as never received, so that the server makes it again. One that was
    /// interrupted over and over has probably brought the agent down, and failed.
    pub(super) fn restore(saved: Option<SavedOffer>, what: &str) -> Self {
        let mut state = Self::default();
        match saved {
            Some(saved) if saved.status == OfferStatus::Applying && saved.attempts >= ATTEMPTS_MAX => {
                let error = format!("the agent ended {} times while it applied {what}", saved.attempts);
                state.last = Some(SavedOffer { status: OfferStatus::Failed, error, ..saved });
            }
            Some(saved) if saved.status == OfferStatus::Applying => state.interrupted = Some(saved),
            other => state.last = other,
        }
        state
    }

    /// Goes on with an offer that an earlier process was applying, since all of it is at hand.
    pub(super) fn resume(saved: SavedOffer) -> Self {
        let applying = Some(saved.hash.clone());
        let last = Some(SavedOffer { attempts: saved.attempts.saturating_add(1), ..saved });
        Self { last, applying, ..Self::default() }
    }

    /// Takes an offer, or why it cannot be applied at all.
    pub(super) fn offer(&mut self, hash: ConfigHash, content: Result<T, String>) -> Offered<T> {
        if self.is_last(&hash) {
            return Offered::Known;
        }
        let interrupted = self.interrupted.as_ref().filter(|interrupted| interrupted.hash == hash);
        let attempts = interrupted.map_or(0, |interrupted| interrupted.attempts);
        self.next = None;
        let (status, error, content) = match content {
            Ok(content) => (OfferStatus::Applying, String::new(), Some(content)),
            Err(error) => (OfferStatus::Failed, error, None),
        };
        self.last = Some(SavedOffer { hash, status, error, attempts });
        let Some(content) = content else { return Offered::Noted };
        if self.applying.is_some() {
            self.next = Some(content);
            return Offered::Noted;
        }
        Offered::Apply(self.begin(content))
    }

    /// Whether this is the hash of the offer received last.
    pub(super) fn is_last(&self, hash: &ConfigHash) -> bool {
        self.last.as_ref().is_some_and(|last| last.hash == *hash)
    }

    /// The offer received last.
    pub(super) const fn last(&self) -> Option<&SavedOffer> {
        self.last.as_ref()
    }

    /// Whether something is being worked on.
    pub(super) const fn is_applying(&self) -> bool {
        self.applying.is_some()
    }

    /// What was being worked on is not any more, and what follows need not wait for it.
    pub(super) fn supersede(&mut self) {
        self.applying = None;
    }

    /// The agent ends in good order before what it was given has come to an end: whatever the reason, the offer has not
    /// brought it down.
    pub(super) fn abandon(&mut self) {
        self.next = None;
        if let Some(hash) = self.applying.take()
            && let Some(last) = self.last.as_mut().filter(|last| last.hash == hash)
        {
            last.attempts = last.attempts.saturating_sub(1);
        }
    }

    fn begin(&mut self, content: T) -> T {
        self.applying = Some(content.hash().clone());
        if let Some(last) = &mut self.last {
            last.attempts = last.attempts.saturating_add(1);
        }
        content
    }

    /// Takes the outcome of what was being applied, and returns the next to apply.
    pub(super) fn outcome(&mut self, hash: &ConfigHash, result: Result<(), String>) -> Option<T> {
        if self.applying.as_ref() != Some(hash) {
            return None;
        }
        self.applying = None;
        if let Some(last) = self.last.as_mut().filter(|last| last.hash == *hash) {
            self.next = None;
            self.interrupted = None;
            last.attempts = 0;
            (last.status, last.error) = match result {
                Ok(()) => (OfferStatus::Applied, String::new()),
                Err(error) => (OfferStatus::Failed, error),
            };
            return None;
        }
        let next = self.next.take()?;
        Some(self.begin(next))
    }

    /// What is to be kept over a restart.
    pub(super) fn saved(&self) -> Option<SavedOffer> {
        self.last.clone().or_else(|| self.interrupted.clone())
    }
}

//! When something is offered, and when not: the same rules for configurations, connection settings and packages.

use std::time::Duration;

use opamp_proto::{ConfigHash, Mono, Now, Wall};

use crate::desired::{Offered, Target};
use crate::snapshot::{OfferedBefore, Transport};

/// Offers of one hash that may follow each other message by message before they are spaced in time.
const PROMPT_OFFERS: u8 = 3;

/// One kind of desired state against what is reported of it.
#[derive(Debug)]
pub(super) struct OfferState<O> {
    desired: Option<O>,
    last_offered: Option<(Mono, Wall)>,
    generation: u64,
    offers: u8,
    /// The agent reports the desired hash.
    current: bool,
    /// The agent reported FAILED for the desired hash since it was desired.
    failed: bool,
    /// The agent had reported FAILED for the desired hash when it was desired anew.
    retry: bool,
    /// The last offer may not have reached the agent: no reason to wait with the next.
    lost: bool,
    too_large: bool,
    /// It was offered since it was desired, by this process or an earlier one.
    made: bool,
}

/// A report, as far as it decides about offers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported<'a> {
    pub(super) hash: &'a ConfigHash,
    pub(super) failed: bool,
}

/// The circumstances of a message that may carry an offer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// The agent announced that it reports on this kind.
    pub(super) reports: bool,
    /// The message that is answered has such a report.
    pub(super) reported_now: bool,
    /// An agent that does not report is offered a hash once in a generation, connections notwithstanding: it may connect
    /// anew because of the very offer.
    pub(super) once_unless_reported: bool,
    pub(super) transport: Transport,
    pub(super) now: Mono,
    pub(super) spacing: Duration,
}

impl<O> Default for OfferState<O> {
    fn default() -> Self {
        Self {
            desired: None,
            last_offered: None,
            generation: 0,
            offers: 0,
            current: false,
            failed: false,
            retry: false,
            lost: false,
            too_large: false,
            made: false,
        }
    }
}

impl<O: Offered + Clone> OfferState<O> {
    /// Takes a new desired state over; says whether it is one. The same hash in a new generation is a new try; in the same
    /// generation it is no news, and an older generation is none either.
    pub(super) fn desire(&mut self, target: Target<O>, reported: Option<Reported<'_>>) -> bool {
        let wanted = target.offer.as_ref().map(Offered::hash);
        if target.generation < self.generation
            || (target.generation == self.generation && self.hash() == wanted)
        {
            return false;
        }
        *self = Self { generation: target.generation, desired: target.offer, lost: true, ..Self::default() };
        if let Some(report) = reported
            && self.hash() == Some(report.hash)
        {
            // FAILED is not current: assigning the same again means trying it again.
            self.retry = report.failed;
            self.current = !self.retry;
        }
        true
    }

    /// Takes over what an earlier process knew of the desired offer.
    pub(super) fn restore(&mut self, failed: bool, offered: Option<&OfferedBefore>) {
        self.failed = failed;
        self.made = offered.is_some_and(|offered| {
            offered.generation == self.generation
                && self.desired.as_ref().is_some_and(|desired| *desired.hash() == offered.hash)
        });
    }

    /// Takes a report over (R-CONF-23).
    pub(super) fn reported(&mut self, report: Reported<'_>) {
        self.current = self.hash() == Some(report.hash);
        if self.current {
            self.failed = report.failed;
            self.offers = 0;
        }
    }

    /// A message was lost, and with it perhaps the last offer.
    pub(super) fn answer_may_be_lost(&mut self) {
        self.lost = true;
    }

    /// The last offer certainly did not reach the agent.
    pub(super) fn not_made(&mut self) {
        self.made = false;
        self.lost = true;
    }

    /// The connection changed: whatever was offered on the one before may be gone.
    pub(super) fn reconnected(&mut self) {
        self.lost = true;
        self.offers = 0;
    }

    /// The connection changed, perhaps because of the offer: it may be offered again, but at the pace of before.
    pub(super) fn reconnected_by_itself(&mut self) {
        self.lost = true;
    }

    /// There is more to say under the same hash, or the agent asked for it: offer it anew.
    pub(super) fn renew(&mut self) {
        *self = Self {
            desired: self.desired.take(),
            generation: self.generation,
            failed: self.failed,
            lost: true,
            ..Self::default()
        };
    }

    /// The agent asks for what is desired: a failure of before is no reason to withhold it.
    pub(super) fn ask_again(&mut self) {
        self.renew();
        self.failed = false;
    }

    /// What is to be offered now, permissions and sizes aside (R-CONF-24, R-CONF-25, R-CONN-22, R-PKG-25). If it is sent
    /// [`OfferState::sent`] follows.
    pub(super) fn due(&mut self, circumstances: &Circumstances) -> Option<O> {
        if self.desired.is_none() || self.current || self.failed {
            return None;
        }
        if self.retry && self.offers >= PROMPT_OFFERS {
            // It received the retry, knows the hash and stands by its report, as agents may that apply no hash twice.
            self.failed = true;
            return None;
        }
        self.is_time(circumstances).then(|| self.desired.clone()).flatten()
    }

    /// The offer was put into a message.
    pub(super) fn sent(&mut self, now: Now) {
        self.last_offered = Some((now.mono, now.wall));
        self.offers = self.offers.saturating_add(1);
        self.lost = false;
        self.made = true;
        self.too_large = false;
    }

    /// The offer can never be sent; says whether that is news.
    pub(super) fn exceeds_limit(&mut self) -> bool {
        !std::mem::replace(&mut self.too_large, true)
    }

    pub(super) fn offered(&self) -> Option<(ConfigHash, Wall)> {
        let (_, at) = self.last_offered?;
        Some((self.desired.as_ref()?.hash().clone(), at))
    }

    pub(super) fn offered_at(&self) -> Option<Wall> {
        self.last_offered.map(|(_, at)| at)
    }

    pub(super) fn desired(&self) -> Option<&O> {
        self.desired.as_ref()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_made(&self) -> bool {
        self.made
    }

    pub(super) fn is_current(&self) -> bool {
        self.current
    }

    pub(super) fn is_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.too_large
    }

    fn is_time(&self, circumstances: &Circumstances) -> bool {
        let Circumstances { reports, reported_now, once_unless_reported, transport, now, spacing } =
            *circumstances;
        if once_unless_reported && !reports {
            return !self.made;
        }
        let Some((last, _)) = self.last_offered else {
            return true;
        };
        let waited = now - last;
        if self.lost || reported_now {
            return self.offers < PROMPT_OFFERS || waited >= spacing;
        }
        // A written WebSocket message arrives or the connection breaks; an HTTP answer can vanish unnoticed.
        transport == Transport::Http && reports && waited >= spacing * (1u32 << self.offers.min(6))
    }

    fn hash(&self) -> Option<&ConfigHash> {
        self.desired.as_ref().map(Offered::hash)
    }
}

//! What is to be reported, and what the server has of it: the queued report and the state are the same object.
//!
//! ```text
//!            set                     send                  written or answered
//! current ─────────► to be sent ──────────► in flight ─────────────────────────► delivered
//!                       ▲                      │
//!                       └──────────────────────┘ failed: nothing is known of it, so it is to be sent again
//! ```
//!
//! A part is to be sent while what it means now differs from what was delivered. So nothing can be lost between a
//! queue and a socket, the newest value wins by itself (R-RETRY-05), and an unchanged part is never sent twice
//! (R-STATUS-07).

use std::fmt;

use bytes::Bytes;
use opamp_proto::{Part, PartSet};

/// All parts of the status.
#[derive(Default)]
pub(super) struct Report {
    slots: [Slot; Part::COUNT],
}

/// One part.
#[derive(Default)]
struct Slot {
    /// The encoded part, and what tells whether two of them mean the same.
    current: Option<Value>,
    in_flight: Option<Bytes>,
    delivered: Option<Bytes>,
    /// Delivered, and not yet followed by any answer.
    unanswered: Option<Bytes>,
    refused: Option<(Bytes, Refusal)>,
}

struct Value {
    encoded: Bytes,
    meaning: Bytes,
}

/// Why the server does not want a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It was answered with an error; on demand it is sent again.
    Error,
    /// It is too large for the server or for this agent; only another content is sent.
    Size,
}

impl Report {
    /// Takes a new value of a part, whose encoding is all its meaning.
    pub(super) fn set(&mut self, part: Part, encoded: Bytes) {
        self.set_meaning(part, encoded.clone(), encoded);
    }

    /// Takes a new value of a part that may mean the same as before although its encoding differs.
    pub(super) fn set_meaning(&mut self, part: Part, encoded: Bytes, meaning: Bytes) {
        let slot = self.slot(part);
        // Whatever comes after a refused content is a change, also the way back to it.
        slot.refused.take_if(|(refused, refusal)| *refusal == Refusal::Error && *refused != meaning);
        slot.current = Some(Value { encoded, meaning });
    }

    /// Takes a new value of a part that is to be sent even if it was before.
    pub(super) fn set_again(&mut self, part: Part, encoded: Bytes) {
        self.set(part, encoded);
        let slot = self.slot(part);
        (slot.delivered, slot.refused) = (None, None);
    }

    /// Takes a value of a part that the server has already, in another form.
    pub(super) fn set_delivered(&mut self, part: Part, encoded: Bytes) {
        let slot = self.slot(part);
        slot.refused = None;
        slot.delivered = Some(encoded.clone());
        self.set(part, encoded);
    }

    /// The parts that have a value.
    pub(super) fn present(&self) -> PartSet {
        self.with(|slot| slot.current.is_some())
    }

    /// The parts whose value the server does not have.
    pub(super) fn changed(&self) -> PartSet {
        self.with(Slot::is_changed)
    }

    /// The parts of the message that is under way, or of those not answered yet.
    pub(super) fn outstanding(&self) -> PartSet {
        self.with(|slot| slot.in_flight.is_some() || slot.unanswered.is_some())
    }

    /// The encoded value of a part.
    pub(super) fn encoded(&self, part: Part) -> Option<&Bytes> {
        self.slots[part.index()].current.as_ref().map(|value| &value.encoded)
    }

    /// These parts are in a message that is under way.
    pub(super) fn sending(&mut self, parts: PartSet) {
        for part in parts.iter() {
            let slot = self.slot(part);
            slot.in_flight = slot.current.as_ref().map(|value| value.meaning.clone());
        }
    }

    /// The message under way has left completely.
    pub(super) fn sent(&mut self) {
        for slot in &mut self.slots {
            if let Some(meaning) = slot.in_flight.take() {
                slot.unanswered = Some(meaning.clone());
                slot.delivered = Some(meaning);
            }
        }
    }

    /// The server has answered.
    pub(super) fn answered(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.unanswered = None);
    }

    /// The connection broke, or the server could not take the message: what was on its way may not have arrived.
    pub(super) fn lost(&mut self) {
        for slot in &mut self.slots {
            if slot.in_flight.take().is_some() | slot.unanswered.take().is_some() {
                slot.delivered = None;
            }
        }
    }

    /// What was sent is not wanted. Answers come in order: while something that was written waits for one, it is not the
    /// message under way that is meant.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let written = self.slots.iter().any(|slot| slot.unanswered.is_some());
        for slot in &mut self.slots {
            let meant = if written { &mut slot.unanswered } else { &mut slot.in_flight };
            if let Some(meaning) = meant.take() {
                slot.refused = Some((meaning, refusal));
            }
        }
    }

    /// The value of this part is too large to be sent.
    pub(super) fn refuse_size(&mut self, part: Part) {
        let slot = self.slot(part);
        slot.refused = slot.current.as_ref().map(|value| (value.meaning.clone(), Refusal::Size));
    }

    /// The server may have nothing any more: every part is to be sent, but for what it does not want.
    pub(super) fn forget(&mut self) {
        for slot in &mut self.slots {
            slot.in_flight = None;
            slot.delivered = None;
        }
    }

    /// The server wants everything: every part is to be sent, but for those too large.
    pub(super) fn demanded(&mut self) {
        self.forget();
        for slot in &mut self.slots {
            slot.refused.take_if(|(_, refusal)| *refusal == Refusal::Error);
        }
    }

    /// Another server: what was too large for one need not be for the next.
    pub(super) fn forget_all(&mut self) {
        self.forget();
        self.slots.iter_mut().for_each(|slot| slot.refused = None);
    }

    fn slot(&mut self, part: Part) -> &mut Slot {
        &mut self.slots[part.index()]
    }

    fn with(&self, holds: impl Fn(&Slot) -> bool) -> PartSet {
        Part::ALL.into_iter().filter(|part| holds(&self.slots[part.index()])).collect()
    }
}

impl Slot {
    fn is_changed(&self) -> bool {
        let Some(value) = &self.current else { return false };
        let refused = self.refused.as_ref().map(|(meaning, _)| meaning);
        self.delivered.as_ref() != Some(&value.meaning) && refused != Some(&value.meaning)
    }
}

/// Shows which parts there are and which are to be sent, and nothing of what is in them.
impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("present", &self.present()).field("changed", &self.changed()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Bytes = Bytes::from_static(b"a");
    const B: Bytes = Bytes::from_static(b"b");

    fn health() -> PartSet {
        Part::Health.into()
    }

    fn sent(report: &mut Report) {
        report.sending(report.changed());
        report.sent();
    }

    #[test]
    fn a_report_whose_write_failed_is_still_to_be_sent_and_the_newest_value_wins() {
        let mut report = Report::default();
        report.set(Part::Health, A);
        report.sending(health());
        report.set(Part::Health, B);
        report.lost();
        assert_eq!(report.changed(), health());
        assert_eq!(report.encoded(Part::Health), Some(&B));
    }

    #[test]
    fn a_change_while_a_report_is_under_way_is_sent_afterwards() {
        let mut report = Report::default();
        report.set(Part::Health, A);
        report.sending(health());
        report.set(Part::Health, B);
        report.sent();
        assert_eq!(report.changed(), health());
    }

    #[test]
    fn what_goes_back_to_what_was_delivered_is_no_change() {
        let mut report = Report::default();
        report.set(Part::Health, A);
        sent(&mut report);
        report.set(Part::Health, B);
        report.set(Part::Health, A);
        assert_eq!(report.changed(), PartSet::NONE);
    }

    #[test]
    fn refused_content_stays_away_until_it_changes_or_everything_is_wanted() {
        let mut report = Report::default();
        report.set(Part::Health, A);
        sent(&mut report);
        report.refuse(Refusal::Error);
        report.lost();
        report.set(Part::Health, A);
        report.forget();
        assert_eq!(report.changed(), PartSet::NONE, "not even over another connection");
        report.demanded();
        assert_eq!(report.changed(), health());
        sent(&mut report);
        report.refuse(Refusal::Error);
        report.lost();
        report.set(Part::Health, B);
        assert_eq!(report.changed(), health());
        sent(&mut report);
        report.set(Part::Health, A);
        assert_eq!(report.changed(), health(), "the way back is a change too");
    }

    #[test]
    fn what_is_too_large_is_not_sent_even_when_everything_is_wanted() {
        let mut report = Report::default();
        report.set(Part::EffectiveConfig, A);
        report.refuse_size(Part::EffectiveConfig);
        report.demanded();
        assert_eq!(report.changed(), PartSet::NONE);
        report.forget_all();
        assert_eq!(report.changed(), Part::EffectiveConfig.into());
    }

    #[test]
    fn an_answer_settles_what_was_written() {
        let mut report = Report::default();
        report.set(Part::Health, A);
        sent(&mut report);
        assert_eq!(report.outstanding(), health());
        report.answered();
        report.lost();
        assert_eq!(report.changed(), PartSet::NONE);
    }

    #[test]
    fn everything_wanted_while_a_report_is_under_way_is_sent_after_it() {
        let mut report = Report::default();
        report.set(Part::Health, A);
        report.sending(health());
        report.forget();
        report.sent();
        assert_eq!(report.changed(), health());
    }
}

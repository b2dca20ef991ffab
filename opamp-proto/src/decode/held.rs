//! What an agent said before: what it repeats need not be checked again.

use super::KnownHealth;
use crate::part::{Part, PartSet};

// Keys of the fields of `ComponentHealth`: number and wire type.
const HEALTHY: u8 = 1 << 3;
const START_TIME: u8 = 2 << 3 | 1;
const LAST_ERROR: u8 = 3 << 3 | 2;
const STATUS: u8 = 4 << 3 | 2;
const STATUS_TIME: u8 = 5 << 3 | 1;
const COMPONENT: u8 = 6 << 3 | 2;
const ATTRIBUTE: u8 = 7 << 3 | 2;
const ENTRY_KEY: u8 = 1 << 3 | 2;
const ENTRY_VALUE: u8 = 2 << 3 | 2;

/// Levels of components that are compared; deeper ones are checked as if nothing was held.
const LEVELS: u32 = 8;

/// What is held of an agent.
///
/// A part that it hands out must come from a message that was accepted under the same limits, or narrower ones: an equal one is
/// not checked again.
pub trait Held {
    /// The part as it was accepted last; none if it is not held.
    fn part(&self, part: Part) -> Option<HeldPart<'_>>;
}

/// A part of an accepted message.
#[derive(Clone, Copy, Debug)]
pub struct HeldPart<'a> {
    /// Its bytes.
    pub encoded: &'a [u8],
    /// Its [material digest](crate::material::digest).
    pub digest: u64,
}

/// Nothing is held.
#[derive(Clone, Copy, Debug)]
pub(super) enum Nothing {}

impl Held for Nothing {
    fn part(&self, _: Part) -> Option<HeldPart<'_>> {
        match *self {}
    }
}

impl<H: Held> Held for &H {
    fn part(&self, part: Part) -> Option<HeldPart<'_>> {
        H::part(self, part)
    }
}

/// Parts that are dearer to check than to compare. The others are short; but for configurations, of whose bodies nothing is checked.
pub(super) const COMPARED: PartSet = PartSet::NONE
    .with(Part::AgentDescription)
    .with(Part::AvailableComponents)
    .with(Part::Health)
    .with(Part::PackageStatuses);

impl HeldPart<'_> {
    /// What is known of encoded health that differs from this in no byte but those of times. None if it does, or is of a form
    /// that is not compared: then it may be anything.
    pub(super) fn health_but_for_times(&self, encoded: &[u8]) -> Option<KnownHealth> {
        if encoded.len() != self.encoded.len() {
            return None;
        }
        let mut walk = Walk { held: self.encoded, new: encoded, same: 0, start_time: 0 };
        walk.component(encoded, encoded.len(), 0)?;
        walk.is_same_until(encoded.len())
            .then_some(KnownHealth { digest: self.digest, start_time_unix_nano: walk.start_time })
    }
}

/// A walk over health that finds the times in it.
///
/// It is led by bytes that nobody has checked. But what it is led by, keys and lengths, is compared with what is held, as is
/// everything but the eight bytes of times: if all that is the same, the walk over what is held would have taken the same steps.
/// So the new bytes are what the held ones are, a `ComponentHealth` within the limits, and so is their material digest.
struct Walk<'a> {
    held: &'a [u8],
    /// As long as `held`.
    new: &'a [u8],
    /// Up to here they are the same, but for times.
    same: usize,
    /// The last one at the top.
    start_time: u64,
}

impl Walk<'_> {
    /// Steps over a `ComponentHealth` that ends at `end`. Every known encoder writes fields by number: one round is all it takes.
    fn component(&mut self, mut rest: &[u8], end: usize, level: u32) -> Option<()> {
        while !rest.is_empty() {
            let before = rest.len();
            if let [HEALTHY, ..0x80, tail @ ..] = rest {
                rest = tail;
            }
            if let [START_TIME, tail @ ..] = rest {
                let time;
                (time, rest) = tail.split_first_chunk()?;
                self.time(time, end - rest.len())?;
                if level == 0 {
                    self.start_time = u64::from_le_bytes(*time);
                }
            }
            if let [LAST_ERROR, tail @ ..] = rest {
                rest = content(tail)?.1;
            }
            if let [STATUS, tail @ ..] = rest {
                rest = content(tail)?.1;
            }
            if let [STATUS_TIME, tail @ ..] = rest {
                let time;
                (time, rest) = tail.split_first_chunk()?;
                self.time(time, end - rest.len())?;
            }
            while let [COMPONENT, tail @ ..] = rest {
                let entry;
                (entry, rest) = content(tail)?;
                self.entry(entry, end - rest.len(), level + 1)?;
            }
            while let [ATTRIBUTE, tail @ ..] = rest {
                rest = content(tail)?.1;
            }
            if rest.len() == before {
                return None;
            }
        }
        Some(())
    }

    /// Steps over an entry of the map of components that ends at `end`.
    #[inline]
    fn entry(&mut self, mut rest: &[u8], end: usize, level: u32) -> Option<()> {
        if let [ENTRY_KEY, tail @ ..] = rest {
            rest = content(tail)?.1;
        }
        if let [ENTRY_VALUE, tail @ ..] = rest {
            let component;
            (component, rest) = content(tail)?;
            if level > LEVELS {
                return None;
            }
            self.component(component, end - rest.len(), level)?;
        }
        rest.is_empty().then_some(())
    }

    /// Takes note of a time that ends at `end`. If it moved, all before it has to be the same.
    #[inline]
    fn time(&mut self, new: &[u8; 8], end: usize) -> Option<()> {
        let begin = end.checked_sub(8)?;
        if self.held.get(begin..end)? != new {
            if !self.is_same_until(begin) {
                return None;
            }
            self.same = end;
        }
        Some(())
    }

    #[inline]
    fn is_same_until(&self, at: usize) -> bool {
        let (held, new) = (self.held.get(self.same..at), self.new.get(self.same..at));
        held.is_some() && held == new
    }
}

/// The content of a field whose key has been read, and what follows; none if it is cut, or longer than 16 KiB.
#[inline]
fn content(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    match rest {
        [len @ ..0x80, tail @ ..] => tail.split_at_checked(usize::from(*len)),
        [low, high @ ..0x80, tail @ ..] => {
            tail.split_at_checked(usize::from(*low & 0x7f) | usize::from(*high) << 7)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::pb;

    fn health(time: u64, text_bytes: usize) -> pb::ComponentHealth {
        pb::ComponentHealth {
            healthy: true,
            start_time_unix_nano: 7 * time,
            last_error: "e".repeat(text_bytes),
            status: "s".repeat(text_bytes),
            status_time_unix_nano: time,
            component_health_map: [].into(),
            attributes: vec![pb::KeyValue { key: "k".to_owned(), value: None }; 2],
        }
    }

    /// Components of components, as deep as they are compared.
    fn tree(time: u64, text_bytes: usize, levels: u32) -> pb::ComponentHealth {
        let below = |name: &str| (name.to_owned(), tree(time, text_bytes, levels - 1));
        let below = if levels == 0 { [].into() } else { ["", "b"].map(below).into() };
        pb::ComponentHealth { component_health_map: below, ..health(time, text_bytes) }
    }

    fn compared(held: &pb::ComponentHealth, new: &pb::ComponentHealth) -> Option<KnownHealth> {
        let held = held.encode_to_vec();
        HeldPart { encoded: &held, digest: 5 }.health_but_for_times(&new.encode_to_vec())
    }

    #[test]
    fn health_that_only_ticks_is_known_without_a_check() {
        for (text_bytes, levels) in [(0, 0), (1, 2), (127, 1), (128, 1), (300, 1), (1, LEVELS)] {
            let held = tree(1, text_bytes, levels);
            for time in [1, 2] {
                let known = KnownHealth { digest: 5, start_time_unix_nano: 7 * time };
                assert_eq!(compared(&held, &tree(time, text_bytes, levels)), Some(known), "{text_bytes}");
            }
        }
    }

    #[test]
    fn what_is_another_length_or_nests_deeper_is_not_known() {
        assert_eq!(compared(&tree(1, 1, 1), &tree(1, 2, 1)), None);
        assert_eq!(compared(&tree(1, 1, 1), &tree(1, 1, 0)), None);
        assert_eq!(compared(&tree(0, 0, LEVELS + 1), &tree(0, 0, LEVELS + 1)), None);
    }
}

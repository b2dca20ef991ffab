//! Waves that mirror the mix of the fleet (R14), and failure domains (R15).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::StratumKey;
use crate::AgentFacts;
use crate::labels::LabelValue;

/// Texts as numbers: the same text, the same number.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<Box<str>, u32>);

impl Names {
    /// The text's number: by order of arrival.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.0.get(text) {
            return *number;
        }
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.insert(text.into(), next);
        next
    }

    /// The number of a text that has one.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.0.get(text).copied()
    }

    /// For each number the text's position among all texts, so that the order of arrival has no say any more.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.0.len()];
        for (number, rank) in self.0.values().zip(0..) {
            ranks[*number as usize] = rank;
        }
        ranks
    }

    /// The texts, ascending.
    pub(super) fn sorted(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|text| &**text)
    }
}

/// The stratum of an agent as text.
pub(super) fn stratum(keys: &[StratumKey], facts: &AgentFacts) -> String {
    let mut text = String::new();
    for key in keys {
        let value = match key {
            StratumKey::AgentType => Some(facts.agent_type()),
            StratumKey::Label(name) => label(facts, name),
            StratumKey::Version => facts.version(),
        };
        // Absent is another value than empty, and no value runs into the next one.
        match value {
            Some(value) => text.push_str(&format!("{}:{value}", value.len())),
            None => text.push('-'),
        }
    }
    text
}

/// The value of a label, if it can be compared.
pub(super) fn label<'a>(facts: &'a AgentFacts, name: &str) -> Option<&'a str> {
    facts.labels.value(None, name).and_then(LabelValue::as_text)
}

/// Positions of members such that after any number of them, the number from each stratum differs by at most one from its
/// exact share. Within a stratum the order stays. `strata` has one number for each member, from 0 without gaps.
///
/// The j-th of the n members of a stratum, of N in all, may come at ⌈(j − 1)·N/n⌉ at the earliest and ⌊j·N/n⌋ + 1 at the
/// latest without breaking that; taking at each place whoever has to come first meets all of these (Steiner and Yeomans,
/// "Level schedules for mixed-model, just-in-time processes", 1993).
pub(super) fn interleaved(strata: &[u32]) -> Vec<u32> {
    let count = strata.iter().max().map_or(0, |last| *last as usize + 1);
    if count <= 1 {
        return (0..).take(strata.len()).collect();
    }
    let mut queues: Vec<Queue> = (0..count).map(|_| Queue::default()).collect();
    for (stratum, member) in strata.iter().zip(0..) {
        queues[*stratum as usize].members.push(member);
    }
    let all = strata.len() as u64;
    // By the place from which on they may come, and by the place at which they must: whose turn is next in each stratum.
    let mut early: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut due: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    for (stratum, queue) in queues.iter().enumerate() {
        early.extend(queue.release(all).map(|place| Reverse((place, stratum))));
    }
    let mut sequence = Vec::with_capacity(strata.len());
    for place in 1..=all {
        while let Some(Reverse((release, stratum))) = early.peek().copied() {
            // With nobody due the next one comes early; the rule above never lets that happen.
            if release > place && !due.is_empty() {
                break;
            }
            early.pop();
            due.push(Reverse((queues[stratum].deadline(all), stratum)));
        }
        let Some(Reverse((_, stratum))) = due.pop() else { break };
        let queue = &mut queues[stratum];
        sequence.extend(queue.take());
        early.extend(queue.release(all).map(|place| Reverse((place, stratum))));
    }
    sequence
}

/// The members of one stratum, in order.
#[derive(Default)]
struct Queue {
    members: Vec<u32>,
    taken: usize,
}

impl Queue {
    /// The first place at which the next member may come; none if there is none.
    fn release(&self, all: u64) -> Option<u64> {
        let size = self.members.len() as u64;
        (self.taken < self.members.len()).then(|| (self.taken as u64 * all).div_ceil(size))
    }

    /// The last place at which the next member may come.
    fn deadline(&self, all: u64) -> u64 {
        let size = self.members.len().max(1) as u64;
        (self.taken as u64 + 1) * all / size + 1
    }

    fn take(&mut self) -> Option<u32> {
        let member = self.members.get(self.taken).copied();
        self.taken += usize::from(member.is_some());
        member
    }
}

/// Members, in the order of `sequence`, in waves of these sizes, such that as few as possible share a wave with another one
/// of the same value of `values`: each goes to the first wave with room that has none of its value, and those for whom
/// there was none change places with somebody from another wave.
pub(super) fn spread(sequence: &[u32], values: &[Option<u32>], sizes: &[u32]) -> Vec<Vec<u32>> {
    let mut waves: Vec<Vec<u32>> = sizes.iter().map(|size| Vec::with_capacity(*size as usize)).collect();
    let mut open: BTreeSet<usize> = (0..sizes.len()).filter(|wave| sizes[*wave] > 0).collect();
    let mut held = Held { values, waves: vec![BTreeMap::new(); sizes.len()] };
    // By value the first wave that may have none of it: waves lose nobody, so that no earlier one has to be looked at again.
    let mut from = vec![0; values.iter().flatten().max().map_or(0, |last| *last as usize + 1)];
    for member in sequence {
        let alone = held.value(*member).and_then(|value| {
            let from = &mut from[value as usize];
            let found = open.range(*from..).find(|wave| !held.has(**wave, *member)).copied();
            *from = found.unwrap_or(sizes.len());
            found
        });
        let Some(wave) = alone.or(open.first().copied()) else { break };
        held.add(wave, *member);
        waves[wave].push(*member);
        if waves[wave].len() == sizes[wave] as usize {
            open.remove(&wave);
        }
    }
    let mut tries = TRIES_PER_MEMBER.saturating_mul(sequence.len()).min(TRIES_MAX);
    for wave in 0..waves.len() {
        for place in 0..waves[wave].len() {
            let member = waves[wave][place];
            if held.is_alone(wave, member) {
                continue;
            }
            if let Some((other, at)) = partner(&waves, &held, wave, member, &mut tries) {
                let changed = waves[other][at];
                held.remove(wave, member);
                held.remove(other, changed);
                held.add(other, member);
                held.add(wave, changed);
                waves[wave][place] = changed;
                waves[other][at] = member;
            }
        }
    }
    waves
}

/// How many waves and members are looked at for changes of places, so that a fleet of one value does not take for ever.
const TRIES_PER_MEMBER: usize = 32;

/// … and in all.
const TRIES_MAX: usize = 8_000_000;

/// Somebody of another wave, the last ones first, who can change places with a member that is not alone.
fn partner(
    waves: &[Vec<u32>],
    held: &Held<'_>,
    wave: usize,
    member: u32,
    tries: &mut usize,
) -> Option<(usize, usize)> {
    for other in (0..waves.len()).rev().filter(|other| *other != wave) {
        *tries = tries.checked_sub(1)?;
        if held.has(other, member) {
            continue;
        }
        for (at, changed) in waves[other].iter().enumerate().rev() {
            *tries = tries.checked_sub(1)?;
            if !held.has(wave, *changed) {
                return Some((other, at));
            }
        }
    }
    None
}

/// How many members of each value each wave has.
struct Held<'a> {
    values: &'a [Option<u32>],
    waves: Vec<BTreeMap<u32, u32>>,
}

impl Held<'_> {
    fn value(&self, member: u32) -> Option<u32> {
        self.values.get(member as usize).copied().flatten()
    }

    fn count(&self, wave: usize, member: u32) -> u32 {
        self.value(member).and_then(|value| self.waves[wave].get(&value)).copied().unwrap_or(0)
    }

    /// Whether the wave has a member of this one's value.
    fn has(&self, wave: usize, member: u32) -> bool {
        self.count(wave, member) > 0
    }

    /// Whether a member of the wave shares it with none of its value.
    fn is_alone(&self, wave: usize, member: u32) -> bool {
        self.count(wave, member) < 2
    }

    fn add(&mut self, wave: usize, member: u32) {
        if let Some(value) = self.value(member) {
            *self.waves[wave].entry(value).or_default() += 1;
        }
    }

    fn remove(&mut self, wave: usize, member: u32) {
        let Some(value) = self.value(member) else { return };
        if let Some(count) = self.waves[wave].get_mut(&value) {
            *count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_stratum_stays_in_order() {
        assert!(interleaved(&[]).is_empty());
        assert_eq!(interleaved(&[0, 0, 0]), [0, 1, 2]);
    }

    #[test]
    fn two_equal_strata_take_turns() {
        let taken = interleaved(&[0, 0, 0, 1, 1, 1]);
        let strata: Vec<bool> = taken.iter().map(|member| *member < 3).collect();
        for pair in strata.chunks(2) {
            assert_ne!(pair[0], pair[1], "{taken:?}");
        }
    }

    #[test]
    fn agents_of_one_value_are_in_waves_of_their_own_as_far_as_possible() {
        let values = [Some(0), Some(0), Some(1), Some(1), None, None];
        let waves = spread(&[0, 1, 2, 3, 4, 5], &values, &[2, 2, 2]);
        assert_eq!(waves, [vec![0, 2], vec![1, 3], vec![4, 5]]);
        let impossible = spread(&[0, 1, 2], &[Some(0), Some(0), Some(0)], &[1, 2]);
        assert_eq!(impossible, [vec![0], vec![1, 2]]);
    }

    #[test]
    fn those_for_whom_no_wave_was_left_change_places() {
        // The first wave and the second have one of each pair; both of the last pair are left for the third.
        let values = [0, 1, 0, 1, 2, 2].map(Some);
        let waves = spread(&[0, 1, 2, 3, 4, 5], &values, &[2, 2, 2]);
        for wave in &waves {
            let distinct: BTreeSet<_> = wave.iter().map(|member| values[*member as usize]).collect();
            assert_eq!(distinct.len(), wave.len(), "{waves:?}");
        }
    }

    #[test]
    fn many_members_of_one_value_in_many_waves_are_spread_without_looking_at_each_wave_for_each() {
        let all = 100_000;
        let sequence: Vec<u32> = (0..all).collect();
        let sizes = vec![all / 1_000; 1_000];
        let waves = spread(&sequence, &vec![Some(0); all as usize], &sizes);
        assert!(waves.iter().all(|wave| wave.len() == 100));
        let distinct: Vec<Option<u32>> = sequence.iter().copied().map(Some).collect();
        assert_eq!(spread(&sequence, &distinct, &sizes).concat(), sequence, "nobody has to be moved");
    }

    #[test]
    fn empty_waves_stay_empty() {
        assert_eq!(spread(&[0, 1], &[None, None], &[1, 0, 1]), [vec![0], vec![], vec![1]]);
    }

    #[test]
    fn texts_are_ranked_whatever_order_they_came_in() {
        let mut names = Names::default();
        let numbers = ["b", "c", "a", "c"].map(|text| names.number(text));
        let ranks = names.ranks();
        assert_eq!(numbers.map(|number| ranks[number as usize]), [1, 2, 0, 2]);
        assert_eq!(names.sorted().collect::<String>(), "abc");
        assert_eq!(names.find("d"), None);
    }

    proptest! {
        #[test]
        fn after_any_number_of_members_each_stratum_has_its_share_within_one(
            sizes in prop::collection::vec(1u64..60, 1..9)
        ) {
            let strata: Vec<u32> = (0u32..).zip(&sizes).flat_map(|(s, n)| (0..*n).map(move |_| s)).collect();
            let all = strata.len() as u64;
            let sequence = interleaved(&strata);
            let mut sorted = sequence.clone();
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq((0u32..).take(strata.len())), "a permutation");
            let mut seen = vec![0u64; sizes.len()];
            for (member, place) in sequence.iter().zip(1u64..) {
                seen[strata[*member as usize] as usize] += 1;
                for (seen, size) in seen.iter().zip(&sizes) {
                    prop_assert!((seen * all).abs_diff(place * size) <= all, "{sizes:?} at {place}");
                }
            }
        }

        #[test]
        fn waves_are_full_and_have_everybody_once(
            values in prop::collection::vec(prop::option::of(0u32..4), 0..60),
            first in 0u32..60,
        ) {
            let all = u32::try_from(values.len()).unwrap();
            let sizes = [first.min(all), all - first.min(all)];
            let sequence: Vec<u32> = (0..all).collect();
            let waves = spread(&sequence, &values, &sizes);
            prop_assert_eq!([waves[0].len(), waves[1].len()], sizes.map(|size| size as usize));
            let mut everybody = waves.concat();
            everybody.sort_unstable();
            prop_assert_eq!(everybody, sequence);
        }
    }
}

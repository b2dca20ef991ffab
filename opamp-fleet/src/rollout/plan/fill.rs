//! Members into waves: the control group, who runs it already, and the rest in their waves.

use std::collections::{BTreeMap, BTreeSet};

use super::order::hash;
use super::pick::{Pick, Texts};
use super::strata::{interleaved, spread};
use super::strategy::{Cut, by_count, by_value};
use super::{Plan, PlanRequest, Strategy};
use crate::rollout::{PlanError, RolloutId};

/// The members of a plan, divided.
pub(super) struct Filled {
    pub(super) waves: Vec<FilledWave>,
    /// By key.
    pub(super) current: Vec<Pick>,
    /// By key.
    pub(super) control: Vec<Pick>,
}

/// One wave and its members in order.
pub(super) struct FilledWave {
    pub(super) cut: Cut,
    pub(super) members: Vec<Pick>,
    pub(super) last_key: Box<[u8]>,
}

pub(super) fn fill(request: &PlanRequest<'_>, picks: Vec<Pick>, texts: &Texts) -> Result<Filled, PlanError> {
    let (mut current, mut queued): (Vec<Pick>, Vec<Pick>) =
        picks.into_iter().partition(|pick| pick.is_current);
    for list in [&mut current, &mut queued] {
        list.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(a.id.cmp(&b.id)));
    }
    let control = control_group(request.id, request.control_group as usize, &mut queued)?;
    let waves = match request.strategy.label() {
        _ if queued.is_empty() => vec![nobody()],
        None => counted(request, queued, texts)?,
        Some(_) => labelled(&request.strategy, queued, texts)?,
    };
    Ok(Filled { waves, current, control })
}

/// The one wave of a plan whose members all run it already: there is nothing to wait for.
fn nobody() -> FilledWave {
    let cut = Cut {
        name: "nobody".into(),
        end: 0,
        dwell: std::time::Duration::ZERO,
        approval: false,
        manual: false,
        value: None,
    };
    FilledWave { cut, members: Vec::new(), last_key: Box::default() }
}

/// Takes out the control group: by hash, whatever the order, so that it is not all of one kind.
fn control_group(rollout: RolloutId, size: usize, queued: &mut Vec<Pick>) -> Result<Vec<Pick>, PlanError> {
    if size == 0 || queued.is_empty() {
        return Ok(Vec::new());
    }
    if size >= queued.len() {
        return Err(PlanError::Strategy { what: "the control group leaves no member" });
    }
    let mut hashes: Vec<_> = queued.iter().map(|pick| (hash(rollout, pick.id), pick.id)).collect();
    // From the end, where those are that would come last.
    hashes.sort_unstable_by(|a, b| b.cmp(a));
    let chosen: BTreeSet<_> = hashes.into_iter().take(size).map(|(_, id)| id).collect();
    let (control, rest) = std::mem::take(queued).into_iter().partition(|pick| chosen.contains(&pick.id));
    *queued = rest;
    Ok(control)
}

fn counted(
    request: &PlanRequest<'_>,
    queued: Vec<Pick>,
    texts: &Texts,
) -> Result<Vec<FilledWave>, PlanError> {
    let members = u32::try_from(queued.len()).unwrap_or(u32::MAX);
    let cuts = by_count(&request.strategy, members)?;
    let all: Vec<u32> = (0..members).collect();
    let sequence = mixed(&all, &queued, &texts.strata.ranks());
    let mut first = 0;
    let sizes: Vec<u32> = cuts.iter().map(|cut| cut.end - std::mem::replace(&mut first, cut.end)).collect();
    let lists = match request.domains.as_ref().and_then(|domains| domains.anti_affinity.as_ref()) {
        None => {
            let mut rest = &sequence[..];
            let mut take = |size: &u32| {
                let (wave, after) = rest.split_at(*size as usize);
                rest = after;
                wave.to_vec()
            };
            sizes.iter().map(&mut take).collect()
        }
        Some(_) => {
            let values: Vec<Option<u32>> = queued.iter().map(|pick| pick.apart).collect();
            spread(&sequence, &values, &sizes)
        }
    };
    let keys: Vec<Box<[u8]>> = cuts
        .iter()
        .zip(&sizes)
        .map(|(cut, size)| match cut.end.checked_sub(1) {
            Some(last) if *size > 0 => queued[last as usize].key.clone(),
            _ => Box::default(),
        })
        .collect();
    Ok(dealt(cuts.into_iter().zip(keys).zip(lists), queued))
}

fn labelled(strategy: &Strategy, queued: Vec<Pick>, texts: &Texts) -> Result<Vec<FilledWave>, PlanError> {
    let values: Vec<Box<str>> = match strategy {
        Strategy::LabelRings { rings, .. } => rings.to_vec(),
        _ => texts.waves.sorted().map(Box::<str>::from).collect(),
    };
    if values.len() >= usize::from(Plan::WAVES_MAX) {
        return Err(PlanError::TooManyWaves { limit: Plan::WAVES_MAX });
    }
    let numbers =
        values.iter().enumerate().filter_map(|(wave, value)| Some((texts.waves.find(value)?, wave)));
    let waves: BTreeMap<u32, usize> = numbers.collect();
    let mut lists: Vec<Vec<u32>> = vec![Vec::new(); values.len() + 1];
    for (pick, member) in queued.iter().zip(0..) {
        let wave = pick.wave.and_then(|number| waves.get(&number)).copied().unwrap_or(values.len());
        lists[wave].push(member);
    }
    let sizes: Vec<u32> = lists.iter().map(|list| u32::try_from(list.len()).unwrap_or(u32::MAX)).collect();
    let unmatched = sizes.last().copied().unwrap_or_default();
    let with_sizes: Vec<(Box<str>, u32)> = values.into_iter().zip(sizes).collect();
    let cuts = by_value(&with_sizes, unmatched);
    let ranks = texts.strata.ranks();
    let lists: Vec<Vec<u32>> = lists.iter().map(|list| mixed(list, &queued, &ranks)).collect();
    Ok(dealt(cuts.into_iter().map(|cut| (cut, Box::default())).zip(lists), queued))
}

/// The members of a list, such that each part of it mirrors the mix of all of it.
fn mixed(list: &[u32], picks: &[Pick], ranks: &[u32]) -> Vec<u32> {
    let stratum = |member: &u32| ranks[picks[*member as usize].stratum as usize];
    let present: BTreeSet<u32> = list.iter().map(stratum).collect();
    let numbers: BTreeMap<u32, u32> = present.into_iter().zip(0..).collect();
    let strata: Vec<u32> = list.iter().map(|member| numbers[&stratum(member)]).collect();
    interleaved(&strata).into_iter().map(|at| list[at as usize]).collect()
}

/// Gives each wave the members of its list.
fn dealt(waves: impl Iterator<Item = ((Cut, Box<[u8]>), Vec<u32>)>, queued: Vec<Pick>) -> Vec<FilledWave> {
    let mut queued: Vec<Option<Pick>> = queued.into_iter().map(Some).collect();
    waves
        .map(|((cut, last_key), list)| {
            let members = list.into_iter().filter_map(|member| queued[member as usize].take()).collect();
            FilledWave { cut, members, last_key }
        })
        .collect()
}

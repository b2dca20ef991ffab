//! Rows of members by column. A column is runs of equal values, each as its way from the run before, so that members of
//! whom there is nothing to tell cost next to nothing.

use super::codec::{Wire, unzigzag, zigzag};
use super::snapshot::Page;
use crate::rollout::members::{Fell, Flags, Pace, Row};
use crate::rollout::{ConfigIx, MemberState, Reason, RestoreError, Time, WaveIx, ZoneIx};

/// Appends rows and paces, which are equally many: the count, then column by column.
pub(super) fn put_rows(rows: &[Row], paces: &[Pace], out: &mut Vec<u8>) {
    rows.len().put(out);
    for column in COLUMNS {
        put_column(rows.iter().map(column.get), out);
    }
    put_column(paces.iter().map(|pace| u64::from(pace.interval_s)), out);
    put_column(paces.iter().map(|pace| u64::from(pace.spans)), out);
}

/// Takes what [`put_rows`] appended; at most [`Page::MEMBERS`] rows.
pub(super) fn take_rows(bytes: &mut &[u8]) -> Result<(Vec<Row>, Vec<Pace>), RestoreError> {
    let count = usize::take(bytes)?;
    if count > Page::MEMBERS {
        return Err(RestoreError::Invalid { what: "page" });
    }
    let mut rows =
        vec![Row::queued(WaveIx(0), ZoneIx::NONE, ConfigIx::NONE, Flags::default(), Time(0)); count];
    for column in COLUMNS {
        let values = take_column(count, bytes)?;
        for (row, value) in rows.iter_mut().zip(values) {
            (column.set)(row, value).ok_or(RestoreError::Invalid { what: column.name })?;
        }
    }
    let intervals = take_column(count, bytes)?;
    let spans = take_column(count, bytes)?;
    let pace = |(interval_s, spans): (u64, u64)| {
        Some(Pace { interval_s: interval_s.try_into().ok()?, spans: spans.try_into().ok()? })
    };
    let paces: Option<Vec<Pace>> = intervals.into_iter().zip(spans).map(pace).collect();
    Ok((rows, paces.ok_or(RestoreError::Invalid { what: "pace" })?))
}

fn put_column(values: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
    let mut run: Option<(u64, u64)> = None;
    let mut last = 0;
    for value in values {
        match &mut run {
            Some((of, length)) if *of == value => *length += 1,
            _ => {
                put_run(run, &mut last, out);
                run = Some((value, 1));
            }
        }
    }
    put_run(run, &mut last, out);
}

fn put_run(run: Option<(u64, u64)>, last: &mut u64, out: &mut Vec<u8>) {
    if let Some((value, length)) = run {
        zigzag(value.wrapping_sub(*last) as i64).put(out);
        length.put(out);
        *last = value;
    }
}

fn take_column(count: usize, bytes: &mut &[u8]) -> Result<Vec<u64>, RestoreError> {
    let mut values = Vec::with_capacity(count);
    let mut last = 0_u64;
    while values.len() < count {
        last = last.wrapping_add(unzigzag(u64::take(bytes)?) as u64);
        let length = usize::take(bytes)?;
        if length == 0 || length > count - values.len() {
            return Err(RestoreError::Invalid { what: "column" });
        }
        values.resize(values.len() + length, last);
    }
    Ok(values)
}

/// One field of a row as a number.
struct Column {
    name: &'static str,
    get: fn(&Row) -> u64,
    /// None if the number is no value of the field.
    set: fn(&mut Row, u64) -> Option<()>,
}

macro_rules! columns {
    ($($name:literal: $get:expr, $set:expr;)+) => {
        [$(Column { name: $name, get: $get, set: $set }),+]
    };
}

const COLUMNS: [Column; 18] = columns! {
    "state": |row| row.state.index() as u64, |row, value| word(&MemberState::ALL, value).map(|state| row.state = state);
    "reason": |row| row.reason.index() as u64, |row, value| word(&Reason::ALL, value).map(|reason| row.reason = reason);
    "stage": |row| row.stage.index() as u64, |row, value| word(&MemberState::ALL, value).map(|stage| row.stage = stage);
    "falls": |row| row.falls.into(), |row, value| value.try_into().ok().map(|falls| row.falls = falls);
    "tries": |row| row.transport_tries.into(), |row, value| value.try_into().ok().map(|n| row.transport_tries = n);
    "failed tries": |row| row.failed_tries.into(), |row, value| value.try_into().ok().map(|n| row.failed_tries = n);
    "falls before": |row| row.falls_before.into(), |row, value| value.try_into().ok().map(|n| row.falls_before = n);
    "returns": |row| row.returns.into(), |row, value| value.try_into().ok().map(|n| row.returns = n);
    "flags": |row| row.flags.0.into(), |row, value| value.try_into().ok().map(|bits| row.flags = Flags(bits));
    "bad": |row| row.bad.into(), |row, value| value.try_into().ok().map(|bits| row.bad = bits);
    "wave": |row| row.wave.0.into(), |row, value| value.try_into().ok().map(|wave| row.wave = WaveIx(wave));
    "zone": |row| row.zone.0.into(), |row, value| value.try_into().ok().map(|zone| row.zone = ZoneIx(zone));
    "previous": |row| row.previous.0.into(), |row, value| value.try_into().ok().map(|n| row.previous = ConfigIx(n));
    "offer": |row| row.offer.into(), |row, value| value.try_into().ok().map(|offer| row.offer = offer);
    "since": |row| row.since.0, |row, value| time(&mut row.since, value);
    "deadline": |row| row.deadline.0, |row, value| time(&mut row.deadline, value);
    "applied": |row| row.applied_at.0, |row, value| time(&mut row.applied_at, value);
    "fell": |row| fell(row.fell), |row, value| { row.fell = Fell::from_seconds(value as u32, (value >> 32) as u32); Some(()) };
};

fn fell(fell: Fell) -> u64 {
    let [last, before] = fell.seconds();
    u64::from(last) | u64::from(before) << 32
}

fn time(field: &mut Time, value: u64) -> Option<()> {
    *field = Time(value);
    Some(())
}

fn word<T: Copy>(all: &[T], code: u64) -> Option<T> {
    all.get(usize::try_from(code).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u32) -> Row {
        Row {
            state: MemberState::ALL[number as usize % MemberState::ALL.len()],
            reason: Reason::ALL[number as usize % Reason::ALL.len()],
            stage: MemberState::Applying,
            falls: number as u8,
            transport_tries: 2,
            failed_tries: 1,
            falls_before: 255,
            returns: 3,
            bad: u16::MAX,
            offer: number,
            since: Time(1_700_000_000_000 + u64::from(number)),
            deadline: if number.is_multiple_of(2) { Time::NEVER } else { Time(1) },
            applied_at: Time(u64::from(number) << 40),
            fell: Fell::from_seconds(number, u32::MAX - number),
            ..Row::queued(WaveIx::TAIL, ZoneIx(7), ConfigIx(9), Flags(0xbeef), Time(0))
        }
    }

    #[test]
    fn rows_are_read_back_as_they_were_and_a_cut_page_is_refused() {
        let rows: Vec<Row> = (0..200).map(row).collect();
        let paces: Vec<Pace> = (0..200).map(|n| Pace { interval_s: n * 300, spans: n as u8 }).collect();
        let mut out = Vec::new();
        put_rows(&rows, &paces, &mut out);
        let mut bytes = &out[..];
        assert_eq!(take_rows(&mut bytes), Ok((rows, paces)));
        assert!(bytes.is_empty());
        for end in 0..out.len() {
            assert!(take_rows(&mut &out[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn members_of_whom_there_is_nothing_to_tell_cost_next_to_nothing() {
        let queued =
            Row::queued(WaveIx(3), ZoneIx::NONE, ConfigIx(0), Flags::CONNECTED, Time(1_700_000_000_000));
        let mut out = Vec::new();
        put_rows(&vec![queued; Page::MEMBERS], &vec![Pace::default(); Page::MEMBERS], &mut out);
        assert!(out.len() < 128, "{} bytes for {} members", out.len(), Page::MEMBERS);
    }

    #[test]
    fn a_run_beyond_the_page_and_a_word_nobody_knows_are_refused() {
        assert!(take_column(3, &mut &[0, 4][..]).is_err());
        assert!(take_column(3, &mut &[0, 0][..]).is_err());
        let mut out = Vec::new();
        1_usize.put(&mut out);
        put_column([200].into_iter(), &mut out);
        assert_eq!(take_rows(&mut &out[..]), Err(RestoreError::Invalid { what: "state" }));
    }
}

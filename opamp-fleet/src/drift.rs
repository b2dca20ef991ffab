//! How an agent's configuration relates to the one it should run.

use opamp_proto::pb::RemoteConfigStatuses;
use opamp_proto::{ConfigHash, Wall};

use crate::words::closed_set;

closed_set! {
    /// The relation of an agent's configuration to its desired one.
    pub enum Drift ("drift") {
        /// Nothing is desired: the agent is left alone.
        Unmanaged = "unmanaged",
        /// It runs what it should.
        InSync = "in_sync",
        /// It has not shown that it received the desired configuration.
        Pending = "pending",
        /// It received the desired configuration and has not said how that went.
        Applying = "applying",
        /// It could not apply the desired configuration.
        Failed = "failed",
        /// It ran the desired configuration well, and now reports another.
        Drifted = "drifted",
    }
}

/// The facts drift is judged by. Hashes are compared as opaque bytes (R-CONF-21); times are the server's.
#[derive(Clone, Copy, Debug, Default)]
pub struct DriftFacts<'a> {
    /// Hash of the configuration the agent should run and when that was decided; none if it is not managed.
    pub desired: Option<(&'a ConfigHash, Wall)>,
    /// Its last `remote_config_status`: hash and status number.
    pub reported: Option<(&'a [u8], i32)>,
    /// Hash and arrival of its last FAILED report, which a later report may hide.
    pub last_failure: Option<(&'a ConfigHash, Wall)>,
    /// Arrival of its last APPLIED report, for whatever hash.
    pub last_applied_at: Option<Wall>,
    /// Hash of the last desired configuration it applied while healthy.
    pub last_known_good: Option<&'a ConfigHash>,
    /// Canonical hash of its effective configuration, in the form of [`opamp_proto::hash::config_hash`].
    pub effective: Option<&'a ConfigHash>,
}

impl Drift {
    /// Judges one agent whose desired configuration is D. The first row that matches counts.
    ///
    /// | the last report is for | and | drift |
    /// |---|---|---|
    /// | – | nothing is desired | unmanaged |
    /// | D | APPLIED | in_sync |
    /// | D | FAILED since D was assigned | failed |
    /// | D | FAILED before D was assigned again | pending |
    /// | D | APPLYING, UNSET, unknown number | applying |
    /// | another, or none | the effective configuration equals D | in_sync |
    /// | another, or none | D failed since it was assigned | failed |
    /// | another | D is the last known good, and something was applied since D was assigned | drifted |
    /// | another, or none | otherwise | pending |
    ///
    /// An effective configuration that differs from D proves nothing, since it may be a merge with local parts
    /// (R-CONF-07, R-CONF-29); one that equals D is evidence for agents that report no status. APPLIED for
    /// another hash is never success. A failure of D followed by APPLIED of an older one is an agent that went
    /// back by itself: failed, not drifted.
    pub fn judge(facts: &DriftFacts<'_>) -> Self {
        let Some((desired, assigned_at)) = facts.desired else { return Self::Unmanaged };
        let failed_at = facts.last_failure.and_then(|(hash, at)| (hash == desired).then_some(at));
        match facts.reported {
            Some((hash, status)) if hash == desired.as_bytes() => {
                match RemoteConfigStatuses::try_from(status) {
                    Ok(RemoteConfigStatuses::Applied) => Self::InSync,
                    Ok(RemoteConfigStatuses::Failed) if failed_at.is_some_and(|at| at < assigned_at) => {
                        Self::Pending
                    }
                    Ok(RemoteConfigStatuses::Failed) => Self::Failed,
                    Ok(RemoteConfigStatuses::Applying | RemoteConfigStatuses::Unset) | Err(_) => {
                        Self::Applying
                    }
                }
            }
            _ if facts.effective == Some(desired) => Self::InSync,
            _ if failed_at.is_some_and(|at| at >= assigned_at) => Self::Failed,
            Some((hash, _))
                if !hash.is_empty()
                    && facts.last_known_good == Some(desired)
                    && facts.last_applied_at.is_some_and(|at| at >= assigned_at) =>
            {
                Self::Drifted
            }
            _ => Self::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSET: i32 = RemoteConfigStatuses::Unset as i32;
    const APPLIED: i32 = RemoteConfigStatuses::Applied as i32;
    const APPLYING: i32 = RemoteConfigStatuses::Applying as i32;
    const FAILED: i32 = RemoteConfigStatuses::Failed as i32;

    /// Times around the assignment of the desired configuration.
    const BEFORE: Wall = Wall(10);
    const ASSIGNED: Wall = Wall(20);
    const SINCE: Wall = Wall(30);

    /// Hashes by name: `d` is desired, `o` another one, `e` the empty hash of a report that names none.
    fn hash(name: char) -> ConfigHash {
        if name == 'e' { ConfigHash::new(Vec::new()) } else { ConfigHash::new(vec![name as u8; 20]) }
    }

    struct Row(
        Option<(char, i32)>,  // reported
        Option<(char, Wall)>, // last failure
        Option<Wall>,         // last applied at
        Option<char>,         // last known good
        Option<char>,         // effective
        Drift,
    );

    fn judge(desired: Option<char>, row: &Row) -> Drift {
        let desired = desired.map(hash);
        let reported = row.0.map(|(name, status)| (hash(name), status));
        let failure = row.1.map(|(name, at)| (hash(name), at));
        let [known_good, effective] = [row.3, row.4].map(|name| name.map(hash));
        Drift::judge(&DriftFacts {
            desired: desired.as_ref().map(|hash| (hash, ASSIGNED)),
            reported: reported.as_ref().map(|(hash, status)| (hash.as_bytes(), *status)),
            last_failure: failure.as_ref().map(|(hash, at)| (hash, *at)),
            last_applied_at: row.2,
            last_known_good: known_good.as_ref(),
            effective: effective.as_ref(),
        })
    }

    #[rustfmt::skip]
    const TABLE: [Row; 20] = [
        //  reported              failure              applied at     good       effective  drift
        Row(Some(('d', APPLIED)),  None,                Some(SINCE),  None,      None,      Drift::InSync),
        Row(Some(('d', APPLIED)),  Some(('d', SINCE)),  Some(SINCE),  None,      Some('o'), Drift::InSync),
        Row(Some(('d', FAILED)),   Some(('d', SINCE)),  Some(BEFORE), Some('o'), Some('o'), Drift::Failed),
        Row(Some(('d', FAILED)),   Some(('d', SINCE)),  Some(SINCE),  Some('d'), Some('d'), Drift::Failed),
        Row(Some(('d', FAILED)),   None,                None,         None,      None,      Drift::Failed),
        Row(Some(('d', FAILED)),   Some(('d', BEFORE)), None,         None,      Some('o'), Drift::Pending),
        Row(Some(('d', APPLYING)), None,                None,         None,      Some('o'), Drift::Applying),
        Row(Some(('d', UNSET)),    None,                None,         None,      None,      Drift::Applying),
        Row(Some(('d', 77)),       None,                None,         None,      None,      Drift::Applying),
        Row(None,                  None,                None,         None,      Some('d'), Drift::InSync),
        Row(Some(('o', APPLIED)),  None,                Some(BEFORE), None,      Some('d'), Drift::InSync),
        Row(Some(('o', APPLIED)),  Some(('d', SINCE)),  Some(SINCE),  Some('o'), Some('o'), Drift::Failed),
        Row(Some(('o', APPLIED)),  Some(('d', BEFORE)), Some(BEFORE), Some('o'), Some('o'), Drift::Pending),
        Row(None,                  Some(('d', SINCE)),  None,         None,      None,      Drift::Failed),
        Row(Some(('o', APPLIED)),  Some(('o', SINCE)),  Some(SINCE),  Some('d'), Some('o'), Drift::Drifted),
        Row(Some(('o', APPLIED)),  None,                Some(BEFORE), Some('d'), Some('o'), Drift::Pending),
        Row(Some(('o', APPLIED)),  None,                Some(SINCE),  Some('o'), Some('o'), Drift::Pending),
        Row(Some(('e', UNSET)),    None,                Some(SINCE),  Some('d'), Some('o'), Drift::Pending),
        Row(None,                  None,                Some(SINCE),  Some('d'), None,      Drift::Pending),
        Row(None,                  None,                None,         None,      None,      Drift::Pending),
    ];

    #[test]
    fn drift_is_judged_by_the_table() {
        for (number, row) in TABLE.iter().enumerate() {
            assert_eq!(judge(Some('d'), row), row.5, "row {number}");
        }
    }

    #[test]
    fn without_a_desired_configuration_every_agent_is_unmanaged() {
        for row in &TABLE {
            assert_eq!(judge(None, row), Drift::Unmanaged);
        }
    }
}

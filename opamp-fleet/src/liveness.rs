//! Liveness of an agent in the inventory: one closed set, one transition function.

use crate::words::closed_set;

closed_set! {
    /// Whether an agent is there. Every agent of the inventory is in exactly one of these.
    ///
    /// ```text
    ///              Seen                 Silent (T1)
    /// never_seen ─────────► connected ─────────────► stale
    ///                        ▲ ▲ ▲ │ ▲                │ │
    ///                        │ │ │ │ └───── Seen ─────┘ │
    ///                   Seen │ │ │ │ Closed             │ Closed
    ///                        │ │ │ ▼                    ▼
    ///                        │ │ └──── disconnected ◄───┘
    ///                        │ │  Seen      │ Lapsed (T2), also from stale
    ///                        │ └────────────┼──
    ///                        └── expired ◄──┘
    /// ```
    pub enum Liveness ("liveness") {
        /// There is a connection, or polls arrive in time.
        Connected = "connected",
        /// The connection is open or polls were expected, but there was no sign of life for T1.
        Stale = "stale",
        /// The connection is closed, gracefully or not.
        Disconnected = "disconnected",
        /// It did not return within T2. The record is kept as a tombstone.
        Expired = "expired",
        /// It is expected and has not arrived yet.
        NeverSeen = "never_seen",
    }
}

/// What happened to an agent, as far as its liveness is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LivenessEvent {
    /// The connection ended, or polls have ceased.
    Closed,
    /// T2 passed without a return.
    Lapsed,
    /// A sign of life: any valid message, or the pong of its connection.
    Seen,
    /// No sign of life for T1.
    Silent,
}

impl Liveness {
    /// The liveness after `event`.
    ///
    /// Total: what cannot happen changes nothing. An agent that never came cannot leave, and one that is
    /// connected does not expire however late the timer fires.
    pub const fn after(self, event: LivenessEvent) -> Self {
        use LivenessEvent::{Closed, Lapsed, Seen, Silent};
        match (self, event) {
            (_, Seen) => Self::Connected,
            (Self::Connected, Silent) => Self::Stale,
            (Self::Connected | Self::Stale, Closed) => Self::Disconnected,
            (Self::Stale | Self::Disconnected, Lapsed) => Self::Expired,
            (unchanged, Silent | Closed | Lapsed) => unchanged,
        }
    }

    /// Whether T2 runs: the agent was here and is not now.
    pub const fn is_away(self) -> bool {
        matches!(self, Self::Stale | Self::Disconnected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition_is_in_the_table() {
        use Liveness::{Connected, Disconnected, Expired, NeverSeen, Stale};
        use LivenessEvent::{Closed, Lapsed, Seen, Silent};
        let table = [
            // from         Seen       Silent        Closed        Lapsed
            (Connected, [Connected, Stale, Disconnected, Connected]),
            (Stale, [Connected, Stale, Disconnected, Expired]),
            (Disconnected, [Connected, Disconnected, Disconnected, Expired]),
            (Expired, [Connected, Expired, Expired, Expired]),
            (NeverSeen, [Connected, NeverSeen, NeverSeen, NeverSeen]),
        ];
        assert_eq!(table.len(), Liveness::ALL.len());
        for (from, to) in table {
            for (event, expected) in [Seen, Silent, Closed, Lapsed].into_iter().zip(to) {
                assert_eq!(from.after(event), expected, "{from} after {event:?}");
            }
        }
    }

    #[test]
    fn the_vocabulary_is_closed_and_round_trips() {
        let words: Vec<_> = Liveness::ALL.iter().map(|l| l.as_str()).collect();
        assert_eq!(words, ["connected", "stale", "disconnected", "expired", "never_seen"]);
        for liveness in Liveness::ALL {
            assert_eq!(liveness.as_str().parse(), Ok(liveness));
            assert_eq!(Liveness::ALL[liveness.index()], liveness);
        }
        let error = "active".parse::<Liveness>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`active` is no liveness; use one of connected, stale, disconnected, expired, never_seen"
        );
    }
}

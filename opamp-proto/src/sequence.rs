//! The counter of messages from one agent.

/// `AgentToServer.sequence_num`: one more with each message of an agent, so that a server sees gaps (spec section
/// "AgentToServer Message").
///
/// Agents start where they like: one client begins at 0, another at 1, a third where it left off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNum(pub u64);

impl SequenceNum {
    /// Whether this number is the next after `previous`, so that no message was lost between the two. After the largest
    /// number comes 0.
    #[must_use]
    pub const fn follows(self, previous: Self) -> bool {
        self.0 == previous.0.wrapping_add(1)
    }
}

impl std::fmt::Display for SequenceNum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(feature = "serde")]
crate::serde_impls::as_u64!(SequenceNum, SequenceNum, |number: &SequenceNum| number.0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_number_follows_and_the_counter_wraps() {
        assert!(SequenceNum(1).follows(SequenceNum(0)));
        assert!(SequenceNum(0).follows(SequenceNum(u64::MAX)));
        assert!(!SequenceNum(0).follows(SequenceNum(0)));
        assert!(!SequenceNum(2).follows(SequenceNum(0)));
        assert!(!SequenceNum(0).follows(SequenceNum(1)));
    }
}

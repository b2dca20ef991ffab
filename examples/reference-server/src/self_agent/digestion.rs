//! Whether what the agent says is taken in: by its session, and into the inventory. No clock, no IO.

use std::time::Duration;

use opamp_client::SequenceNum;
use tokio::time::Instant;

use super::board::{Fault, Side};

/// So many intervals may pass until something said has come through. The agent says something in each.
const PATIENCE_ROUNDS: u32 = 2;

const HINT: &str =
    "look into the log of the server, at its load and at its disk; restart it if it does not recover";

/// What the agent has said on a connection that stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    /// Messages since the start.
    pub(crate) messages: u64,
    /// How it is, in the last round: well or not, and the word for it.
    pub(crate) health: Option<(bool, &'static str)>,
}

/// Compares what was said with what was heard, round by round.
#[derive(Debug)]
pub(crate) struct Digestion {
    patience: Duration,
    /// Where both were when something was heard last.
    messages: u64,
    heard: Option<SequenceNum>,
    /// Since when there is more said than heard.
    unheard_since: Option<Instant>,
    /// Since when the inventory has another health.
    unrecorded_since: Option<Instant>,
}

impl Digestion {
    pub(crate) fn new(interval: Duration) -> Self {
        let patience = interval.saturating_mul(PATIENCE_ROUNDS);
        Digestion { patience, messages: 0, heard: None, unheard_since: None, unrecorded_since: None }
    }

    /// `heard` is where its session stands, `reported` its health in the inventory.
    ///
    /// # Errors
    /// Something said has not come through for too long.
    pub(crate) fn look(
        &mut self,
        said: Option<Said>,
        heard: Option<SequenceNum>,
        reported: Option<(bool, &str)>,
        now: Instant,
    ) -> Result<(), Fault> {
        let messages = said.map_or(self.messages, |said| said.messages);
        let progress = heard != self.heard || said.is_none();
        if progress {
            (self.messages, self.heard) = (messages, heard);
        }
        let wanted = said.and_then(|said| said.health);
        let is_unheard = since(&mut self.unheard_since, !progress && messages > self.messages, now);
        let is_unrecorded = since(&mut self.unrecorded_since, wanted.is_some() && wanted != reported, now);
        for (waits, what) in [(is_unheard, "its session"), (is_unrecorded, "the inventory")] {
            if waits.is_some_and(|waits| waits > self.patience) {
                let detail = format!("what the Self-Agent says does not reach {what}");
                return Err(Fault { lasts: true, ..Fault::new(Side::Server, "unheard", detail, HINT) });
            }
        }
        Ok(())
    }
}

/// How long something holds, if it holds.
fn since(began: &mut Option<Instant>, holds: bool, now: Instant) -> Option<Duration> {
    *began = holds.then(|| began.unwrap_or(now));
    began.map(|began| now - began)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const WELL: Option<(bool, &str)> = Some((true, "ok"));

    fn said(messages: u64) -> Option<Said> {
        Some(Said { messages, health: Some((true, "ok")) })
    }

    /// Rounds one after the other; which of them is the first that fails.
    fn first_failure(
        rounds: impl IntoIterator<Item = (Option<Said>, u64, Option<(bool, &'static str)>)>,
    ) -> Option<(usize, String)> {
        let (mut digestion, begun) = (Digestion::new(INTERVAL), Instant::now());
        (0..).zip(rounds).find_map(|(number, (said, heard, reported))| {
            let now = begun + INTERVAL * number;
            let outcome = digestion.look(said, Some(SequenceNum(heard)), reported, now);
            outcome.err().map(|fault| (number as usize, fault.detail))
        })
    }

    #[test]
    fn what_is_said_and_heard_in_turn_is_well_also_one_round_late() {
        assert_eq!(first_failure((1..50).map(|n| (said(n), n, WELL))), None);
        assert_eq!(first_failure((1..50).map(|n| (said(n), n - 1, WELL))), None);
        assert_eq!(first_failure((1..50).map(|_| (said(7), 7, WELL))), None, "silence is no failure");
        assert_eq!(first_failure((1..50).map(|n| (None, 7, if n < 9 { WELL } else { None }))), None);
    }

    #[test]
    fn messages_that_no_session_takes_are_a_fault_of_the_server() {
        let rounds = (1..50).map(|n| (said(n), n.min(10), WELL));
        let (number, detail) = first_failure(rounds).unwrap();
        // Heard last in round 9, said in vain in round 10, and for more than two intervals in round 13.
        assert_eq!(number, 13);
        assert!(detail.contains("its session"), "{detail}");
    }

    #[test]
    fn health_that_does_not_come_into_the_inventory_is_a_fault_of_the_server() {
        for stale in [None, Some((true, "network path")), Some((false, "ok"))] {
            let (number, detail) = first_failure((1..50).map(|n| (said(n), n, stale))).unwrap();
            assert_eq!(number, 3);
            assert!(detail.contains("the inventory"), "{detail}");
        }
        // A connection that is made anew begins a new time.
        let now_and_then = (1..50).map(|n| (if n % 3 == 0 { None } else { said(n) }, n, None));
        assert_eq!(first_failure(now_and_then), None);
    }
}

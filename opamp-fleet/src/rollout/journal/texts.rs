//! Texts that refusals carry: a refusal that is read back from a record has the text it was written with.

use super::codec::Wire;
use crate::rollout::RestoreError;
use crate::rollout::control::needs;

/// What stands in place of a text that is in use no more.
const OTHER: &str = "another state, as it was named then";

pub(super) fn put(text: &str, out: &mut Vec<u8>) {
    Box::<str>::from(text).put(out);
}

pub(super) fn take(bytes: &mut &[u8]) -> Result<&'static str, RestoreError> {
    let text = Box::<str>::take(bytes)?;
    Ok(needs::ALL.iter().find(|known| **known == &*text).copied().unwrap_or(OTHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where engines refuse commands.
    const SOURCES: [&str; 9] = [
        include_str!("../control/live.rs"),
        include_str!("../control/members.rs"),
        include_str!("../control/mod.rs"),
        include_str!("../control/perform.rs"),
        include_str!("../control/resume.rs"),
        include_str!("../control/rollback.rs"),
        include_str!("../control/start.rs"),
        include_str!("../control/steer.rs"),
        include_str!("../control/stop.rs"),
    ];

    fn read_back(text: &str) -> Result<&'static str, RestoreError> {
        let mut out = Vec::new();
        put(text, &mut out);
        take(&mut &out[..])
    }

    #[test]
    fn every_text_of_a_refusal_is_one_of_the_list_and_is_read_back() {
        assert!(!needs::ALL.is_empty());
        for text in needs::ALL {
            assert_eq!(read_back(text), Ok(*text));
        }
        let from_the_list = SOURCES.iter().any(|source| source.contains("refuses(needs::"));
        assert!(from_the_list, "refusals are made somewhere else now");
        for source in SOURCES {
            for literal in ["needs: \"", "what: \"", "refuses(\""] {
                assert!(!source.contains(literal), "a text of a refusal that is not in the list");
            }
        }
    }

    #[test]
    fn a_text_of_another_version_becomes_a_general_one() {
        assert_eq!(read_back("a state that is no more"), Ok(OTHER));
    }
}

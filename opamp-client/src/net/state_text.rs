//! The agent's state as text that people can read.
//!
//! ```text
//! opamp-agent-state 1
//! uid 0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f6071
//! uid-assigned no
//! sequence 1042
//! config-hash 01020304
//! config-status failed
//! config-attempts 0
//! config-error no such exporter
//! end
//! ```

use std::fmt::Write as _;

use opamp_proto::{ConfigHash, SequenceNum};

use crate::saved::{ConfigStatus, SavedConfig, SavedState};

const FIRST_LINE: &str = "opamp-agent-state 1";
const LAST_LINE: &str = "end";

pub(super) fn print(state: &SavedState) -> String {
    let SavedState { uid, uid_assigned, sequence_num, remote_config } = state;
    let assigned = if *uid_assigned { "yes" } else { "no" };
    let mut text = format!("{FIRST_LINE}\nuid {uid}\nuid-assigned {assigned}\nsequence {sequence_num}\n");
    if let Some(SavedConfig { hash, status, error, attempts }) = remote_config {
        // Writing into a string does not fail.
        let _ = write!(
            text,
            "config-hash {hash}\nconfig-status {}\nconfig-attempts {attempts}\nconfig-error {}\n",
            status.as_str(),
            error.escape_default(),
        );
    }
    text + LAST_LINE + "\n"
}

pub(super) fn parse(text: &str) -> Result<SavedState, String> {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(format!("the first line is not {FIRST_LINE:?}"));
    }
    if lines.next_back() != Some(LAST_LINE) {
        return Err(format!("the last line is not {LAST_LINE:?}: the file is cut off"));
    }
    let field = |name: &str| {
        let mut found = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.next().ok_or_else(|| format!("{name} is missing"))
    };
    let wrong = |name: &str| format!("{name} is not what it should be");
    let number = |name: &str| field(name)?.parse::<u64>().map_err(|_| wrong(name));
    let remote_config = match field("config-hash") {
        Err(_) => None,
        Ok(hash) => Some(SavedConfig {
            hash: ConfigHash::from_hex(hash).map_err(|_| wrong("config-hash"))?,
            status: match field("config-status")? {
                "applied" => ConfigStatus::Applied,
                "applying" => ConfigStatus::Applying,
                "failed" => ConfigStatus::Failed,
                _ => return Err(wrong("config-status")),
            },
            error: unescape(field("config-error")?).ok_or_else(|| wrong("config-error"))?,
            attempts: u32::try_from(number("config-attempts")?).map_err(|_| wrong("config-attempts"))?,
        }),
    };
    Ok(SavedState {
        uid: field("uid")?.parse().map_err(|_| wrong("uid"))?,
        uid_assigned: field("uid-assigned")? == "yes",
        sequence_num: SequenceNum(number("sequence")?),
        remote_config,
    })
}

/// The inverse of [`str::escape_default`].
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match rest.next()? {
            'n' => plain.push('\n'),
            'r' => plain.push('\r'),
            't' => plain.push('\t'),
            'u' => {
                let digits: String = rest.by_ref().skip(1).take_while(|digit| *digit != '}').collect();
                plain.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
            }
            quoted => plain.push(quoted),
        }
    }
    Some(plain)
}

#[cfg(test)]
pub(super) mod tests {
    use opamp_proto::InstanceUid;
    use proptest::prelude::*;

    use super::*;

    pub(in crate::net) fn state(number: u64) -> SavedState {
        let config = SavedConfig {
            hash: ConfigHash::new(vec![1, 2, 3]),
            status: ConfigStatus::Failed,
            error: "line 1\nend\nuid x \\ \u{1F600}".to_owned(),
            attempts: 1,
        };
        SavedState {
            uid: InstanceUid::from_bytes([7; 16]),
            uid_assigned: true,
            sequence_num: SequenceNum(number),
            remote_config: Some(config),
        }
    }

    #[test]
    fn a_file_cut_off_anywhere_is_not_taken_for_a_state() {
        let text = print(&state(1));
        for end in 0..text.trim_end().len() {
            if text.is_char_boundary(end) {
                assert!(parse(&text[..end]).is_err(), "{}", &text[..end]);
            }
        }
        assert_eq!(parse(&text), Ok(state(1)));
    }

    #[test]
    fn other_files_are_refused_with_what_is_wrong() {
        let good = print(&state(1));
        for (bad, what) in [
            ("{}".to_owned(), "first line"),
            (good.replace("uid 07", "uid x"), "uid is not"),
            (good.replace("sequence 1", "sequence -1"), "sequence is not"),
            (good.replace("config-status failed", "config-status odd"), "config-status is not"),
            (good.replace("config-hash 010203", "config-hash 1"), "config-hash is not"),
        ] {
            let error = parse(&bad).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_state_round_trips(
            uid: [u8; 16],
            uid_assigned: bool,
            sequence: u64,
            config in proptest::option::of((proptest::collection::vec(any::<u8>(), 0..70), 0..3_u8, any::<String>(), any::<u32>())),
        ) {
            let remote_config = config.map(|(hash, status, error, attempts)| SavedConfig {
                hash: ConfigHash::new(hash),
                status: [ConfigStatus::Applied, ConfigStatus::Applying, ConfigStatus::Failed][usize::from(status)],
                error,
                attempts,
            });
            let uid = InstanceUid::from_bytes(uid);
            let state = SavedState { uid, uid_assigned, sequence_num: SequenceNum(sequence), remote_config };
            prop_assert_eq!(parse(&print(&state)), Ok(state));
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = parse(&text);
            let _ = parse(&format!("{FIRST_LINE}\n{text}\n{LAST_LINE}"));
        }
    }
}

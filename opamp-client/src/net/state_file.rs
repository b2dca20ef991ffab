//! The agent's state in a file: readable, replaced as a whole, for the owner's eyes only.
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
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use opamp_proto::{ConfigHash, SequenceNum};

use crate::saved::{ConfigStatus, SavedConfig, SavedState, StateError, StateStore};

const FIRST_LINE: &str = "opamp-agent-state 1";
const LAST_LINE: &str = "end";
/// The largest file that is read; the error text is the only part without a length of its own.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Keeps an agent's state in one file.
///
/// A save writes a new file beside it, makes that durable and puts it into place, so that a crash at any moment
/// leaves the old state or the new one. On Unix only the owner may read it.
#[derive(Debug)]
pub struct FileState {
    path: PathBuf,
    /// One writer at a time.
    writing: Mutex<()>,
}

impl FileState {
    /// State in this file. Its directory has to exist, and to be writable.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writing: Mutex::new(()) }
    }

    fn io(&self, source: io::Error) -> StateError {
        StateError::Io { location: self.path.display().to_string(), source }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let new = beside(&self.path);
        let written = write_durably(&new, text).and_then(|()| fs::rename(&new, &self.path));
        if written.is_err() {
            // What is half written is of no use to anybody.
            let _ = fs::remove_file(&new);
        }
        written?;
        make_durable(self.path.parent())
    }
}

impl StateStore for FileState {
    fn load(&self) -> Result<Option<SavedState>, StateError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| self.io(error))?;
        let corrupt = |what| StateError::Corrupt { location: self.path.display().to_string(), what };
        parse(&text).map(Some).map_err(corrupt)
    }

    fn save(&self, state: &SavedState) -> Result<(), StateError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(&print(state)).map_err(|error| self.io(error))
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    #[cfg(unix)]
    // A file left over from before may be open to others.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The new name is durable when its directory is.
fn make_durable(directory: Option<&Path>) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let directory = directory.filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn print(state: &SavedState) -> String {
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

fn parse(text: &str) -> Result<SavedState, String> {
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
mod tests {
    use opamp_proto::InstanceUid;
    use proptest::prelude::*;

    use super::*;

    /// A directory of this test alone, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("opamp-state-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn state(&self) -> FileState {
            FileState::new(self.0.join("state"))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn state(number: u64) -> SavedState {
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
    fn what_is_saved_is_loaded_and_the_newest_counts() {
        let directory = Directory::new("newest");
        let file = directory.state();
        assert_eq!(file.load().unwrap(), None, "nothing was saved yet");
        for number in [1, 2] {
            file.save(&state(number)).unwrap();
            assert_eq!(directory.state().load().unwrap(), Some(state(number)));
        }
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "nothing is left beside it");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = Directory::new("mode");
        // Left over from a crash, and open to everybody.
        let left = directory.0.join("state.new");
        fs::write(&left, "half").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        directory.state().save(&state(1)).unwrap();
        let mode = fs::metadata(directory.0.join("state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_save_that_fails_leaves_the_old_state() {
        let directory = Directory::new("fails");
        let file = directory.state();
        file.save(&state(1)).unwrap();
        // The place of the new file is taken by something that is no file.
        fs::create_dir(directory.0.join("state.new")).unwrap();
        assert!(matches!(file.save(&state(2)), Err(StateError::Io { .. })));
        assert_eq!(file.load().unwrap(), Some(state(1)));
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

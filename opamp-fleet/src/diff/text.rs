//! What changes between two configurations, file by file.

use opamp_proto::pb;
use similar::{ChangeTag, TextDiff};

use crate::words::closed_set;

/// Largest body that is compared by lines, in bytes. Of a larger one only the sizes are told.
pub const DIFF_BYTES_MAX: usize = 1024 * 1024;

/// Most lines of both bodies together that are compared. Beyond, only the sizes are told.
pub const DIFF_LINES_MAX: usize = 20_000;

closed_set! {
    /// What happened to a file.
    pub enum FileChange ("file change") {
        /// Only the newer side has it.
        Added = "added",
        /// Only the older side has it.
        Removed = "removed",
        /// Body, content type or role differ.
        Modified = "modified",
    }
}

/// One file that differs. Files that are equal in everything are not listed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FileDiff {
    /// The file's name; empty is a name too.
    pub name: String,
    /// What happened to it.
    pub change: FileChange,
    /// Content type before and after, if it differs.
    pub content_type: Option<(String, String)>,
    /// Role before and after, if it differs.
    pub role: Option<(String, String)>,
    /// How the bodies differ.
    pub body: BodyDiff,
}

/// How two bodies differ.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum BodyDiff {
    /// At least one of them is no text: only the sizes are told.
    Binary {
        /// Size before.
        before_bytes: usize,
        /// Size after.
        after_bytes: usize,
    },
    /// Both are text.
    Text {
        /// Lines added.
        added: usize,
        /// Lines removed.
        removed: usize,
        /// The difference in unified form with three lines of context, without a file header.
        unified: String,
    },
    /// One of them is text beyond [`DIFF_BYTES_MAX`] or [`DIFF_LINES_MAX`]: only the sizes are told.
    TooLarge {
        /// Size before.
        before_bytes: usize,
        /// Size after.
        after_bytes: usize,
    },
    /// They are equal.
    Unchanged,
}

/// Compares two configurations, in the order of file names.
pub fn diff(from: &pb::AgentConfigMap, to: &pb::AgentConfigMap) -> Vec<FileDiff> {
    let (from, to) = (&from.config_map, &to.config_map);
    let names: std::collections::BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    names.into_iter().filter_map(|name| file_diff(name, from.get(name), to.get(name))).collect()
}

fn file_diff(
    name: &str,
    from: Option<&pb::AgentConfigObject>,
    to: Option<&pb::AgentConfigObject>,
) -> Option<FileDiff> {
    let change = match (from, to) {
        (None, Some(_)) => FileChange::Added,
        (Some(_), None) => FileChange::Removed,
        (Some(from), Some(to)) if from != to => FileChange::Modified,
        _ => return None,
    };
    let absent = pb::AgentConfigObject::default();
    let (from, to) = (from.unwrap_or(&absent), to.unwrap_or(&absent));
    let differing = |a: &String, b: &String| (a != b).then(|| (a.clone(), b.clone()));
    Some(FileDiff {
        name: name.to_owned(),
        change,
        content_type: differing(&from.content_type, &to.content_type),
        role: differing(&from.role, &to.role),
        body: body_diff(&from.body, &to.body),
    })
}

fn body_diff(from: &[u8], to: &[u8]) -> BodyDiff {
    if from == to {
        return BodyDiff::Unchanged;
    }
    let (before_bytes, after_bytes) = (from.len(), to.len());
    let (Some(from), Some(to)) = (text(from), text(to)) else {
        return BodyDiff::Binary { before_bytes, after_bytes };
    };
    let lines = from.lines().count() + to.lines().count();
    if before_bytes.max(after_bytes) > DIFF_BYTES_MAX || lines > DIFF_LINES_MAX {
        return BodyDiff::TooLarge { before_bytes, after_bytes };
    }
    let diff = TextDiff::from_lines(from, to);
    let count = |tag| diff.iter_all_changes().filter(|change| change.tag() == tag).count();
    BodyDiff::Text {
        added: count(ChangeTag::Insert),
        removed: count(ChangeTag::Delete),
        unified: diff.unified_diff().context_radius(3).to_string(),
    }
}

/// UTF-8 without NUL is text.
fn text(body: &[u8]) -> Option<&str> {
    str::from_utf8(body).ok().filter(|text| !text.contains('\0'))
}

//! Configurations as the API takes and shows them.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use opamp_fleet::{BodyDiff, FileDiff};
use opamp_proto::{ConfigHash, Wall, pb};
use opamp_store::ConfigVersion;

use crate::api::{
    error::ApiError,
    schema::{reply, request},
    values::ConfigFile,
};

request! {
    /// One file of a configuration: `body` or `body_base64`, not both.
    pub(crate) struct FileRequest {
        /// The content as text.
        body: Option<String>,
        /// The content in base64.
        body_base64: Option<String>,
        /// MIME type.
        content_type: Option<String>,
        /// Role within the configuration, defined by the agent type.
        role: Option<String>,
    }
}

request! {
    /// A new config with its first version, a draft.
    pub(crate) struct NewConfigRequest {
        /// Name of the config.
        name: String,
        /// Files by name; the empty name is a name like any other.
        files: BTreeMap<String, FileRequest>,
        /// What the author says about it.
        comment: Option<String>,
    }
}

request! {
    /// The whole content of a draft.
    pub(crate) struct VersionRequest {
        /// Files by name; the empty name is a name like any other.
        files: BTreeMap<String, FileRequest>,
        /// What the author says about it.
        comment: Option<String>,
    }
}

reply! {
    /// A version of a config, without its files.
    pub(crate) struct VersionSummary {
        /// Name of the config.
        config: String,
        /// Number of the version, from 1 on.
        version: u32,
        /// `draft`, `published` or `archived`.
        state: &'static str,
        /// Canonical hash of the files; what agents report when they run it.
        hash: ConfigHash,
        /// What the author said about it.
        comment: String,
        /// When it was made.
        created_at: Wall,
        /// By whom.
        created_by: String,
        /// When it was published.
        published_at: Option<Wall>,
        /// By whom.
        published_by: Option<String>,
        /// The commit that wrote it last: the value for `If-Match`.
        revision: u64,
    }
}

reply! {
    /// A version of a config with its files.
    pub(crate) struct VersionContent {
        /// What is known of it.
        version: VersionSummary,
        /// Files by name.
        files: BTreeMap<String, ConfigFile>,
    }
}

reply! {
    /// A config with all its versions.
    pub(crate) struct Config {
        /// Its name.
        name: String,
        /// Ascending by number.
        versions: Vec<VersionSummary>,
    }
}

reply! {
    /// A page of configs.
    pub(crate) struct ConfigPage {
        /// Ascending by name.
        configs: Vec<ConfigItem>,
        /// Pass it as `cursor` for the next page; null on the last one.
        next_cursor: Option<String>,
    }
}

reply! {
    /// One config in the list.
    pub(crate) struct ConfigItem {
        /// Its name.
        name: String,
        /// How many versions it has.
        versions: u32,
        /// Its newest version.
        latest: VersionSummary,
    }
}

reply! {
    /// What changes from one version to another.
    pub(crate) struct Diff {
        /// Name of the config.
        config: String,
        /// The older side.
        from: u32,
        /// The newer side.
        to: u32,
        /// Files that differ, by name; equal ones are left out.
        files: Vec<FileChange>,
    }
}

reply! {
    /// How one file differs.
    pub(crate) struct FileChange {
        /// Its name.
        name: String,
        /// `added`, `removed` or `modified`.
        change: &'static str,
        /// MIME type before and after, if it differs.
        content_type: Option<Change>,
        /// Role before and after, if it differs.
        role: Option<Change>,
        /// `text`, `binary`, `too_large` or `unchanged`.
        body: &'static str,
        /// Lines added, of text.
        lines_added: Option<u64>,
        /// Lines removed, of text.
        lines_removed: Option<u64>,
        /// The difference in unified form, of text.
        unified: Option<String>,
        /// Size before, where the content is not compared.
        bytes_before: Option<u64>,
        /// Size after, where the content is not compared.
        bytes_after: Option<u64>,
    }
}

reply! {
    /// A value before and after.
    pub(crate) struct Change {
        /// Before.
        before: String,
        /// After.
        after: String,
    }
}

impl From<ConfigVersion> for VersionSummary {
    fn from(version: ConfigVersion) -> Self {
        VersionSummary {
            config: version.config,
            version: version.version,
            state: version.state.as_str(),
            hash: version.hash,
            comment: version.comment,
            created_at: version.created_at,
            created_by: version.created_by,
            published_at: version.published_at,
            published_by: version.published_by,
            revision: version.revision.0,
        }
    }
}

impl From<FileDiff> for FileChange {
    fn from(diff: FileDiff) -> Self {
        let change = |pair: Option<(String, String)>| pair.map(|(before, after)| Change { before, after });
        let mut file = FileChange {
            name: diff.name,
            change: diff.change.as_str(),
            content_type: change(diff.content_type),
            role: change(diff.role),
            body: "unchanged",
            lines_added: None,
            lines_removed: None,
            unified: None,
            bytes_before: None,
            bytes_after: None,
        };
        match diff.body {
            BodyDiff::Unchanged => {}
            BodyDiff::Text { added, removed, unified } => {
                file.body = "text";
                file.lines_added = Some(added as u64);
                file.lines_removed = Some(removed as u64);
                file.unified = Some(unified);
            }
            BodyDiff::Binary { before_bytes, after_bytes } => {
                file.body = "binary";
                file.bytes_before = Some(before_bytes as u64);
                file.bytes_after = Some(after_bytes as u64);
            }
            BodyDiff::TooLarge { before_bytes, after_bytes } => {
                file.body = "too_large";
                file.bytes_before = Some(before_bytes as u64);
                file.bytes_after = Some(after_bytes as u64);
            }
        }
        file
    }
}

/// The files of a request as the protocol's map.
pub(crate) fn config_map(files: BTreeMap<String, FileRequest>) -> Result<pb::AgentConfigMap, ApiError> {
    let object = |(name, file): (String, FileRequest)| {
        let wrong = |what: &str| ApiError::bad_request(format!("file {name:?}: {what}"));
        let body = match (file.body, file.body_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(encoded)) => BASE64
                .decode(encoded.as_bytes())
                .map_err(|_| wrong("`body_base64` is not base64 with padding"))?,
            (Some(_), Some(_)) => return Err(wrong("has both `body` and `body_base64`")),
            (None, None) => return Err(wrong("has neither `body` nor `body_base64`")),
        };
        let content_type = file.content_type.unwrap_or_default();
        let role = file.role.unwrap_or_default();
        Ok((name, pb::AgentConfigObject { body: body.into(), content_type, role }))
    };
    let config_map = files.into_iter().map(object).collect::<Result<_, ApiError>>()?;
    Ok(pb::AgentConfigMap { config_map })
}

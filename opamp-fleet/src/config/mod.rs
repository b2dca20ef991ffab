//! Configurations: the whole collection of files, its canonical hash, and the life of a version.

use std::fmt;

use bytes::Bytes;
use opamp_proto::hash::config_hash;
use opamp_proto::{ConfigHash, pb};
use prost::Message;

use crate::words::closed_set;

closed_set! {
    /// The life of a config version.
    ///
    /// ```text
    /// draft ──publish──► published ──archive──► archived
    /// ```
    ///
    /// A draft may still change; a published version never does, and only published versions can be assigned; an
    /// archived one stays readable, and agents that run it go on, but it cannot be assigned again.
    pub enum VersionState ("version state") {
        /// It may be edited.
        Draft = "draft",
        /// It is immutable and can be assigned.
        Published = "published",
        /// It is immutable and cannot be assigned.
        Archived = "archived",
    }
}

impl VersionState {
    /// Whether the state may change to `to`.
    pub const fn may_become(self, to: Self) -> bool {
        matches!((self, to), (Self::Draft, Self::Published) | (Self::Published, Self::Archived))
    }
}

/// Bounds on configurations. What exceeds one is refused when the version is made, not when it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigLimits {
    /// Longest name of a config, in bytes. Default 128.
    pub name_bytes_max: usize,
    /// Most files of one version. Default 1,000.
    pub files_max: usize,
    /// Longest name of a file, in bytes. Default 1,024.
    pub file_name_bytes_max: usize,
    /// Longest content type or role, in bytes. Default 255.
    pub attribute_bytes_max: usize,
    /// Largest version, encoded, in bytes. Default 32 MiB. It must stay below what the server may send in one
    /// message (64 MiB by default), or the version can be assigned and never be offered.
    pub encoded_bytes_max: usize,
    /// Longest comment, in bytes. Default 4,096.
    pub comment_bytes_max: usize,
}

impl Default for ConfigLimits {
    fn default() -> Self {
        Self {
            name_bytes_max: 128,
            files_max: 1000,
            file_name_bytes_max: 1024,
            attribute_bytes_max: 255,
            encoded_bytes_max: 32 * 1024 * 1024,
            comment_bytes_max: 4096,
        }
    }
}

impl ConfigLimits {
    /// Checks the name of a config: a letter or digit, then letters, digits, `.`, `_` and `-`.
    ///
    /// # Errors
    /// [`ConfigError::Name`]; choose another name.
    pub fn check_name(&self, name: &str) -> Result<(), ConfigError> {
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if first && rest && name.len() <= self.name_bytes_max {
            return Ok(());
        }
        Err(ConfigError::Name { name: name.chars().take(64).collect(), bytes_max: self.name_bytes_max })
    }

    /// Checks a comment.
    ///
    /// # Errors
    /// [`ConfigError::Comment`]; shorten it.
    pub fn check_comment(&self, comment: &str) -> Result<(), ConfigError> {
        if comment.len() <= self.comment_bytes_max {
            return Ok(());
        }
        Err(ConfigError::Comment { bytes: comment.len(), bytes_max: self.comment_bytes_max })
    }
}

/// A checked configuration: a collection of named files (R-CONF-12) with its canonical hash (R-CONF-20).
///
/// Bodies are raw bytes and kept as they are (R-CONF-17); so are content types (R-CONF-18) and roles. The empty
/// name is a name like any other (R-CONF-15).
#[derive(Clone, PartialEq)]
pub struct ConfigMap {
    map: pb::AgentConfigMap,
    hash: ConfigHash,
}

impl ConfigMap {
    /// Checks a collection and computes its hash.
    ///
    /// # Errors
    /// Names the file and the bound; nothing may be stored then.
    pub fn new(map: pb::AgentConfigMap, limits: &ConfigLimits) -> Result<Self, ConfigError> {
        check(&map, limits)?;
        Ok(Self { hash: config_hash(&map), map })
    }

    /// Reads a collection that was checked when it was stored.
    ///
    /// # Errors
    /// [`ConfigError::Encoding`] if the bytes are no `AgentConfigMap`: the store is damaged.
    pub fn decode(encoded: Bytes) -> Result<Self, ConfigError> {
        let map = pb::AgentConfigMap::decode(encoded).map_err(|_| ConfigError::Encoding)?;
        Ok(Self { hash: config_hash(&map), map })
    }

    /// The canonical hash, under which it is offered.
    pub fn hash(&self) -> &ConfigHash {
        &self.hash
    }

    /// The files.
    pub fn map(&self) -> &pb::AgentConfigMap {
        &self.map
    }

    /// The files, taken out.
    pub fn into_map(self) -> pb::AgentConfigMap {
        self.map
    }

    /// The encoded `AgentConfigMap`: the same bytes for the same files.
    pub fn encode(&self) -> Bytes {
        Bytes::from(self.map.encode_to_vec())
    }
}

/// Shows the hash and sizes, never the bodies.
impl fmt::Debug for ConfigMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.map.config_map.iter().map(|(name, file)| (name, file.body.len()));
        f.debug_struct("ConfigMap")
            .field("hash", &self.hash)
            .field("body_bytes", &sizes.collect::<Vec<_>>())
            .finish()
    }
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The comment is too long: shorten it.
    #[error("the comment has {bytes} bytes, at most {bytes_max} are allowed")]
    Comment {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// There is no file. To stop managing an agent, remove its assignment instead.
    #[error("a configuration needs at least one file; to leave an agent alone, remove its assignment")]
    Empty,
    /// The stored bytes are no configuration: the store is damaged.
    #[error("the stored configuration cannot be decoded")]
    Encoding,
    /// A file's attribute is too long or has characters it may not have: change it.
    #[error("{attribute} of file {file:?} must be printable ASCII of at most {bytes_max} bytes")]
    FileAttribute {
        /// `content_type` or `role`.
        attribute: &'static str,
        /// The file.
        file: String,
        /// The bound.
        bytes_max: usize,
    },
    /// A file's name is too long or has control characters: rename it.
    #[error("file name {file:?} must have at most {bytes_max} bytes and no control characters")]
    FileName {
        /// The beginning of the name.
        file: String,
        /// The bound.
        bytes_max: usize,
    },
    /// The name cannot be used: choose another one.
    #[error(
        "config name {name:?} must be 1 to {bytes_max} letters, digits, `.`, `_` or `-`, the first a letter or digit"
    )]
    Name {
        /// The beginning of the name.
        name: String,
        /// The bound.
        bytes_max: usize,
    },
    /// It is too large in all: split it or shorten it.
    #[error("the configuration has {bytes} bytes encoded, at most {bytes_max} are allowed")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// There are too many files.
    #[error("{count} files, at most {count_max} are allowed")]
    TooManyFiles {
        /// How many were given.
        count: usize,
        /// The bound.
        count_max: usize,
    },
}

fn check(map: &pb::AgentConfigMap, limits: &ConfigLimits) -> Result<(), ConfigError> {
    let count = map.config_map.len();
    if count == 0 {
        return Err(ConfigError::Empty);
    }
    if count > limits.files_max {
        return Err(ConfigError::TooManyFiles { count, count_max: limits.files_max });
    }
    let bytes = map.encoded_len();
    if bytes > limits.encoded_bytes_max {
        return Err(ConfigError::TooLarge { bytes, bytes_max: limits.encoded_bytes_max });
    }
    for (name, file) in &map.config_map {
        if name.len() > limits.file_name_bytes_max || name.chars().any(char::is_control) {
            let file = name.chars().take(64).collect();
            return Err(ConfigError::FileName { file, bytes_max: limits.file_name_bytes_max });
        }
        for (attribute, text) in [("content_type", &file.content_type), ("role", &file.role)] {
            let printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
            if !printable || text.len() > limits.attribute_bytes_max {
                let bytes_max = limits.attribute_bytes_max;
                return Err(ConfigError::FileAttribute { attribute, file: name.clone(), bytes_max });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

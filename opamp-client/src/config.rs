//! Configurations: the one the server offers, and the one that is in use.

use std::fmt;

use bytes::Bytes;
use opamp_proto::{ConfigHash, pb};
use prost::Message as _;

/// How much of the text of a failure is reported, in bytes.
const ERROR_TEXT_MAX: usize = 16 << 10;

/// A configuration that the server wants this agent to run: named files with raw bodies (spec section "Configuration").
///
/// Trust nothing in it: check it against what is allowed here before using any of it (R-SEC-05).
#[derive(Clone, PartialEq)]
pub struct RemoteConfig {
    hash: ConfigHash,
    files: pb::AgentConfigMap,
}

/// The configuration that is in use, whatever it was merged from (R-CONF-07).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EffectiveConfig(pb::AgentConfigMap);

/// One named file of a configuration: raw bytes, with an optional media type and role.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile(pb::AgentConfigObject);

/// Why a remote configuration is not in use; the text is shown to whoever offered it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(String);

impl RemoteConfig {
    pub(crate) const fn new(hash: ConfigHash, files: pb::AgentConfigMap) -> Self {
        Self { hash, files }
    }

    /// The hash the server knows it by; opaque (R-CONF-21).
    #[must_use]
    pub const fn hash(&self) -> &ConfigHash {
        &self.hash
    }

    /// The files by name, in the order of names. A single file may have the empty name (R-CONF-15).
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &pb::AgentConfigObject)> {
        self.files.config_map.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// The file of this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&pb::AgentConfigObject> {
        self.files.config_map.get(name)
    }

    /// The body of the only file, whatever its name, for agents that have a single one (R-CONF-16); `None` if there
    /// are more or none.
    #[must_use]
    pub fn single(&self) -> Option<&Bytes> {
        let mut files = self.files.config_map.values();
        files.next().filter(|_| files.next().is_none()).map(|file| &file.body)
    }
}

/// Shows names and sizes, never bodies.
impl fmt::Debug for RemoteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteConfig")
            .field("hash", &self.hash)
            .field("files", &self.files.config_map)
            .finish()
    }
}

impl EffectiveConfig {
    /// A configuration without files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A configuration of one file without a name.
    pub fn single(body: impl Into<Bytes>) -> Self {
        Self::new().file("", ConfigFile::new(body))
    }

    /// Adds a file; one of the same name is replaced (R-CONF-13).
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, file: ConfigFile) -> Self {
        self.0.config_map.insert(name.into(), file.0);
        self
    }

    /// The encoding: configurations that are the same have the same bytes, because the map is ordered.
    pub(crate) fn encode(&self) -> Bytes {
        pb::EffectiveConfig { config_map: Some(self.0.clone()) }.encode_to_vec().into()
    }
}

/// For agents that run what they are offered, unchanged.
impl From<&RemoteConfig> for EffectiveConfig {
    fn from(remote: &RemoteConfig) -> Self {
        Self(remote.files.clone())
    }
}

impl From<pb::AgentConfigMap> for EffectiveConfig {
    fn from(files: pb::AgentConfigMap) -> Self {
        Self(files)
    }
}

impl ConfigFile {
    /// A file with this body and nothing said about it.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self(pb::AgentConfigObject { body: body.into(), ..Default::default() })
    }

    /// Its media type, such as `text/yaml` (R-CONF-18).
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.0.content_type = content_type.into();
        self
    }

    /// What the file is for, in the agent type's own words.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.0.role = role.into();
        self
    }
}

impl Rejected {
    /// A refusal or failure with its reason. Long texts are cut at 16 KiB.
    pub fn new(reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.len() > ERROR_TEXT_MAX {
            reason.truncate(reason.floor_char_boundary(ERROR_TEXT_MAX));
        }
        Self(reason)
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl From<String> for Rejected {
    fn from(reason: String) -> Self {
        Self::new(reason)
    }
}

impl From<&str> for Rejected {
    fn from(reason: &str) -> Self {
        Self::new(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(files: &[(&str, &[u8])]) -> RemoteConfig {
        let object = |body: &[u8]| pb::AgentConfigObject {
            body: Bytes::copy_from_slice(body),
            content_type: "text/yaml".into(),
            ..Default::default()
        };
        let config_map = files.iter().map(|(name, body)| ((*name).to_owned(), object(body))).collect();
        RemoteConfig::new(ConfigHash::new(vec![1]), pb::AgentConfigMap { config_map })
    }

    #[test]
    fn the_only_file_is_found_whatever_its_name() {
        assert_eq!(remote(&[("", b"a")]).single().map(|body| &body[..]), Some(&b"a"[..]));
        assert_eq!(remote(&[("x.yaml", b"a")]).single().map(|body| &body[..]), Some(&b"a"[..]));
        assert_eq!(remote(&[]).single(), None);
        assert_eq!(remote(&[("x", b"a"), ("y", b"b")]).single(), None);
    }

    #[test]
    fn bodies_types_and_names_pass_through_untouched() {
        let odd = b"\0\r\n\xff\xfe";
        let effective = EffectiveConfig::from(&remote(&[("", odd), ("ü.yaml", b"")]));
        let message = pb::EffectiveConfig::decode(effective.encode()).unwrap().config_map.unwrap();
        assert_eq!(&message.config_map[""].body[..], odd);
        assert_eq!(message.config_map["ü.yaml"].content_type, "text/yaml");
    }

    #[test]
    fn nothing_of_a_body_is_shown() {
        let shown = format!("{:?}", remote(&[("x", b"password: hunter2")]));
        assert!(shown.contains('x') && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        let rejected = Rejected::new("ä".repeat(ERROR_TEXT_MAX));
        assert!(rejected.reason().len() <= ERROR_TEXT_MAX && rejected.reason().ends_with('ä'));
    }
}

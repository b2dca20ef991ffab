//! What this machine says of itself.

use std::fs;
use std::path::Path;

use crate::description::Description;

impl Description {
    /// Adds what the operating system says of this machine: `host.name`, `host.id`, `os.version` and `os.description`,
    /// as far as it says so (R-DESC-06). Reads a few small files; on systems other than Linux there are none.
    #[must_use]
    pub fn with_host(self) -> Self {
        self.with_host_at(Path::new("/"))
    }

    fn with_host_at(self, root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let first_of = |paths: &[&str]| {
            paths
                .iter()
                .filter_map(|path| read(path))
                .map(|text| text.trim().to_owned())
                .find(|text| !text.is_empty())
        };
        let release = read("etc/os-release").or_else(|| read("usr/lib/os-release")).unwrap_or_default();
        let found = [
            ("host.name", first_of(&["proc/sys/kernel/hostname", "etc/hostname"])),
            ("host.id", first_of(&["etc/machine-id", "var/lib/dbus/machine-id"])),
            ("os.version", release_field(&release, "VERSION_ID")),
            ("os.description", release_field(&release, "PRETTY_NAME")),
        ];
        found.into_iter().fold(self, |described, (key, value)| match value {
            Some(value) => described.attribute(key, value),
            None => described,
        })
    }
}

/// A field of `os-release`, without its quotes.
fn release_field(release: &str, name: &str) -> Option<String> {
    let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use opamp_proto::{InstanceUid, pb};
    use prost::Message as _;

    use super::*;

    fn described(root: &Path) -> Vec<String> {
        let description = Description::new("a").with_host_at(root).encode(&InstanceUid::from_bytes([7; 16]));
        let message = pb::AgentDescription::decode(description).unwrap();
        message.non_identifying_attributes.iter().map(|attribute| attribute.key.clone()).collect()
    }

    #[test]
    fn what_the_machine_says_of_itself_is_described_and_what_it_does_not_is_left_out() {
        let root = std::env::temp_dir().join(format!("opamp-host-{}", std::process::id()));
        fs::create_dir_all(root.join("etc")).unwrap();
        assert_eq!(described(&root), ["host.arch", "os.type"]);
        fs::write(root.join("etc/hostname"), "edge-7\n").unwrap();
        fs::write(root.join("etc/os-release"), "NAME=x\nVERSION_ID=\"12\"\nPRETTY_NAME='X 12'\n").unwrap();
        assert_eq!(described(&root), ["host.arch", "host.name", "os.description", "os.type", "os.version"]);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn fields_lose_their_quotes() {
        assert_eq!(release_field("A=1\nVERSION_ID=\"12.4\"", "VERSION_ID").as_deref(), Some("12.4"));
        assert_eq!(release_field("VERSION_ID=", "VERSION_ID"), None);
        assert_eq!(release_field("OLD_VERSION_ID=1", "VERSION_ID"), None);
    }
}

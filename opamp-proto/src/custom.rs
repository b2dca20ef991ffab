//! Names of custom capabilities.

/// Why a text is not the name of a custom capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityNameError {
    /// It has more than [`CAPABILITY_NAME_BYTES_MAX`] bytes.
    #[error(
        "the name of a custom capability has at most {CAPABILITY_NAME_BYTES_MAX} bytes, this one {found}"
    )]
    TooLong {
        /// How many it has.
        found: usize,
    },
    /// It is not a reverse domain name with a short name behind it.
    #[error(
        "a custom capability is named by its owner's domain in reverse order and a short name, such as \
         com.example.snapshots: labels of letters, digits, '-' and '_', at least two, with dots between them"
    )]
    NoReverseName,
    /// What follows the `/` is not a version.
    #[error(
        "the version behind the '/' of a custom capability has letters, digits, '.', '-' and '_', and at least one"
    )]
    BadVersion,
}

/// Longest name of a custom capability, in bytes: a domain name and some more.
pub const CAPABILITY_NAME_BYTES_MAX: usize = 512;

/// Whether `name` may name a custom capability: the reverse fully qualified domain name of its owner, a dot, a short name; then
/// perhaps `/` and a version (R-CUST-05).
///
/// # Errors
///
/// [`CapabilityNameError`] says which part is wrong.
///
/// ```
/// use opamp_proto::custom::{CapabilityNameError, check_capability_name};
///
/// assert_eq!(check_capability_name("com.example.snapshots"), Ok(()));
/// assert_eq!(check_capability_name("com.example.snapshots/v1.2"), Ok(()));
/// assert_eq!(check_capability_name("snapshots"), Err(CapabilityNameError::NoReverseName));
/// assert_eq!(check_capability_name("com.example.snapshots/"), Err(CapabilityNameError::BadVersion));
/// ```
pub fn check_capability_name(name: &str) -> Result<(), CapabilityNameError> {
    if name.len() > CAPABILITY_NAME_BYTES_MAX {
        return Err(CapabilityNameError::TooLong { found: name.len() });
    }
    let (name, version) = match name.split_once('/') {
        Some((name, version)) => (name, Some(version)),
        None => (name, None),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(plain);
    if name.split('.').count() < 2 || !name.split('.').all(is_label) {
        return Err(CapabilityNameError::NoReverseName);
    }
    let is_version =
        |version: &str| !version.is_empty() && version.bytes().all(|byte| plain(byte) || byte == b'.');
    if !version.is_none_or(is_version) {
        return Err(CapabilityNameError::BadVersion);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_version_are_told_from_what_is_none() {
        for good in ["com.example.a", "io.opentelemetry.custom-1/1", "org.x_y.z/v2.0-rc.1", "a.b"] {
            assert_eq!(check_capability_name(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "com..a", ".com.a", "com.a.", "com.example.a b", "com.exämple.a", "/1", "com/1"]
        {
            assert_eq!(check_capability_name(bad), Err(CapabilityNameError::NoReverseName), "{bad}");
        }
        for bad in ["com.a/", "com.a/1/2", "com.a/1 2"] {
            assert_eq!(check_capability_name(bad), Err(CapabilityNameError::BadVersion), "{bad}");
        }
        let long = format!("com.{}", "a".repeat(CAPABILITY_NAME_BYTES_MAX));
        assert_eq!(check_capability_name(&long), Err(CapabilityNameError::TooLong { found: long.len() }));
    }
}

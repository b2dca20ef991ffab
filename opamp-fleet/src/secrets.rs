//! Names under which secrets stand.

/// Parts of names that stand for secrets, in lower case and without separators. Headers are: one of them usually is.
const WORDS: [&str; 19] = [
    "accesskey",
    "accountkey",
    "apikey",
    "authorization",
    "connectionstring",
    "cookie",
    "credential",
    "datasource",
    "dsn",
    "encryptionkey",
    "headers",
    "keypem",
    "licensekey",
    "passphrase",
    "passw",
    "privatekey",
    "secret",
    "signingkey",
    "token",
];

/// Whether a value under this name should not be shown: the name has one of the words in it, or is that of a key.
#[cfg(feature = "collector")]
pub(crate) fn is_hidden(name: &str) -> bool {
    let plain = plain(name);
    let lower = name.to_ascii_lowercase();
    let is_key = lower.ends_with("_key") || lower.ends_with("-key") || name.ends_with("Key") && name != "Key";
    is_key || WORDS.iter().any(|word| plain.contains(word))
}

/// Whether a name says that its value is a secret: it ends in one of the words.
pub(crate) fn is_secret(name: &str) -> bool {
    const ENDS: [&str; 2] = ["passwd", "password"];
    let plain = plain(name);
    WORDS.iter().chain(&ENDS).any(|word| plain.ends_with(word))
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|char| char.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_however_its_name_is_written() {
        for name in ["password", "Passwd", "db-password", "api_key", "apiKey", "CLIENT_SECRET", "licenseKey"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["tokens_per_second", "secret_name", "key", "endpoint", ""] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[cfg(feature = "collector")]
    #[test]
    fn what_only_has_to_do_with_a_secret_is_hidden_as_well() {
        for name in ["tokens_per_second", "partition_key", "Account-Key", "groupByKey", "headers"] {
            assert!(is_hidden(name), "{name}");
        }
        for name in ["key", "Key", "keys", "key_file", "endpoint", "monkey", ""] {
            assert!(!is_hidden(name), "{name}");
        }
    }
}

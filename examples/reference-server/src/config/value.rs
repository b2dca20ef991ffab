//! Notations of single values: durations, sizes, token entries.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use data_encoding::HEXLOWER_PERMISSIVE;
use opamp_proto::custom::check_capability_name;

/// Reads a duration such as `500ms`, `30s`, `5m`, `24h` or `7d`. A unit is required, except for `0`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let (number, unit) = split_unit(text);
    let problem =
        || format!("{text:?} is not a duration; write for example `500ms`, `30s`, `5m`, `24h` or `7d`");
    let number: u64 = number.parse().map_err(|_| problem())?;
    if unit.is_empty() && number == 0 {
        return Ok(Duration::ZERO);
    }
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(problem)?;
    number.checked_mul(*scale).map(Duration::from_millis).ok_or_else(|| format!("{text:?} is too long"))
}

/// Writes a duration so that [`parse_duration`] reads it back.
pub fn format_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".into();
    }
    let (scale, unit) = UNITS.into_iter().find(|(scale, _)| ms.is_multiple_of(*scale)).unwrap_or((1, "ms"));
    format!("{}{unit}", ms / scale)
}

/// Reads a size in bytes such as `512`, `64KiB`, `64MiB` or `1GiB`.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let scale: usize = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => {
            return Err(format!(
                "{text:?} is not a size; write for example `512`, `64KiB`, `64MiB` or `1GiB`"
            ));
        }
    };
    let number: usize = number
        .parse()
        .map_err(|_| format!("{text:?} is not a size; write for example `512`, `64KiB` or `64MiB`"))?;
    number.checked_mul(scale).ok_or_else(|| format!("{text:?} is too large"))
}

fn split_unit(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..at], text[at..].trim_start())
}

/// The name of a custom capability: the owner's domain reversed, a dot, a short name, and perhaps `/` and a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityName(String);

impl CapabilityName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CapabilityName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check_capability_name(text)
            .map_err(|error| format!("{text:?}: {error}; write for example `com.example.discovery`"))?;
        Ok(CapabilityName(text.to_owned()))
    }
}

impl fmt::Display for CapabilityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One entry of `opamp.tokens`: a name and where its token is. `Debug` and `Display` never show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// The principal that the token stands for.
    pub name: String,
    /// The token, or where to find it.
    pub secret: TokenSource,
}

/// Where the token of a [`TokenEntry`] comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// The first line of a file.
    File(PathBuf),
    /// Written down in the configuration.
    Plain(String),
    /// SHA-256 of the token.
    Sha256([u8; 32]),
}

impl FromStr for TokenEntry {
    type Err = String;

    // The text is never repeated in an error: it may be a secret.
    fn from_str(text: &str) -> Result<Self, String> {
        const NOTATION: &str = "an entry is `NAME=TOKEN`, `NAME=@FILE` or `NAME=sha256:HEX`";
        let Some((name, value)) = text.split_once('=') else {
            return Err(format!("entry without `=`; {NOTATION}"));
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Err(format!("a token's name is letters, digits, `-`, `_` and `.`; {NOTATION}"));
        }
        let secret = if let Some(path) = value.strip_prefix('@') {
            TokenSource::File(path.into())
        } else if let Some(hex) = value.strip_prefix("sha256:") {
            let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok();
            let hash = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            TokenSource::Sha256(
                hash.ok_or_else(|| format!("token {name:?}: `sha256:` needs 64 hexadecimal digits"))?,
            )
        } else if value.is_empty() {
            return Err(format!("token {name:?} is empty; {NOTATION}"));
        } else {
            TokenSource::Plain(value.to_owned())
        };
        Ok(TokenEntry { name: name.to_owned(), secret })
    }
}

impl fmt::Display for TokenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.secret {
            TokenSource::File(path) => write!(f, "{}=@{}", self.name, path.display()),
            TokenSource::Plain(_) => write!(f, "{}=<redacted>", self.name),
            TokenSource::Sha256(_) => write!(f, "{}=sha256:<redacted>", self.name),
        }
    }
}

impl fmt::Debug for TokenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for wrong in
            ["", "30", "s", "-1s", "1.5s", "30 sec", "99999999999999999999d", "18446744073709551615d"]
        {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_written_duration_reads_back() {
        for ms in [0, 1, 500, 1_000, 90_000, 60_000, 3_600_000, 86_400_000, 90_061_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn sizes_are_binary_units() {
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("64 MiB"), Ok(67_108_864));
        for wrong in ["", "64MB", "x", "-1", "18446744073709551615GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_custom_capabilities_are_those_of_the_protocol() {
        for name in ["com.example.discovery", "com.example.discovery/2"] {
            assert_eq!(name.parse::<CapabilityName>().unwrap().to_string(), name);
        }
        for wrong in ["", "discovery", "com.example.", "com example.x"] {
            let error = wrong.parse::<CapabilityName>().unwrap_err();
            assert!(error.contains("com.example.discovery"), "{error}");
        }
    }

    #[test]
    fn token_entries_never_show_the_token() {
        let entry: TokenEntry = "edge=s3cret-value=with=equals".parse().unwrap();
        assert!(entry.secret == TokenSource::Plain("s3cret-value=with=equals".into()));
        assert_eq!(format!("{entry} {entry:?}"), "edge=<redacted> edge=<redacted>");
        for wrong in ["s3cret", "=s3cret", "a b=s3cret", "edge=", "edge=sha256:s3cret"] {
            let error = wrong.parse::<TokenEntry>().unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}

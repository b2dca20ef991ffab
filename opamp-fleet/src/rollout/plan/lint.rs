//! Checks of the configuration itself: size, destinations, secrets, validators (R10).
//!
//! Files are read as text, line by line, whatever their format is: what looks like a destination or a secret is taken for
//! one, as [`Scan`] says. That errs towards findings, which name the file and the line and never a secret.

use std::collections::BTreeSet;
use std::fmt;

use super::scan::{Said, Scan, unescaped};
use crate::ConfigMap;

/// What a configuration is checked for. By default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lint<'a> {
    /// Hosts it may send to, such as `otel.example.org`, or `*.example.org` for everything below; none: any. Hosts of
    /// the machine itself are always allowed. What is looked at is what follows `://`, and values of keys that end in
    /// `endpoint`, `endpoints`, `brokers`, `hosts` or `servers`: this finds mistakes, and hinders nobody who hides a host.
    pub destinations: Option<&'a BTreeSet<Box<str>>>,
    /// Names of the secrets that exist; none: that is not known. One that is missing forbids the rollout.
    pub secrets: Option<&'a BTreeSet<Box<str>>>,
    /// The largest configuration, encoded, in bytes; none: any.
    pub bytes_max: Option<u64>,
    /// What else has a say. At most [`Lint::VALIDATORS_MAX`] are asked.
    pub validators: &'a [&'a dyn Validator],
}

impl Lint<'_> {
    /// Most findings that are kept; one more then says how many there are beside them.
    pub const FINDINGS_MAX: usize = 64;
    /// Most validators.
    pub const VALIDATORS_MAX: usize = 16;

    /// What there is to say about a configuration, in the order of its files.
    pub fn check(&self, config: &ConfigMap) -> Vec<Finding> {
        let mut findings = Findings::default();
        let bytes = config.encode().len() as u64;
        if let Some(limit) = self.bytes_max.filter(|limit| bytes > *limit) {
            findings.forbid("size", "", format!("{bytes} bytes, at most {limit} are allowed"));
        }
        for (file, object) in &config.map().config_map {
            // What is no text has no lines; validators may know what it is.
            if let Ok(text) = str::from_utf8(&object.body) {
                let mut scan = Scan::default();
                for (line, number) in text.lines().zip(1..) {
                    self.line(&unescaped(line), &mut scan, &Place { file, number }, &mut findings);
                }
            }
        }
        for validator in self.validators.iter().take(Self::VALIDATORS_MAX) {
            validator.check(config, &mut findings);
        }
        findings.into_list()
    }

    fn line(&self, line: &str, scan: &mut Scan, place: &Place<'_>, findings: &mut Findings) {
        let number = place.number;
        let said = scan.line(line);
        if line.trim_start().starts_with('#') {
            return;
        }
        if let Some(known) = self.secrets {
            for name in references(line).filter(|name| !known.contains(*name)) {
                findings.forbid("secrets", place.file, format!("line {number}: no secret {name:?}"));
            }
        }
        for said in said {
            match (said, self.destinations) {
                (Said::Secret(key), _) => {
                    let text = format!("line {number}: {key:?} looks like a secret in plain text");
                    findings.note("secrets", place.file, text);
                }
                (Said::Destination(_), None) => {}
                (Said::Destination(destination), Some(allowed)) => match host(destination) {
                    None => {
                        let text = format!("line {number}: a destination that is known only on the agent");
                        findings.note("destinations", place.file, text);
                    }
                    Some(host) if is_allowed(host, allowed) => {}
                    Some(host) => {
                        let text = format!("line {number}: {host:?} is no allowed destination");
                        findings.forbid("destinations", place.file, text);
                    }
                },
            }
        }
    }
}

/// Something that knows a kind of configuration, such as the Collector's.
pub trait Validator: fmt::Debug {
    /// Says what it finds. It may read the configuration and nothing else.
    fn check(&self, config: &ConfigMap, findings: &mut Findings);
}

/// Something a check found in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which check.
    pub check: Box<str>,
    /// The file; empty for the configuration as a whole.
    pub file: Box<str>,
    /// What was found, without secret values; at most [`Finding::TEXT_BYTES_MAX`] bytes.
    pub text: Box<str>,
    /// Whether it forbids the rollout.
    pub forbids: bool,
}

impl Finding {
    /// Longest text, in bytes.
    pub const TEXT_BYTES_MAX: usize = 512;
}

/// Findings, bounded: of more than [`Lint::FINDINGS_MAX`] those that forbid are kept before the others.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    more: u32,
}

impl Findings {
    /// Something that forbids the rollout.
    pub fn forbid(&mut self, check: &str, file: &str, text: impl Into<String>) {
        self.add(check, file, &text.into(), true);
    }

    /// Something to be shown.
    pub fn note(&mut self, check: &str, file: &str, text: impl Into<String>) {
        self.add(check, file, &text.into(), false);
    }

    fn add(&mut self, check: &str, file: &str, text: &str, forbids: bool) {
        if self.list.len() >= Lint::FINDINGS_MAX {
            self.more = self.more.saturating_add(1);
            let note = self.list.iter().rposition(|finding| !finding.forbids);
            let Some(position) = note.filter(|_| forbids) else { return };
            self.list.remove(position);
        }
        let end = text.floor_char_boundary(Finding::TEXT_BYTES_MAX);
        let text = text[..end].into();
        self.list.push(Finding { check: check.into(), file: file.into(), text, forbids });
    }

    fn into_list(self) -> Vec<Finding> {
        let Self { mut list, more } = self;
        if more > 0 {
            let text = format!("{more} more findings").into();
            list.push(Finding { check: "findings".into(), file: "".into(), text, forbids: false });
        }
        list
    }
}

struct Place<'a> {
    file: &'a str,
    number: u32,
}

/// Names of secrets that a line refers to as `${secret:NAME}`.
fn references(line: &str) -> impl Iterator<Item = &str> {
    line.split("${secret:").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name.trim())
}

/// The host of what begins like `user@host:port/path`; none if it is not written there, but filled in on the agent.
fn host(destination: &str) -> Option<&str> {
    let end = destination.find(|char: char| char.is_whitespace() || "/?#\"',".contains(char));
    let authority = &destination[..end.unwrap_or(destination.len())];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.contains('$') || host.contains('{') {
        return None;
    }
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some(host);
    }
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return Some(address);
    }
    Some(host.split_once(':').map_or(host, |(host, _)| host))
}

fn is_allowed(host: &str, allowed: &BTreeSet<Box<str>>) -> bool {
    const SELF: [&str; 5] = ["", "localhost", "0.0.0.0", "::", "::1"];
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_loopback = host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    SELF.contains(&&*host)
        || is_loopback
        || allowed.iter().any(|pattern| match pattern.to_ascii_lowercase().strip_prefix("*.") {
            Some(domain) => {
                host.strip_suffix(domain).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
            }
            None => pattern.eq_ignore_ascii_case(&host),
        })
}

#[cfg(test)]
mod tests {
    use opamp_proto::pb;

    use super::*;
    use crate::ConfigLimits;

    fn config(body: &str) -> ConfigMap {
        let mut map = pb::AgentConfigMap::default();
        let object = pb::AgentConfigObject { body: body.to_owned().into(), ..Default::default() };
        map.config_map.insert("c.yaml".to_owned(), object);
        ConfigMap::new(map, &ConfigLimits::default()).unwrap()
    }

    fn names(names: &[&str]) -> BTreeSet<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn found(lint: &Lint<'_>, body: &str) -> Vec<(String, bool)> {
        let findings = lint.check(&config(body)).into_iter();
        findings.map(|finding| (finding.text.into(), finding.forbids)).collect()
    }

    #[test]
    fn without_a_list_every_destination_is_allowed() {
        assert!(found(&Lint::default(), "endpoint: https://evil.example.com").is_empty());
    }

    #[test]
    fn a_destination_that_is_not_on_the_list_forbids_the_rollout() {
        let allowed = names(&["otel.example.org", "*.eu.example.org"]);
        let lint = Lint { destinations: Some(&allowed), ..Lint::default() };
        for fine in [
            "endpoint: https://otel.example.org:4318/v1",
            "endpoint: OTEL.example.org.:4317",
            "  endpoint: \"a.b.eu.example.org:4317\"",
            "endpoint: 0.0.0.0:4317",
            "endpoint: [::1]:4317",
            "url: http://127.0.0.2/",
            "# endpoint: https://evil.example.com",
            "interval: 10s",
            "otlp: { endpoint: otel.example.org:4317, tls: { insecure: true } }",
            "brokers: [otel.example.org:9092, \"a.eu.example.org\"]",
            "{\"exporters\":{\"otlp\":{\"endpoint\":\"otel.example.org:4317\",\"timeout\":\"1s\"}}}",
            "endpoint:\n  otel.example.org:4317\ninterval: 10s",
            "endpoint: { url: x }",
        ] {
            assert!(found(&lint, fine).is_empty(), "{fine}: {:?}", found(&lint, fine));
        }
        for refused in [
            "endpoint: https://evil.example.com:4318/v1",
            "endpoint: evil.example.com:4317",
            "logs_endpoint: evil.example.com",
            "urls: [\"https://otel.example.org\", \"https://evil.example.com\"]",
            "url: https://otel.example.org@evil.example.com/",
            "url: https://eu.example.org/",
            "url: https://xeu.example.org/",
            "  - grpc://[2001:db8::1]:4317",
            "endpoint: [2001:db8::1]:4317",
            "otlp: { endpoint: evil.example.com:4317 }",
            "{otlp: {timeout: 1s, endpoint: 'evil.example.com:4317'}}",
            "{\"exporters\":{\"otlp\":{\"endpoint\":\"evil.example.com:4317\"}}}",
            "\"endpoint\":\n  \"evil.example.com:4317\"",
            "endpoint: # where to\n\n  # a comment\n  evil.example.com:4317",
            "endpoint: |-\n  evil.example.com:4317",
            "endpoint: &backend evil.example.com",
            "x: \"https:\\/\\/evil.example.com\"",
            "\"e\\u006edpoint\": \"evil.example.com:4317\"",
            "endpoint: dns:///evil.example.com:4317",
            "brokers: [otel.example.org:9092, evil.example.com:9092]",
            "brokers:\n- otel.example.org:9092\n- evil.example.com:9092",
            "bootstrap.servers=otel.example.org:9092,evil.example.com:9092",
            "x: \"${\", endpoint: evil.example.com",
            "x: '${', y: { endpoint: evil.example.com }",
        ] {
            let findings = found(&lint, refused);
            assert!(findings.len() == 1 && findings[0].1, "{refused}: {findings:?}");
        }
        assert_eq!(
            found(&lint, "a: 1\nurl: https://evil.example.com"),
            [("line 2: \"evil.example.com\" is no allowed destination".to_owned(), true)]
        );
    }

    #[test]
    fn a_destination_that_only_the_agent_knows_is_told() {
        let allowed = names(&[]);
        let lint = Lint { destinations: Some(&allowed), ..Lint::default() };
        let findings = found(&lint, "endpoint: ${env:BACKEND}:4317");
        assert!(findings.len() == 1 && !findings[0].1, "{findings:?}");
    }

    #[test]
    fn a_secret_that_does_not_exist_forbids_the_rollout() {
        let known = names(&["backend"]);
        let lint = Lint { secrets: Some(&known), ..Lint::default() };
        assert!(found(&lint, "token: ${secret:backend}").is_empty());
        let missing = [("line 1: no secret \"backed\"".to_owned(), true)];
        assert_eq!(found(&lint, "token: ${secret:backed}"), missing);
    }

    #[test]
    fn a_secret_in_plain_text_is_told_without_its_value() {
        for line in [
            "password: hunter2",
            "  api-key: 'hunter2'",
            "\"client_secret\": \"hunter2\",",
            "TOKEN=hunter2",
            "auth: { user: me, password: hunter2 }",
            "{\"a\":{\"token\":\"hunter2\"}}",
        ] {
            let findings = found(&Lint::default(), line);
            assert!(findings.len() == 1 && !findings[0].1, "{line}: {findings:?}");
            assert!(!findings[0].0.contains("hunter2"), "{findings:?}");
        }
        for line in ["password: ${env:PASSWORD}", "password:", "tokens_per_second: 5", "- password"] {
            assert!(found(&Lint::default(), line).is_empty(), "{line}");
        }
    }

    #[test]
    fn a_configuration_that_is_too_large_forbids_the_rollout() {
        let lint = Lint { bytes_max: Some(10), ..Lint::default() };
        assert!(found(&lint, "a: 1\nb: 2\nc: 3")[0].1);
        assert!(found(&Lint { bytes_max: Some(1_000), ..lint }, "a: 1").is_empty());
    }

    #[derive(Debug)]
    struct NeverTwo;

    impl Validator for NeverTwo {
        fn check(&self, config: &ConfigMap, findings: &mut Findings) {
            if config.map().config_map.values().any(|file| file.body.as_ref() == b"2") {
                findings.forbid("never-two", "c.yaml", "2");
            }
        }
    }

    #[test]
    fn a_validator_has_a_say() {
        let lint = Lint { validators: &[&NeverTwo], ..Lint::default() };
        assert!(found(&lint, "1").is_empty());
        assert_eq!(found(&lint, "2"), [("2".to_owned(), true)]);
    }

    #[test]
    fn findings_are_bounded_and_those_that_forbid_are_kept() {
        let known = names(&[]);
        let lint = Lint { secrets: Some(&known), ..Lint::default() };
        let body = format!("{}x: ${{secret:gone}}", "password: hunter2\n".repeat(Lint::FINDINGS_MAX + 9));
        let findings = found(&lint, &body);
        assert_eq!(findings.len(), Lint::FINDINGS_MAX + 1);
        assert_eq!(findings.iter().filter(|(_, forbids)| *forbids).count(), 1);
        assert_eq!(findings.last(), Some(&("10 more findings".to_owned(), false)));
    }
}

//! Configuration: sources and their precedence, mistakes and what is said about them, and that every key is read.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeMap, fs, path::PathBuf};

use reference_server::{
    Config,
    config::{
        Inputs,
        docs::markdown,
        keys::{KEYS, Kind},
    },
};
use support::TempDir;

struct Sources {
    dir: TempDir,
    inputs: Inputs,
}

impl Sources {
    fn file(text: &str) -> Self {
        let dir = TempDir::new();
        let path = dir.path().join("server.toml");
        fs::write(&path, text).unwrap();
        let mut inputs = Inputs::default();
        inputs.file = Some(path);
        Sources { dir, inputs }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.inputs.env.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, key: &'static str, value: &str) -> Self {
        self.inputs.flags.push((key, vec![value.into()]));
        self
    }

    fn load(&self) -> Config {
        Config::load(&self.inputs).unwrap()
    }

    /// The error text, with the directory left out.
    fn error(&self) -> String {
        let text = Config::load(&self.inputs).unwrap_err().to_string();
        text.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

/// A valid value other than the default.
fn other_value(name: &str, kind: Kind, default: &str) -> String {
    match (name, kind) {
        ("opamp.tokens" | "opamp.revoked_tokens", _) => "edge=secret-of-the-test".into(),
        ("opamp.read_timeout", _) => "777s".into(),
        ("opamp.websocket_stale_after", _) => "778s".into(),
        ("opamp.path", _) => "/elsewhere".into(),
        ("opamp.retry_after_max", _) => "777s".into(),
        ("opamp.buffered_bytes_max", _) => "777MiB".into(),
        ("opamp.http_buffer_bytes", _) => "77KiB".into(),
        ("fleet.gather_delay", _) => "777ms".into(),
        ("log.level", _) => "debug".into(),
        ("self_agent.interval", _) => "1h".into(),
        ("self_agent.timeout", _) => "7s".into(),
        ("self_agent.external_url", _) => "wss://opamp.example.com/v1/opamp".into(),
        ("self_agent.proxy", _) => "http://proxy.example.com:3128".into(),
        ("opamp.custom_capabilities", _) => "com.example.discovery".into(),
        ("packages.public_url", _) => "https://opamp.example.com:4320".into(),
        (_, Kind::Address) => "127.0.0.1:1".into(),
        (_, Kind::Choice(words)) => (*words.iter().find(|word| **word != default).unwrap()).into(),
        (_, Kind::Count) => "7".into(),
        (_, Kind::Duration) => "7s".into(),
        (_, Kind::List) => "192.0.2.7".into(),
        (_, Kind::Size) => "7KiB".into(),
        (_, Kind::Switch) => if default == "true" { "false" } else { "true" }.into(),
        _ => "other".into(),
    }
}

/// What else must be set for the key to be accepted.
fn companions(name: &str) -> &'static [(&'static str, &'static str)] {
    const TLS: (&str, &str) = ("opamp.tls_key", "k");
    match name {
        "opamp.auth" => &[("opamp.tls_cert", "c"), TLS, ("opamp.client_ca", "a")],
        "opamp.tokens" => &[("opamp.auth", "token")],
        "opamp.revoked_tokens" => &[("opamp.auth", "token"), ("opamp.tokens", "a=b")],
        "opamp.tls_cert" => &[TLS],
        "opamp.tls_key" => &[("opamp.tls_cert", "c")],
        "opamp.client_ca" => &[("opamp.tls_cert", "c"), TLS, ("opamp.auth", "mtls")],
        "admin.tls_cert" => &[("admin.tls_key", "k")],
        "admin.tls_key" => &[("admin.tls_cert", "c")],
        "self_agent.proxy" | "self_agent.ca_file" => &[("self_agent.external_url", "wss://h")],
        _ => &[],
    }
}

fn toml_of(settings: &BTreeMap<&str, String>) -> String {
    let line = |(name, value): (&&str, &String)| {
        let list = KEYS.iter().any(|key| key.name == *name && key.kind == Kind::List);
        let bare = [Kind::Count, Kind::Switch];
        let number = KEYS.iter().any(|key| key.name == *name && bare.contains(&key.kind));
        match (list, number) {
            (true, _) => format!("{name} = [{value:?}]\n"),
            (_, true) => format!("{name} = {value}\n"),
            _ => format!("{name} = {value:?}\n"),
        }
    };
    settings.iter().map(line).collect()
}

#[test]
fn every_key_is_read_from_file_environment_and_flags() {
    for key in KEYS {
        let value = other_value(key.name, key.kind, key.default);
        let mut around: BTreeMap<_, _> =
            companions(key.name).iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let flags = around.iter().fold(Sources::file(""), |sources, (name, value)| sources.flag(name, value));
        let from_flag = flags.flag(key.name, &value).load();
        let from_env = Sources::file(&toml_of(&around)).env(&key.env(), &value).load();
        around.insert(key.name, value.clone());
        let from_file = Sources::file(&toml_of(&around)).load();
        assert_eq!(from_file, from_env, "{}", key.name);
        assert_eq!(from_file, from_flag, "{}", key.name);

        let (_, short) = key.name.split_once('.').unwrap();
        let section = |text: &str| {
            let from = text.find(&format!("[{}]", key.name.split('.').next().unwrap())).unwrap();
            let lines = text[from..].lines().skip(1).take_while(|line| !line.starts_with('['));
            lines.map(str::to_owned).find(|line| line.split(' ').next() == Some(short)).unwrap()
        };
        assert_ne!(
            section(&from_file.to_toml()),
            section(&Config::default().to_toml()),
            "{} = {value} changes nothing",
            key.name
        );
    }
}

#[test]
fn without_configuration_agents_connect_where_the_specification_says() {
    let config = Config::default();
    assert_eq!(config.opamp.listen, "127.0.0.1:4320".parse().unwrap());
    assert_eq!(config.opamp.path, "/v1/opamp");
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "[opamp]\npath = \"/file\"\nfaults_max = 3\nretry_after = \"3s\"\n";
    let config = Sources::file(file)
        .env("OPAMP_PATH", "/env")
        .env("OPAMP_FAULTS_MAX", "4")
        .flag("opamp.path", "/flag")
        .load();
    let opamp = &config.opamp;
    let seen = (opamp.path.as_str(), opamp.faults_max.0, opamp.retry_after.as_secs(), opamp.handshakes_max.0);
    assert_eq!(seen, ("/flag", 4, 3, 256));
}

#[test]
fn a_mistyped_key_is_an_error_that_names_line_and_nearest_key() {
    let text = Sources::file("[server]\n\n[opamp]\nlistne = \"127.0.0.1:1\"\n").error();
    assert_eq!(text, "server.toml:4: unknown key `opamp.listne`; the nearest known one is `opamp.listen`");
    let text = Sources::file("[amdin]\nlisten = \"127.0.0.1:1\"\n").error();
    assert!(text.starts_with("server.toml:1: unknown key `amdin`"), "{text}");
    let text = Sources::file("opamp = 3\n").error();
    assert_eq!(text, "server.toml:1: `opamp` is a section: write `[opamp]`");
    let text = Sources::file("[opamp]\npath = '/x'\n path = '/y'\n").error();
    assert!(text.starts_with("server.toml:3: duplicate key"), "{text}");
}

#[test]
fn a_mistyped_variable_is_an_error_that_names_the_nearest_one() {
    let text = Sources::file("").env("OPAMP_LISTNE", "127.0.0.1:1").error();
    assert_eq!(text, "OPAMP_LISTNE: unknown variable; the nearest known one is `OPAMP_LISTEN`");
    let config = Sources::file("").env("OTHER_LISTNE", "x").load();
    assert_eq!(config, Config::default(), "other programs' variables are not ours");
}

/// Kubernetes and Docker put these into the environment for a service called `opamp` or `opamp-server`.
#[test]
fn variables_of_the_container_platform_are_not_ours() {
    let config = Sources::file("")
        .env("OPAMP_SERVICE_HOST", "10.0.0.1")
        .env("OPAMP_SERVICE_PORT", "4320")
        .env("OPAMP_SERVICE_PORT_HTTP", "4320")
        .env("OPAMP_PORT", "tcp://10.0.0.1:4320")
        .env("OPAMP_PORT_4320_TCP", "tcp://10.0.0.1:4320")
        .env("OPAMP_PORT_4320_TCP_ADDR", "10.0.0.1")
        .env("OPAMP_SERVER_PORT_4320_TCP_PROTO", "tcp")
        .env("OPAMP_SERVER_SERVICE_HOST", "10.0.0.1")
        .load();
    assert_eq!(config, Config::default());
    let text = Sources::file("").env("OPAMP_PORT", "4320").error();
    assert!(text.starts_with("OPAMP_PORT: unknown variable"), "{text}");
}

#[test]
fn wrong_values_are_explained_where_they_stand() {
    for (file, expected) in [
        (
            "[opamp]\nlisten = \"localhost:1\"\n",
            "server.toml:2: `opamp.listen`: \"localhost:1\" is not an IP address",
        ),
        ("[opamp]\nping_interval = 30\n", "server.toml:2: `opamp.ping_interval` is a duration in quotes"),
        (
            "[opamp]\nping_interval = \"30\"\n",
            "server.toml:2: `opamp.ping_interval`: \"30\" is not a duration",
        ),
        (
            "[opamp]\nmessage_bytes_max = \"1MB\"\n",
            "server.toml:2: `opamp.message_bytes_max`: \"1MB\" is not a size",
        ),
        (
            "[opamp]\nfaults_max = \"many\"\n",
            "server.toml:2: `opamp.faults_max`: \"many\" is not a whole number",
        ),
        ("[opamp]\nfaults_max = 0\n", "`opamp.faults_max` must be more than zero"),
        (
            "[opamp]\nauth = \"tokne\"\n",
            "server.toml:2: `opamp.auth`: \"tokne\" is none of insecure, mtls, token, token-or-mtls; the nearest known one is `token`",
        ),
        ("[opamp]\ntokens = \"a=b\"\n", "server.toml:2: `opamp.tokens` is a list of strings"),
        ("[opamp]\npath = \"v1\"\n", "`opamp.path` \"v1\" is not a path"),
        (
            "[opamp]\nread_timeout = \"10s\"\n",
            "`opamp.read_timeout` must be longer than `opamp.ping_interval`",
        ),
        (
            "[opamp]\nwebsocket_frames = \"leen\"\n",
            "server.toml:2: `opamp.websocket_frames`: \"leen\" is none of lean, tungstenite; the nearest known one is `lean`",
        ),
        (
            "[opamp]\nbuffered_bytes_max = \"1MiB\"\n",
            "`opamp.buffered_bytes_max` is 1048576 bytes, which is less than one message may have (`opamp.message_bytes_max`, 67108864 bytes): raise it",
        ),
        (
            "[fleet]\ngather_delay = \"1h\"\n",
            "`fleet.gather_delay` is 1h, by which the inventory would always be behind: it is 1s at most",
        ),
        (
            "[opamp]\nretry_after = \"10m\"\n",
            "`opamp.retry_after_max` is 5m, which is less than `opamp.retry_after` (10m): raise it",
        ),
        (
            "[opamp]\nconnections_max = 5\nconnections_per_identity_max = 6\n",
            "`opamp.connections_per_identity_max` is 6, which is more than `opamp.connections_max` (5)",
        ),
        (
            "[opamp]\nconnections_per_identity_max = 0\n",
            "`opamp.connections_per_identity_max` must be more than zero",
        ),
        (
            "[opamp]\nconnections_per_identity_max = \"many\"\n",
            "server.toml:2: `opamp.connections_per_identity_max`: \"many\" is not a whole number",
        ),
        (
            "[opamp]\nhttp_buffer_bytes = \"4KiB\"\n",
            "`opamp.http_buffer_bytes` is 4096 bytes; requests need 8KiB at least",
        ),
        ("[opamp]\naccept_burst = 0\n", "`opamp.accept_burst` must be more than zero"),
        ("[opamp]\naccept_queue_max = 0\n", "`opamp.accept_queue_max` must be more than zero"),
        ("[opamp]\nresync_burst = 0\n", "`opamp.resync_burst` must be more than zero"),
        (
            "[opamp]\naccept_rate = \"2000/s\"\n",
            "server.toml:2: `opamp.accept_rate`: \"2000/s\" is not a whole number",
        ),
        ("[self_agent]\nenabled = 1\n", "server.toml:2: `self_agent.enabled` is true or false"),
        ("[self_agent]\nenabled = \"yes\"\n", "server.toml:2: `self_agent.enabled`: \"yes\" is neither"),
        (
            "[self_agent]\ninterval = \"99ms\"\ntimeout = \"9ms\"\n",
            "`self_agent.interval` must not be shorter",
        ),
        (
            "[self_agent]\ntimeout = \"11s\"\n",
            "`self_agent.timeout` must not be longer than `self_agent.interval`",
        ),
        ("[opamp\n", "server.toml:1: "),
    ] {
        let text = Sources::file(file).error();
        assert!(text.starts_with(expected), "{file}: {text}");
    }
}

#[test]
fn a_pace_of_zero_is_no_pace_and_no_shared_configuration_is_none() {
    let text = "[opamp]\naccept_rate = 0\nresync_rate = 0\ndrain_rate = 0\nshared_configs_max = 0\n";
    let opamp = Sources::file(text).load().opamp;
    let zeros = [opamp.accept_rate, opamp.resync_rate, opamp.drain_rate, opamp.shared_configs_max];
    assert!(zeros.iter().all(|count| count.0 == 0));
}

#[test]
fn credentials_that_would_not_be_asked_for_are_an_error() {
    for (file, expected) in [
        ("tokens = [\"a=b\"]", "`opamp.tokens` is set but `opamp.auth` is \"insecure\""),
        ("client_ca = \"ca.pem\"", "`opamp.client_ca` is set but `opamp.auth` is \"insecure\""),
        ("auth = \"token\"", "`opamp.auth = \"token\"` needs at least one entry in `opamp.tokens`"),
        ("auth = \"mtls\"", "`opamp.auth = \"mtls\"` needs `opamp.client_ca`"),
        ("auth = \"mtls\"\nclient_ca = \"ca.pem\"", "`opamp.auth = \"mtls\"` needs `opamp.tls_cert`"),
        ("tls_cert = \"c.pem\"", "`opamp.tls_cert` and `opamp.tls_key` must be set together"),
    ] {
        let text = Sources::file(&format!("[opamp]\n{file}\n")).error();
        assert!(text.starts_with(expected), "{file}: {text}");
    }
}

#[test]
fn the_way_from_outside_is_encrypted_where_credentials_go_it_and_means_something() {
    const TOKENS: &str = "[opamp]\nauth = \"token\"\ntokens = [\"a=b\"]\n";
    for (file, expected) in [
        ("proxy = \"none\"", "`self_agent.proxy` is set but `self_agent.external_url` is not"),
        ("ca_file = \"ca.pem\"", "`self_agent.ca_file` is set but `self_agent.external_url` is not"),
        ("external_url = \"ws://h\"\nca_file = \"c\"", "`self_agent.ca_file` is set but"),
        ("external_url = \"ws://h\"", "`self_agent.external_url` would send a credential"),
        (
            "external_url = \"ws://localhost\"\nproxy = \"http://p\"",
            "`self_agent.external_url` would send a credential",
        ),
        ("external_url = \"http://h\"", "server.toml:5: `self_agent.external_url`: its scheme"),
    ] {
        let text = Sources::file(&format!("{TOKENS}[self_agent]\n{file}\n")).error();
        assert!(text.starts_with(expected), "{file}: {text}");
    }
    for file in ["external_url = \"ws://127.0.0.1:1\"", "external_url = \"wss://h\"\nca_file = \"c\""] {
        Sources::file(&format!("{TOKENS}[self_agent]\n{file}\n")).load();
    }
    Sources::file("[self_agent]\nexternal_url = \"ws://h\"\n").load();
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let mut inputs = Inputs::default();
    inputs.env.push(("OPAMP_CONFIG".into(), "/nonexistent/opamp.toml".into()));
    let text = Config::load(&inputs).unwrap_err().to_string();
    assert!(text.starts_with("cannot read configuration file /nonexistent/opamp.toml: "), "{text}");
}

#[test]
fn secrets_show_nowhere() {
    const SECRET: &str = "8f3a-very-secret";
    let config = Sources::file(&format!("[opamp]\nauth = \"token\"\ntokens = [\"edge={SECRET}\"]\n")).load();
    let shown = format!("{}{config:?}{config:#?}", config.to_toml());
    assert!(shown.contains("edge=<redacted>") && !shown.contains(SECRET), "{shown}");
    let proxy = format!("[self_agent]\nexternal_url = \"wss://h\"\nproxy = \"http://me:{SECRET}@p\"\n");
    let config = Sources::file(&proxy).load();
    let shown = format!("{}{config:?}{config:#?}", config.to_toml());
    assert!(shown.contains("http://<redacted>@p") && !shown.contains(SECRET), "{shown}");
    // Mistakes around a secret do not repeat it.
    for file in [
        format!("[opamp]\ntokens = [\"{SECRET}\"]\n"),
        format!("[opamp]\ntokens = [\"{SECRET} = x\"]\n"),
        format!("[opamp]\ntokens = [\"edge={SECRET}\"\nx = \n"),
        format!("[opamp]\ntokens = \"edge={SECRET}\"\n"),
        format!("[opamp]\ntokens = [\"edge={SECRET}\", 3]\n"),
        format!("[self_agent]\nexternal_url = \"wss://me:{SECRET}@h\"\n"),
        format!("[self_agent]\nproxy = \"ftp://me:{SECRET}@h\"\n"),
    ] {
        let text = Sources::file(&file).error();
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[test]
fn the_effective_configuration_reads_back() {
    let mut config =
        Sources::file("[opamp]\npath = \"/a\\\"b\\\\c\"\n[admin]\ntrusted_proxies = [\"10.0.0.0/8\"]\n")
            .load();
    assert_eq!(Sources::file(&config.to_toml()).load(), config);
    config.server.data_dir = PathBuf::from("tab\tbed");
    assert_eq!(Sources::file(&config.to_toml()).load(), config);
}

#[test]
fn the_documentation_has_every_key_with_flag_variable_and_default() {
    let page = markdown();
    for key in KEYS {
        let (_, short) = key.name.split_once('.').unwrap();
        let start = format!("| `{short}` | `--{}`<br>`{}` |", key.flag(), key.env());
        let row = page.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("{} is not documented", key.name));
        assert!(key.default.is_empty() || row.contains(&format!("`{}`", key.default)), "{row}");
    }
}

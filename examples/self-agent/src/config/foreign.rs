//! Keys that operators know from the collector's supervisor and that are refused here, with the reason.

/// A key that means nothing here. `false` and leaving it
/// out are the same; anything else is refused with the reason.
#[derive(Debug)]
#[non_exhaustive]
pub struct Foreign {
    /// Dotted name; everything below it is meant as well.
    pub name: &'static str,
    /// Why it is refused, and what to do instead.
    pub why: &'static str,
}

/// Keys of the supervisor that are refused here.
pub const FOREIGN: &[Foreign] = &[
    Foreign {
        name: "server.tls.insecure_skip_verify",
        why: "the server's certificate is always verified; name the authority that signed it in `server.tls.ca_file`",
    },
    Foreign {
        name: "server.tls.insecure",
        why: "the scheme of `server.endpoint` says whether there is TLS: `ws` and `http` have none",
    },
    Foreign {
        name: "server.tls.ca_pem",
        why: "put the certificates into a file and name it in `server.tls.ca_file`",
    },
    Foreign {
        name: "server.tls.cert_pem",
        why: "put the certificate into a file and name it in `server.tls.cert_file`",
    },
    Foreign {
        name: "server.tls.key_pem",
        why: "put the key into a file of mode 0600 and name it in `server.tls.key_file`",
    },
    Foreign {
        name: "server.tls.reload_interval",
        why: "TLS files are read again for each connection if they have changed; leave it out",
    },
    Foreign {
        name: "server.tls.server_name_override",
        why: "use a host name in `server.endpoint` that is in the server's certificate",
    },
    Foreign {
        name: "capabilities.reports_own_logs",
        why: "this agent sends metrics of its own, and no logs",
    },
    Foreign {
        name: "capabilities.reports_own_traces",
        why: "this agent sends metrics of its own, and no traces",
    },
    Foreign { name: "agent.executable", why: "this agent is its own program and supervises none" },
    Foreign { name: "agent.args", why: "this agent is its own program and supervises none" },
    Foreign { name: "agent.env", why: "this agent is its own program and supervises none" },
    Foreign { name: "agent.config_files", why: "this agent is its own program and supervises none" },
    Foreign { name: "agent.config_apply_timeout", why: "this agent is its own program and supervises none" },
    Foreign { name: "agent.bootstrap_timeout", why: "this agent is its own program and supervises none" },
    Foreign {
        name: "agent.orphan_detection_interval",
        why: "this agent is its own program and supervises none",
    },
    Foreign { name: "agent.opamp_server_port", why: "this agent is its own program and supervises none" },
    Foreign { name: "agent.passthrough_logs", why: "this agent is its own program and supervises none" },
    Foreign { name: "agent.use_hup_config_reload", why: "this agent is its own program and supervises none" },
    Foreign {
        name: "healthcheck",
        why: "this agent opens no port; its health is what it reports to the server",
    },
    Foreign { name: "telemetry.logs.output_paths", why: "the log goes to standard error; redirect that" },
    Foreign {
        name: "telemetry.logs.error_output_paths",
        why: "the log goes to standard error; redirect that",
    },
    Foreign { name: "telemetry.logs.processors", why: "the log goes to standard error; redirect that" },
    Foreign {
        name: "telemetry.metrics",
        why: "the server says where own metrics go; switch them on with `capabilities.reports_own_metrics`",
    },
    Foreign { name: "telemetry.traces", why: "this agent sends metrics of its own, and no traces" },
    Foreign {
        name: "telemetry.resource",
        why: "own metrics carry the attributes that identify this agent; see `agent.description`",
    },
];

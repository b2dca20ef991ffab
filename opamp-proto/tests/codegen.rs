//! The committed protobuf types are what the schema files generate.
//!
//! After a change of a schema file, or of the generator's version, write the new code with
//!
//! ```text
//! OPAMP_REGENERATE=1 cargo test -p opamp-proto --test codegen
//! ```

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::path::{Path, PathBuf};

/// Messages whose `Debug` is written by hand in `src/pb/redact.rs`, because it would show secrets or contents.
const HAND_WRITTEN_DEBUG: [&str; 10] = [
    "AgentConfigObject",
    "CertificateRequest",
    "CustomMessage",
    "DownloadableFile",
    "Header",
    "OpAMPConnectionSettings",
    "OtherConnectionSettings",
    "ProxyConnectionSettings",
    "TLSCertificate",
    "TelemetryConnectionSettings",
];

#[test]
fn generated_code_is_what_the_schema_files_generate() {
    let committed_path = manifest_dir().join("src/pb/generated.rs");
    let generated = generate();
    if std::env::var_os("OPAMP_REGENERATE").is_some_and(|value| value == "1") {
        std::fs::write(&committed_path, &generated).expect("generated.rs can be written");
    }
    let committed = std::fs::read_to_string(&committed_path).expect("generated.rs can be read");
    if committed != generated {
        let line = committed.lines().zip(generated.lines()).position(|(old, new)| old != new);
        panic!(
            "src/pb/generated.rs differs from what the schema files generate, first in line {}; \
             write it anew with `OPAMP_REGENERATE=1 cargo test -p opamp-proto --test codegen`",
            line.map_or_else(
                || committed.lines().count().min(generated.lines().count()) + 1,
                |line| line + 1
            ),
        );
    }
}

fn generate() -> String {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("codegen");
    std::fs::create_dir_all(&out).expect("directory for generated code");
    let schema = protox::compile(["opamp/v1/opamp.proto"], [manifest_dir().join("proto")])
        .expect("the schema files compile");
    let mut config = prost_build::Config::new();
    config.out_dir(&out).bytes(["."]).btree_map(["."]);
    config.skip_debug(HAND_WRITTEN_DEBUG.map(|message| format!(".opamp.proto.v1.{message}")));
    config.compile_fds(schema).expect("the schema generates");
    std::fs::read_to_string(out.join("opamp.proto.v1.rs")).expect("generated code")
}

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

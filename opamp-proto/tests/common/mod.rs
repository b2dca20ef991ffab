//! What several test files share.

#![allow(dead_code, reason = "every test file uses its own share")]
#![expect(clippy::expect_used, reason = "a test that cannot be set up should fail")]

pub(crate) mod shuffle;
pub(crate) mod soup;
pub(crate) mod strategies;

use std::path::Path;
use std::sync::LazyLock;

use protox::prost_reflect::{DescriptorPool, MessageDescriptor};

/// The schema files, compiled.
pub(crate) static SCHEMA: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = protox::compile(["opamp/v1/opamp.proto"], [root]).expect("the schema files compile");
    DescriptorPool::from_file_descriptor_set(files).expect("the schema files are consistent")
});

/// A message of the schema, by its name without the package.
pub(crate) fn message(name: &str) -> MessageDescriptor {
    SCHEMA.get_message_by_name(&format!("opamp.proto.v1.{name}")).expect("a message of the schema")
}

/// The bytes that hexadecimal digits spell; blanks are left out.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8; 2]| {
        let text = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(text, 16).expect("digits")
    };
    assert!(digits.len().is_multiple_of(2), "two digits for each byte");
    digits.as_chunks::<2>().0.iter().map(pair).collect()
}

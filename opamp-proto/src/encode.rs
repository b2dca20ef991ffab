//! Writing protobuf fields straight into a buffer.
//!
//! A server answers every message, mostly with the same few fields, and sends one configuration to many agents. These
//! writers append to a buffer that the caller reuses; they allocate only when the buffer has to grow. Sub-messages that were
//! encoded once are spliced in with [`bytes_field`]. The order of fields has no meaning, so splicing is concatenation.

use prost::Message;

use crate::id::InstanceUid;

/// Field numbers of `ServerToAgent` (spec section "ServerToAgent Message").
pub mod server_to_agent {
    /// `instance_uid`, 16 bytes.
    pub const INSTANCE_UID: u32 = 1;
    /// `error_response`, a message.
    pub const ERROR_RESPONSE: u32 = 2;
    /// `remote_config`, a message.
    pub const REMOTE_CONFIG: u32 = 3;
    /// `connection_settings`, a message.
    pub const CONNECTION_SETTINGS: u32 = 4;
    /// `packages_available`, a message.
    pub const PACKAGES_AVAILABLE: u32 = 5;
    /// `flags`, a number.
    pub const FLAGS: u32 = 6;
    /// `capabilities`, a number.
    pub const CAPABILITIES: u32 = 7;
    /// `agent_identification`, a message.
    pub const AGENT_IDENTIFICATION: u32 = 8;
    /// `command`, a message.
    pub const COMMAND: u32 = 9;
    /// `custom_capabilities`, a message.
    pub const CUSTOM_CAPABILITIES: u32 = 10;
    /// `custom_message`, a message.
    pub const CUSTOM_MESSAGE: u32 = 11;
}

const WIRE_TYPE_VARINT: u64 = 0;
const WIRE_TYPE_BYTES: u64 = 2;

/// Appends a number field, such as `flags` or `capabilities`. Zero is the same as absent and leaves no bytes.
pub fn varint_field(number: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        key(number, WIRE_TYPE_VARINT, out);
        varint(value, out);
    }
}

/// Appends a length-delimited field: bytes, text, or a sub-message that is encoded already. It is written even when
/// empty, because presence means something for sub-messages.
pub fn bytes_field(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    key(number, WIRE_TYPE_BYTES, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends an identity field, such as `instance_uid`.
pub fn uid_field(number: u32, uid: &InstanceUid, out: &mut Vec<u8>) {
    bytes_field(number, uid.as_bytes(), out);
}

/// Appends a sub-message, encoded in place. It is written even when empty.
pub fn message_field<M: Message>(number: u32, message: &M, out: &mut Vec<u8>) {
    key(number, WIRE_TYPE_BYTES, out);
    varint(message.encoded_len() as u64, out);
    message.encode_raw(out);
}

/// How many bytes [`bytes_field`] appends for `len` bytes of content, to keep within a size limit or to reserve room.
#[must_use]
pub const fn bytes_field_len(number: u32, len: usize) -> usize {
    varint_len((number as u64) << 3) + varint_len(len as u64) + len
}

/// Appends a number in as few bytes as it takes, 1 to 10.
pub fn varint(value: u64, out: &mut Vec<u8>) {
    let mut value = value;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`varint`] appends.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    // 7 bits a byte, and at least one byte: ⌈bits / 7⌉ for 1 to 64 bits.
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn key(number: u32, wire_type: u64, out: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | wire_type, out);
}

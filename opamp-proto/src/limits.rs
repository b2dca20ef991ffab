//! Bounds on what is accepted from a peer.

/// Bounds on one received message, after decompression.
///
/// A message beyond one of them is malformed (spec section "Message size limits"; R-WS-08, R-HTTP-19). What passes all of
/// them decodes with prost as well, so that nothing fails later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of a whole message in bytes, after decompression. Default 64 MiB, as the specification recommends; more than
    /// 4 GiB − 1 byte is never accepted. A larger value lets one agent make the server hold that much at once.
    pub message_bytes_max: usize,
    /// How deeply messages, map entries and (unknown) groups may nest below the top level. Default 64; values above
    /// [`Limits::NESTING_CEILING`] act like it, because prost refuses to go deeper. One level of sub-component health
    /// takes two: the map entry and the message in it.
    pub nesting_max: u32,
    /// Entries of all maps of one message together. Default 100,000. An entry costs 2 bytes on the wire and about a
    /// hundred once decoded, so this bounds the memory that a small message can ask for.
    pub map_entries_max: u32,
    /// Elements of all lists of one message together: attributes, array values, capability names. Default 100,000, for the
    /// same reason.
    pub list_entries_max: u32,
    /// Length of one string in bytes: names, error texts, attribute values. Default 1 MiB. Bodies of configurations and
    /// data of custom messages are bytes, not strings, and only bounded by the size of the message.
    pub string_bytes_max: usize,
}

impl Limits {
    /// The deepest nesting that prost decodes in every case, and so the largest effective [`Limits::nesting_max`].
    pub const NESTING_CEILING: u32 = 99;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * 1024 * 1024,
            nesting_max: 64,
            map_entries_max: 100_000,
            list_entries_max: 100_000,
            string_bytes_max: 1024 * 1024,
        }
    }
}

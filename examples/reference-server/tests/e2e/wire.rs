//! Messages that no library would write.

/// A tag: field number and wire type 2.
fn tag(field: u8) -> u8 {
    field << 3 | 2
}

/// The varint of a length, last byte first.
fn reversed_varint(mut value: usize, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let more = value > 0x7f;
        bytes.push((value & 0x7f) as u8 | u8::from(more) << 7);
        value >>= 7;
        if !more {
            break;
        }
    }
    out.extend(bytes.iter().rev());
}

/// An `AgentToServer` of `uid` whose health has a component, which has a component, and so on, `levels` deep.
///
/// It announces ReportsStatus and ReportsHealth. Written from the innermost level outwards and backwards, so that no level is copied twice.
pub fn nested_health(uid: &[u8; 16], levels: usize) -> Vec<u8> {
    // AgentToServer.capabilities and .health, ComponentHealth.component_health_map.
    const CAPABILITIES: [u8; 3] = [4 << 3, 0x81, 0x10];
    const HEALTH: u8 = 5;
    const COMPONENTS: u8 = 6;
    let mut backwards = Vec::new();
    for _ in 0..levels {
        let health = backwards.len();
        reversed_varint(health, &mut backwards);
        backwards.push(tag(2));
        backwards.extend([b'c', 1, tag(1)]);
        reversed_varint(backwards.len(), &mut backwards);
        backwards.push(tag(COMPONENTS));
    }
    reversed_varint(backwards.len(), &mut backwards);
    backwards.push(tag(HEALTH));
    backwards.extend(CAPABILITIES.iter().rev());
    backwards.extend(uid.iter().rev());
    backwards.extend([16, tag(1)]);
    backwards.reverse();
    backwards
}

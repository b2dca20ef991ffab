//! Dialling. On loopback every agent has an address of its own, as machines have: with one for all, the kernel's search for a free port among tens of
//! thousands would cost more than the connection, and there would be no more than 28,000 to one server.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
};

use mio::net::TcpStream;
use socket2::{Domain, Socket, Type};

/// Bytes that the socket of a slow agent takes while nobody reads.
const NARROW_BYTES: usize = 4 * 1024;
/// The segments of a slow agent: those of an ordinary network. With the 64 KB of loopback the server's socket alone
/// would hold megabytes for it.
const NARROW_SEGMENT: u32 = 1_400;

/// Starts a connection of the agent with this number in the fleet. A narrow one holds some 70 KB between both ends once
/// its agent does not read, instead of some 4 MB: what is sent to it then blocks.
pub(super) fn dial(target: SocketAddr, index: u32, narrow: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking().cloexec(), None)?;
    if narrow {
        // Before the connection is made: afterwards the window has been announced.
        socket.set_recv_buffer_size(NARROW_BYTES)?;
        socket.set_tcp_mss(NARROW_SEGMENT)?;
    }
    if let IpAddr::V4(address) = target.ip()
        && address.is_loopback()
    {
        socket.bind(&SocketAddrV4::new(source(index), 0).into())?;
    }
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// One of the four million addresses from 127.64.0.0 on, all of which are this machine.
fn source(index: u32) -> Ipv4Addr {
    const FIRST: u32 = 0x7f40_0000;
    const COUNT: u32 = 1 << 22;
    Ipv4Addr::from_bits(FIRST + index % COUNT)
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, thread, time::Duration};

    use super::*;

    /// What both ends hold of what one writes and the other does not read.
    fn held(narrow: bool) -> usize {
        const RESTS: u32 = 10;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _unread = dial(listener.local_addr().unwrap(), 1, narrow).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut held, mut rests) = (0, 0);
        while rests < RESTS {
            match socket.write(&[0; 64 * 1024]) {
                Ok(taken) => (held, rests) = (held + taken, 0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The kernel moves some of it to the other end, which makes room for more.
                    rests += 1;
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => panic!("{error}"),
            }
        }
        held
    }

    #[test]
    fn what_is_sent_to_a_narrow_connection_blocks_after_less_than_a_config() {
        let (narrow, wide) = (held(true), held(false));
        assert!(narrow < 192 * 1024 && narrow < wide / 4, "{narrow} {wide}");
    }

    #[test]
    fn agents_have_addresses_of_their_own_on_this_machine() {
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..100_000 {
            let address = source(index);
            assert!(address.is_loopback() && seen.insert(address), "{address}");
        }
        assert!(source(u32::MAX).is_loopback());
    }
}

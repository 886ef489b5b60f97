//! A port that stays ours while the server that listens on it is down.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// Ports below the ephemeral ones that are tried.
const PORTS_TRIED: u16 = 12_000;
const EPHEMERAL_FROM_USUALLY: u16 = 32_768;

/// A loopback port, held by a socket that is bound and never listens.
///
/// It is not an ephemeral one: a client that connects to an ephemeral port while nobody listens there can be given
/// that very port by the kernel, and be connected to itself. Servers must set `SO_REUSEADDR`, as all do that are
/// started here, to be let in beside the holder.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    address: SocketAddrV4,
    _holder: OwnedFd,
}

impl ReservedPort {
    /// Reserves a port that nobody has bound.
    pub(crate) fn new() -> io::Result<ReservedPort> {
        let upper = ephemeral_from().max(PORTS_TRIED * 2);
        let lower = upper - PORTS_TRIED;
        // Test processes that run at the same time begin at different places.
        let random = RandomState::new().build_hasher().finish();
        let first = u16::try_from(random % u64::from(PORTS_TRIED)).unwrap_or_default();
        for step in 0..PORTS_TRIED {
            let port = lower + (first + step) % PORTS_TRIED;
            match hold(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                held => return held,
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::V4(self.address)
    }
}

fn hold(address: SocketAddrV4) -> io::Result<ReservedPort> {
    let holder = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // IMPORTANT: bound before addresses may be reused, so that no other holder of the port is overlooked.
    bind(&holder, &address)?;
    sockopt::set_socket_reuseaddr(&holder, true)?;
    Ok(ReservedPort { address, _holder: holder })
}

/// The lowest port that the kernel gives to clients.
fn ephemeral_from() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|word| word.parse().ok());
    lowest.unwrap_or(EPHEMERAL_FROM_USUALLY)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_server_may_listen_on_the_port_again_and_again_and_nobody_else_gets_it() {
        let reserved = ReservedPort::new().unwrap();
        for _ in 0..2 {
            let listener = TcpListener::bind(reserved.address()).unwrap();
            let _client = TcpStream::connect(reserved.address()).unwrap();
            listener.accept().unwrap();
        }
        assert!(hold(reserved.address).is_err());
        assert!(TcpStream::connect(reserved.address()).is_err());
    }
}

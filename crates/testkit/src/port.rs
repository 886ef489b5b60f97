//! Addresses that nobody else uses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A loopback address that was free a moment ago. Prefer port 0 where the process can say what it got: between this
/// answer and the use of the port somebody else may take it.
///
/// # Errors
/// The operating system has no port left.
pub fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_bound() {
        let address = free_port().unwrap();
        assert!(address.ip().is_loopback());
        TcpListener::bind(address).unwrap();
    }
}

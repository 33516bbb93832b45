//! TCP, of the machine, of the machine with detours that a fault test sets, or of the turmoil simulation.

#![allow(clippy::disallowed_methods, reason = "this is the door to the network")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Which network this node is on.
#[derive(Clone, Copy, Debug)]
pub enum Net {
    Tcp,
    /// TCP, where connections to some addresses go elsewhere.
    Detoured(&'static Detours),
    Turmoil,
}

/// Where connections to an address (`host:port`) go instead: the proxies of a fault test.
#[derive(Debug, Default)]
pub struct Detours {
    by_address: RwLock<BTreeMap<String, String>>,
    taken: AtomicU64,
}

impl Detours {
    /// Lives as long as the process, so that a [`Net`] stays as cheap to copy as it is.
    pub fn leak(by_address: BTreeMap<String, String>) -> &'static Detours {
        Box::leak(Box::new(Detours { by_address: RwLock::new(by_address), taken: AtomicU64::new(0) }))
    }

    /// Replaces all of them. Connections that stand stay where they are.
    pub fn set(&self, by_address: BTreeMap<String, String>) {
        *self.by_address.write() = by_address;
    }

    /// Connections that were asked to take one so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn of(&self, addr: &str) -> Option<String> {
        let detour = self.by_address.read().get(addr).cloned();
        self.taken.fetch_add(u64::from(detour.is_some()), Ordering::Relaxed);
        detour
    }
}

/// A listening socket.
pub enum Listener {
    Tcp(tokio::net::TcpListener),
    Turmoil(turmoil::net::TcpListener),
}

/// A connection.
#[derive(Debug)]
pub enum Conn {
    Tcp(tokio::net::TcpStream),
    Turmoil(turmoil::net::TcpStream),
}

impl Net {
    /// Listens on `addr` (`host:port`; port 0 takes a free one).
    pub async fn bind(self, addr: &str) -> io::Result<Listener> {
        match self {
            Net::Tcp | Net::Detoured(_) => Ok(Listener::Tcp(tokio::net::TcpListener::bind(addr).await?)),
            Net::Turmoil => Ok(Listener::Turmoil(turmoil::net::TcpListener::bind(addr).await?)),
        }
    }

    /// Connects to `addr` (`host:port`), without Nagle's delay.
    pub async fn connect(self, addr: &str) -> io::Result<Conn> {
        match self {
            Net::Tcp => connect_tcp(addr).await,
            Net::Detoured(detours) => connect_tcp(detours.of(addr).as_deref().unwrap_or(addr)).await,
            Net::Turmoil => Ok(Conn::Turmoil(turmoil::net::TcpStream::connect(addr).await?)),
        }
    }
}

async fn connect_tcp(addr: &str) -> io::Result<Conn> {
    let stream = tokio::net::TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(Conn::Tcp(stream))
}

impl Listener {
    /// The next connection and the address of its client.
    pub async fn accept(&self) -> io::Result<(Conn, SocketAddr)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Conn::Tcp(stream), peer))
            }
            Listener::Turmoil(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Conn::Turmoil(stream), peer))
            }
        }
    }

    /// The address that the socket listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr(),
            Listener::Turmoil(listener) => listener.local_addr(),
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Conn::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Conn::Turmoil(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Conn::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Conn::Turmoil(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Conn::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Conn::Turmoil(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Conn::Tcp(stream) => stream.is_write_vectored(),
            Conn::Turmoil(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Conn::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Conn::Turmoil(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Conn::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Conn::Turmoil(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_detour_leads_elsewhere_until_it_is_replaced() {
        let (right, proxy) =
            (Net::Tcp.bind("127.0.0.1:0").await.unwrap(), Net::Tcp.bind("127.0.0.1:0").await.unwrap());
        let address = |listener: &Listener| listener.local_addr().unwrap().to_string();
        let detours = Detours::leak(BTreeMap::from([(address(&right), address(&proxy))]));
        let net = Net::Detoured(detours);
        let _held = net.connect(&address(&right)).await.unwrap();
        proxy.accept().await.unwrap();
        assert_eq!(detours.taken(), 1);
        detours.set(BTreeMap::new());
        let _held = net.connect(&address(&right)).await.unwrap();
        right.accept().await.unwrap();
        assert_eq!(detours.taken(), 1);
    }
}

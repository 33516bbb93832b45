//! TCP, of the machine or of the turmoil simulation.

#![allow(clippy::disallowed_methods, reason = "this is the door to the network")]

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Which network this node is on.
#[derive(Clone, Copy, Debug)]
pub enum Net {
    Tcp,
    Turmoil,
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
            Net::Tcp => Ok(Listener::Tcp(tokio::net::TcpListener::bind(addr).await?)),
            Net::Turmoil => Ok(Listener::Turmoil(turmoil::net::TcpListener::bind(addr).await?)),
        }
    }

    /// Connects to `addr` (`host:port`), without Nagle's delay.
    pub async fn connect(self, addr: &str) -> io::Result<Conn> {
        match self {
            Net::Tcp => {
                let stream = tokio::net::TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                Ok(Conn::Tcp(stream))
            }
            Net::Turmoil => Ok(Conn::Turmoil(turmoil::net::TcpStream::connect(addr).await?)),
        }
    }
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

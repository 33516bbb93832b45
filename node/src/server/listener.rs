//! Serving HTTP/1 and HTTP/2 on the sockets of the environment.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use oteld_env::{Conn, Env};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// A listening socket that axum serves, real or simulated.
struct EnvListener(oteld_env::Listener);

impl axum::serve::Listener for EnvListener {
    type Io = Conn;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Conn, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: accepting at once again would spin.
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Listens on `address` and serves `router` there until `stop`; answers with the address that it listens on.
///
/// # Errors
/// When the address cannot be listened on; the caller knows what it is for.
pub async fn serve(
    env: &Env,
    address: &str,
    router: Router,
    stop: CancellationToken,
) -> io::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let listener = env.net.bind(address).await?;
    let local = listener.local_addr()?;
    let task = env.tasks.spawn(async move {
        let server =
            axum::serve(EnvListener(listener), router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = server.await {
            debug!(%error, %local, "the server ended");
        }
    });
    Ok((local, task))
}

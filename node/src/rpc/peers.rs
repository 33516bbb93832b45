//! Connections to other nodes, by address. They reconnect by themselves.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use oteld_env::{Conn, Env, Net};
use oteld_proto::node::node_client::NodeClient;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint, Uri};

/// Largest message between nodes, in bytes: a batch of the largest request and its headers.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// How long a node may take to accept a connection.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);

/// How long it is not dialled again after that.
const GIVEN_UP_FOR: Duration = Duration::from_millis(200);

/// Appends have a connection of their own: a node that is slow to take them stops reading it, and checks and queries
/// must not wait behind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Appends,
    Calls,
}

/// Channels to nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    env: Env,
    channels: Arc<Mutex<BTreeMap<(String, Lane), Channel>>>,
}

impl Peers {
    pub fn new(env: Env) -> Self {
        Peers { env, channels: Arc::default() }
    }

    /// A client for the node at `address` (`host:port`). Connects at the first call.
    pub fn client(&self, address: &str) -> NodeClient<Channel> {
        self.client_on(address, Lane::Calls)
    }

    /// A client for the stream of appends to the node at `address`.
    pub fn append_client(&self, address: &str) -> NodeClient<Channel> {
        self.client_on(address, Lane::Appends)
    }

    fn client_on(&self, address: &str, lane: Lane) -> NodeClient<Channel> {
        let mut channels = self.channels.lock();
        let channel = channels.entry((address.to_owned(), lane));
        let channel = channel.or_insert_with(|| connect_lazily(&self.env, address)).clone();
        NodeClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Dials one address.
struct Dialer {
    net: Net,
    address: String,
    /// When the last attempt that was given up had lasted long enough.
    given_up: Mutex<Option<Instant>>,
}

impl Dialer {
    /// A channel dials anew for each of the calls that wait for it, one after the other. Where nothing answers, not
    /// even with a refusal, each would wait for all before it: so an attempt that was given up counts for the others.
    async fn dial(&self) -> io::Result<Conn> {
        let given_up = *self.given_up.lock();
        if given_up.is_none_or(|at| at.elapsed() >= GIVEN_UP_FOR) {
            let deadline = Instant::now() + CONNECT_WAIT_MAX;
            if let Ok(connected) = timeout_at(deadline, self.net.connect(&self.address)).await {
                return connected;
            }
            // Not now: nobody may have waited for a while.
            *self.given_up.lock() = Some(deadline);
        }
        let wait = CONNECT_WAIT_MAX.as_secs();
        let reason = format!("{} did not answer for {wait} s", self.address);
        Err(io::Error::new(io::ErrorKind::TimedOut, reason))
    }
}

fn connect_lazily(env: &Env, address: &str) -> Channel {
    let dialer = Arc::new(Dialer { net: env.net, address: address.to_owned(), given_up: Mutex::default() });
    let connector = tower::service_fn(move |_: Uri| {
        let dialer = dialer.clone();
        async move { dialer.dial().await.map(TokioIo::new) }
    });
    // The connector dials `address`; the URI is only what HTTP/2 wants to see.
    Endpoint::from_static("http://oteld-node")
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(4))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .connect_with_connector_lazy(connector)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use oteld_proto::node::StatusRequest;
    use tokio::net::TcpSocket;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn calls_to_a_host_that_is_silent_do_not_wait_for_each_other() {
        // Its queue is full and nobody accepts: the kernel drops what else comes.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = socket.listen(1).unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let mut queued = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(200), Net::Tcp.connect(&address)).await {
            queued.push(connected.unwrap());
        }
        let peers = Peers::new(Env::real());
        let begun = Instant::now();
        let call = |_| {
            let mut client = peers.client(&address);
            async move { client.status(StatusRequest::default()).await.unwrap_err() }
        };
        let errors = join_all((0..5).map(call)).await;
        assert!(begun.elapsed() < CONNECT_WAIT_MAX * 2, "{:?}", begun.elapsed());
        let texts = errors.iter().map(|error| format!("{error:?}"));
        texts.for_each(|text| assert!(text.contains("did not answer for 2 s"), "{text}"));
    }
}

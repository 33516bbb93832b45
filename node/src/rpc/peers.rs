//! Connections to other nodes, by address. They reconnect by themselves.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use oteld_env::Env;
use oteld_proto::node::node_client::NodeClient;
use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint, Uri};

/// Largest message between nodes, in bytes: a batch of the largest request and its headers.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

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

fn connect_lazily(env: &Env, address: &str) -> Channel {
    let net = env.net;
    let target = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let target = target.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(net.connect(&target).await?)) }
    });
    // The connector dials `address`; the URI is only what HTTP/2 wants to see.
    Endpoint::from_static("http://oteld-node")
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(4))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .connect_with_connector_lazy(connector)
}

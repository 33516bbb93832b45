//! One HTTP/1.1 request and its answer, over the real network or the simulated one; connections are kept and used
//! again, as clients do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use oteld_env::Env;
use tokio::time::timeout;

/// Idle connections that are kept for an address.
const IDLE_MAX: usize = 16;

/// How long a connection may take to be made.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// The sending side of a connection.
type Sender = SendRequest<Full<Bytes>>;

/// Connections by address. Clones share them; they stay on one thread.
#[derive(Clone)]
pub struct Pool {
    env: Env,
    idle: Rc<RefCell<BTreeMap<String, Vec<Sender>>>>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// `Retry-After` in whole seconds, where it is given.
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Clone, Debug)]
pub enum NoAnswer {
    /// No connection was made: the request had no effect.
    NotSent(String),
    /// The request may or may not have had its effect.
    Lost(String),
}

impl NoAnswer {
    pub fn reason(&self) -> &str {
        match self {
            NoAnswer::NotSent(reason) | NoAnswer::Lost(reason) => reason,
        }
    }
}

impl Pool {
    pub fn new(env: Env) -> Self {
        Pool { env, idle: Rc::default() }
    }

    /// Sends to `address` (`host:port`) and waits for the whole answer, `wait` at most.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn exchange(
        &self,
        address: &str,
        request: http::request::Builder,
        body: Bytes,
        wait: Duration,
    ) -> Result<Answer, NoAnswer> {
        let mut sender = self.connection(address).await?;
        let request = request.header("host", address).body(Full::new(body));
        let request = request.map_err(|error| NoAnswer::NotSent(error.to_string()))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((head, body))
        };
        let answered = timeout(wait, exchange).await.map_err(|_| "no answer in time".to_owned());
        let (head, body) = answered.and_then(|answered| answered).map_err(NoAnswer::Lost)?;
        let after = head.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = after.and_then(|value| value.parse().ok()).map(Duration::from_secs);
        let mut idle = self.idle.borrow_mut();
        let idle = idle.entry(address.to_owned()).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
        Ok(Answer { status: head.status.as_u16(), retry_after, body })
    }

    async fn connection(&self, address: &str) -> Result<Sender, NoAnswer> {
        loop {
            let kept = self.idle.borrow_mut().get_mut(address).and_then(Vec::pop);
            match kept {
                // One that the server has closed meanwhile is not used.
                Some(sender) if sender.is_ready() => return Ok(sender),
                Some(_) => {}
                None => break,
            }
        }
        let connect = async {
            let connection = self.env.net.connect(address).await.map_err(|error| error.to_string())?;
            let shaken = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await;
            let (sender, driver) = shaken.map_err(|error| error.to_string())?;
            // Ends when the sender is dropped or the server closes.
            self.env.tasks.spawn(async move {
                let _ = driver.await;
            });
            Ok(sender)
        };
        let connected = timeout(CONNECT_WAIT, connect).await;
        connected.unwrap_or_else(|_| Err("no connection in time".into())).map_err(NoAnswer::NotSent)
    }
}

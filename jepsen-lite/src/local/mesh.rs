//! A proxy for every directed link between the processes of a cluster, on a thread of its own.

#![allow(clippy::disallowed_methods, reason = "a proxy is between processes, and part of no node")]

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::link::{Counts, LinkState, Rule};
use super::proxy::{Path, serve};
use crate::nemesis::fault::Link;

/// All links between the nodes. Dropping it ends every connection.
pub struct Mesh {
    links: BTreeMap<Link, Arc<LinkState>>,
    /// By link: the address that the first dials instead of the second's.
    proxies: BTreeMap<Link, SocketAddr>,
    nodes: BTreeMap<String, SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Mesh {
    /// Starts the proxies on free ports of `ip`, for nodes that listen on these addresses.
    ///
    /// # Errors
    /// When a port or the thread cannot be had.
    pub fn start(ip: IpAddr, nodes: BTreeMap<String, SocketAddr>) -> io::Result<Mesh> {
        let pairs = nodes.keys().flat_map(|from| nodes.keys().map(move |to| (from.clone(), to.clone())));
        let pairs: Vec<Link> = pairs.filter(|(from, to)| from != to).collect();
        let links: BTreeMap<Link, Arc<LinkState>> =
            pairs.iter().map(|link| (link.clone(), Arc::default())).collect();
        let (mut proxies, mut addresses) = (Vec::new(), BTreeMap::new());
        for link in &pairs {
            let listener = TcpListener::bind(SocketAddr::new(ip, 0))?;
            listener.set_nonblocking(true)?;
            addresses.insert(link.clone(), listener.local_addr()?);
            let (forth, back) = (links[link].clone(), links[&(link.1.clone(), link.0.clone())].clone());
            proxies.push((listener, Path { target: nodes[&link.1], forth, back }));
        }
        let (stop, stopped) = oneshot::channel();
        let (begin, begun) = mpsc::channel();
        let thread = std::thread::Builder::new().name("proxies".into()).spawn(move || {
            // A runtime can be dropped on this thread, and not on one that drives another.
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(begin.send(Err(error))),
            };
            runtime.block_on(async move {
                let mut tasks = JoinSet::new();
                let started = proxies.into_iter().try_for_each(|(listener, path)| {
                    tasks.spawn(serve(tokio::net::TcpListener::from_std(listener)?, path));
                    Ok(())
                });
                if begin.send(started).is_ok() {
                    // Either way the mesh is gone.
                    let _ = stopped.await;
                }
            });
        })?;
        begun.recv().map_err(io::Error::other)??;
        Ok(Mesh { links, proxies: addresses, nodes, stop: Some(stop), thread: Some(thread) })
    }

    /// Where connections of `from` go instead, by the address of the node that they are for.
    pub fn detours(&self, from: &str) -> BTreeMap<String, String> {
        let of_node = self.proxies.iter().filter(|((source, _), _)| source == from);
        of_node.map(|((_, to), proxy)| (self.nodes[to].to_string(), proxy.to_string())).collect()
    }

    /// Sets the rule that a fault has for these links, beside those of other faults.
    pub fn impose(&self, fault: u32, links: &[Link], rule: Rule) {
        for state in links.iter().filter_map(|link| self.links.get(link)) {
            state.impose(fault, Some(rule));
        }
    }

    /// Takes away all rules of a fault.
    pub fn lift(&self, fault: u32) {
        self.links.values().for_each(|state| state.impose(fault, None));
    }

    /// What these links did so far, in sum.
    pub fn counts(&self, links: &[Link]) -> Counts {
        let states = links.iter().filter_map(|link| self.links.get(link));
        states.map(|state| state.counts()).fold(Counts::default(), |sum, counts| sum + counts)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::{BTreeMap, Counts, Link, Mesh, Rule, SocketAddr, io};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// `a` dials `b`; whoever plays `b` takes connections of the listener.
    struct Pair {
        mesh: Mesh,
        listener: TcpListener,
        proxy: String,
    }

    async fn pair() -> Pair {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let b = listener.local_addr().unwrap();
        let a = "127.0.0.1:1".parse::<SocketAddr>().unwrap();
        let nodes = BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let mesh = Mesh::start("127.0.0.1".parse().unwrap(), nodes).unwrap();
        let proxy = mesh.detours("a")[&b.to_string()].clone();
        Pair { mesh, listener, proxy }
    }

    impl Pair {
        async fn connect(&self) -> (TcpStream, TcpStream) {
            let near = TcpStream::connect(&self.proxy).await.unwrap();
            (near, within(self.listener.accept()).await.unwrap().0)
        }

        fn counts(&self, from: &str, to: &str) -> Counts {
            self.mesh.counts(&[link(from, to)])
        }

        /// Waits until a link counted something.
        async fn counted(&self, from: &str, to: &str, is: impl Fn(Counts) -> bool) {
            within(async {
                while !is(self.counts(from, to)) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }

    fn link(from: &str, to: &str) -> Link {
        (from.to_owned(), to.to_owned())
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
    }

    async fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        within(stream.read_exact(&mut read)).await.unwrap();
        read
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_ends_too() {
        let pair = pair().await;
        let (mut near, mut far) = pair.connect().await;
        near.write_all(b"hello").await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(read(&mut far, 5).await, b"hello");
        assert_eq!(within(far.read(&mut [0; 1])).await.unwrap(), 0);
        far.write_all(b"there").await.unwrap();
        assert_eq!(read(&mut near, 5).await, b"there");
        let five = Counts { passed: 5, ..Counts::default() };
        pair.counted("a", "b", |counts| counts == five).await;
        pair.counted("b", "a", |counts| counts == five).await;
    }

    #[tokio::test]
    async fn a_cut_swallows_one_way_and_breaks_the_connection_when_it_is_over() {
        let pair = pair().await;
        let (mut near, mut far) = pair.connect().await;
        pair.mesh.impose(1, &[link("b", "a")], Rule { cut: true, ..Rule::default() });
        far.write_all(b"lost").await.unwrap();
        pair.counted("b", "a", |counts| counts.held_back == 4).await;
        near.write_all(b"heard").await.unwrap();
        assert_eq!(read(&mut far, 5).await, b"heard");
        pair.mesh.lift(1);
        let end = within(near.read(&mut [0; 8])).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(pair.counts("b", "a").passed, 0);
    }

    #[tokio::test]
    async fn a_connection_into_a_cut_is_silent_until_it_is_over() {
        let pair = pair().await;
        pair.mesh.impose(1, &[link("a", "b")], Rule { cut: true, ..Rule::default() });
        let mut near = TcpStream::connect(&pair.proxy).await.unwrap();
        pair.counted("a", "b", |counts| counts.held_back == 1).await;
        pair.mesh.lift(1);
        assert!(within(near.read(&mut [0; 1])).await.is_err());
        pair.connect().await;
    }

    #[tokio::test]
    async fn what_was_held_comes_at_the_end_and_counts_as_delayed() {
        let pair = pair().await;
        let (mut near, mut far) = pair.connect().await;
        near.write_all(b"1").await.unwrap();
        assert_eq!(read(&mut far, 1).await, b"1");
        pair.mesh.impose(1, &[link("a", "b")], Rule { hold: true, ..Rule::default() });
        near.write_all(b"23").await.unwrap();
        far.write_all(b"back").await.unwrap();
        assert_eq!(read(&mut near, 4).await, b"back");
        pair.counted("a", "b", |counts| counts.delayed == 2 && counts.passed == 1).await;
        pair.mesh.lift(1);
        assert_eq!(read(&mut far, 2).await, b"23");
        pair.counted("a", "b", |counts| counts.delayed == 2 && counts.passed == 3).await;
    }

    #[tokio::test]
    async fn delays_and_throttles_make_it_late() {
        let pair = pair().await;
        let (mut near, mut far) = pair.connect().await;
        pair.mesh.impose(1, &[link("a", "b")], Rule { delay_ms: 80, ..Rule::default() });
        let begun = Instant::now();
        near.write_all(b"late").await.unwrap();
        assert_eq!(read(&mut far, 4).await, b"late");
        assert!(begun.elapsed() >= Duration::from_millis(80));
        pair.mesh.lift(1);
        pair.mesh.impose(2, &[link("a", "b")], Rule { bytes_per_second: Some(1000), ..Rule::default() });
        let begun = Instant::now();
        near.write_all(&[7; 200]).await.unwrap();
        assert_eq!(read(&mut far, 200).await, [7; 200]);
        assert!(begun.elapsed() >= Duration::from_millis(100));
        pair.counted("a", "b", |counts| counts.delayed == 204).await;
    }

    #[tokio::test]
    async fn refused_and_reset_connections_are_counted() {
        let pair = pair().await;
        let (mut near, _far) = pair.connect().await;
        pair.mesh.impose(1, &[link("a", "b")], Rule { refuse: true, ..Rule::default() });
        assert!(within(near.read(&mut [0; 1])).await.is_err());
        // The reset may come before the connection is seen.
        if let Ok(mut refused) = TcpStream::connect(&pair.proxy).await {
            assert!(within(refused.read(&mut [0; 1])).await.is_err());
        }
        pair.counted("a", "b", |counts| counts.reset == 2).await;
        pair.mesh.lift(1);
        pair.mesh.impose(2, &[link("a", "b")], Rule { reset: true, ..Rule::default() });
        let (mut near, _far) = pair.connect().await;
        assert!(within(near.read(&mut [0; 1])).await.is_err());
        assert_eq!(pair.counts("a", "b").reset, 3);
    }
}

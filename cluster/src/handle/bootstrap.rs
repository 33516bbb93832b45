//! How a member comes into the group: it finds out whether there is one, forms it, starts in it or joins it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use oteld_proto::meta::{JoinRequest, MetaMember, ProbeReply, ProbeRequest, join_reply};
use thiserror::Error;

use super::Inner;
use super::ask::Reply;
use super::directory::{Directory, promise_path, snapshot_path};
use crate::ids::{Incarnation, MetaId};
use crate::membership::{Founder, MetaNode, Probe, Step, first_step};
use crate::raft::{Member, MemberOptions, StartError};

const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(150);
/// Between two looks at whether the group knows this member's address.
const ADDRESS_PAUSE: Duration = Duration::from_secs(1);
/// After so many of the shortest election timeouts without a leader, a member asks whether it still is one.
const LEADERLESS_ELECTIONS: u32 = 6;

/// Why a member cannot run.
#[derive(Debug, Error)]
enum BootstrapError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the member's id cannot be written: {0}")]
    Identity(#[from] std::io::Error),
}

/// Runs until the handle is closed: gets an id where there is none, then starts Raft.
pub(super) async fn run(inner: Arc<Inner>, directory: Directory) {
    let incarnation = directory.incarnation;
    match start(&inner, directory).await {
        Ok(()) => stay_in(&inner, incarnation).await,
        Err(error) => {
            tracing::error!(%error, "the meta member does not start");
            inner.failed.send_replace(Some(error.to_string()));
        }
    }
}

async fn start(inner: &Arc<Inner>, directory: Directory) -> Result<(), BootstrapError> {
    let mut members = None;
    let id = match directory.id {
        Some(id) => id,
        None => loop {
            let probes = probe_all(inner, directory.incarnation).await;
            match first_step(&inner.my.name, directory.incarnation, &inner.options.members, &probes) {
                Step::Start(id) => break id,
                Step::Form(list) => {
                    let (id, _) = list
                        .iter()
                        .find(|(_, node)| node.incarnation == directory.incarnation)
                        .expect("a founder forms the group with itself in it");
                    let id = *id;
                    members = Some(list);
                    break id;
                }
                Step::Join => match join(inner, directory.incarnation).await {
                    Ok(id) => break id,
                    Err(reason) => tracing::debug!(%reason, "waits to join the meta group"),
                },
                Step::Wait(reason) => tracing::debug!(%reason, "waits for the meta group"),
            }
            tokio::time::sleep(PAUSE).await;
        },
    };
    inner.used.store(true, Ordering::Release);
    let (env, dir, incarnation) = (inner.env.clone(), inner.dir.clone(), directory.incarnation);
    inner.env.tasks.blocking(move || Directory::remember(&env, &dir, incarnation, id)).await?;
    let options = MemberOptions {
        heartbeat: inner.options.timing.heartbeat,
        election: inner.options.timing.election,
        snapshot_entries: inner.options.snapshot_entries,
        kept_entries: inner.options.kept_entries,
        snapshot: snapshot_path(&inner.dir),
        promise: promise_path(&inner.dir),
    };
    let member =
        Member::start(&inner.env, id, directory.log.clone(), inner.channels.clone(), options).await?;
    let member = Arc::new(member);
    if let Some(members) = members {
        let names: Vec<&str> = members.values().map(|node| node.name.as_str()).collect();
        tracing::info!(members = names.join(", "), "forms the meta group");
        member.form(members).await?;
    }
    inner.member.send_replace(Some(member));
    *inner.directory.lock() = Some(directory);
    Ok(())
}

/// Asks every founder what it is; the own answer needs no network. It is that of an unused directory: where the
/// own id was never used, forming the group with it is safe.
async fn probe_all(inner: &Inner, incarnation: Incarnation) -> BTreeMap<String, Probe> {
    let own = (inner.my.name.clone(), Probe { incarnation, members: BTreeMap::new(), used: false });
    let others = inner.options.members.iter().filter(|founder| founder.name != inner.my.name);
    let answers = join_all(others.map(|founder| probe(inner, founder))).await;
    answers.into_iter().flatten().chain([own]).collect()
}

async fn probe(inner: &Inner, founder: &Founder) -> Option<(String, Probe)> {
    let mut client = inner.channels.client(&founder.address).ok()?;
    let reply = tokio::time::timeout(PROBE_TIMEOUT, client.probe(ProbeRequest {})).await.ok()?.ok()?;
    let ProbeReply { name, incarnation, members, used } = reply.into_inner();
    if name != founder.name {
        tracing::warn!(
            expected = founder.name,
            found = name,
            address = founder.address,
            "another node answers"
        );
        return None;
    }
    let members = members.into_iter().map(known_member).collect::<Option<_>>()?;
    Some((name, Probe { incarnation: parse_incarnation(&incarnation)?, members, used }))
}

fn known_member(member: MetaMember) -> Option<(MetaId, MetaNode)> {
    let incarnation = parse_incarnation(&member.incarnation)?;
    Some((MetaId(member.id), MetaNode { name: member.name, address: member.address, incarnation }))
}

/// Reads an incarnation from a message.
pub(super) fn parse_incarnation(bytes: &Bytes) -> Option<Incarnation> {
    Some(Incarnation(u128::from_be_bytes(bytes.as_ref().try_into().ok()?)))
}

async fn join(inner: &Inner, incarnation: Incarnation) -> Result<MetaId, String> {
    let request = JoinRequest {
        name: inner.my.name.clone(),
        address: inner.my.address.clone(),
        incarnation: Bytes::copy_from_slice(&incarnation.0.to_be_bytes()),
        cluster: inner.cluster_bytes(),
    };
    let ask = inner.ask_leader(inner.options.timing.propose, true, |mut client| {
        let request = request.clone();
        async move {
            Ok(match client.join(request).await?.into_inner().outcome {
                Some(join_reply::Outcome::Id(id)) => Reply::Done(MetaId(id)),
                Some(join_reply::Outcome::NotLeader(other)) => Reply::NotLeader(other.leader_address),
                Some(join_reply::Outcome::Unknown(why)) => Reply::Unknown(why),
                None => Reply::Unknown("the answer is empty".to_owned()),
            })
        }
    });
    ask.await.map_err(|error| error.to_string())
}

/// Tells the group when this member is at another address than it knows, and asks to be taken back when it has
/// heard of no leader for long: it may have been removed while its node was away.
async fn stay_in(inner: &Inner, incarnation: Incarnation) {
    let leaderless_max = inner.options.timing.election * LEADERLESS_ELECTIONS;
    let mut leaderless = Duration::ZERO;
    loop {
        tokio::time::sleep(ADDRESS_PAUSE).await;
        let Some(member) = inner.member() else { continue };
        let led = member.leads() || member.other_leader().is_some();
        leaderless = if led { Duration::ZERO } else { leaderless + ADDRESS_PAUSE };
        let members = member.members();
        let moved = members.get(&member.id).is_some_and(|(node, _)| node.address != inner.my.address);
        if (moved || leaderless >= leaderless_max)
            && let Err(reason) = join(inner, incarnation).await
        {
            tracing::debug!(%reason, "the group does not take this member in yet");
        }
    }
}

//! The fence of a storage node: what it knows of its shards, durably, and what a message is worth against it
//! (PROTOCOL E1 to E4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use oteld_cluster::ids::{ClusterId, Epoch, ReplicaId};
use oteld_cluster::shard_map::Entry;
use oteld_env::Tasks;
use oteld_proto::node::refusal::Reason;
use oteld_proto::node::{Envelope, Refusal, ShardEpoch};
use oteld_store::model::Shard;
use oteld_store::{FenceEntry, Store, StoreError};
use parking_lot::RwLock;
use tokio::sync::{RwLockReadGuard, watch};

/// What a message about a shard at some epoch is worth.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Ok,
    /// E2: the message is older than this entry.
    Stale(Entry),
    /// E3: the message is newer, and its entry did not come with it.
    NeedEntry,
    /// E4: the entry does not name this store.
    NotMember,
}

/// The entries of a store, and the gate that keeps an epoch change apart from appends in flight.
pub struct Fence {
    tasks: Tasks,
    cluster: ClusterId,
    me: ReplicaId,
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    entries: RwLock<BTreeMap<Shard, Entry>>,
    /// Counts changes of `entries`, for those who follow them.
    version: watch::Sender<u64>,
    /// Held for reading from the check of an epoch until its rows are published, for writing while an entry is
    /// raised: after a raise returns, nothing of an older epoch can be published any more (M2 relies on it).
    gate: tokio::sync::RwLock<()>,
}

impl Fence {
    /// # Errors
    /// When an entry that the store kept does not decode.
    pub fn open(
        tasks: Tasks,
        store: Store,
        cluster: ClusterId,
    ) -> Result<Self, oteld_cluster::shard_map::EntryError> {
        let mut entries = BTreeMap::new();
        for (shard, entry) in store.entries() {
            entries.insert(shard, Entry::decode(&entry.encoded)?);
        }
        let me = ReplicaId(store.replica().0);
        let inner = Inner {
            store,
            entries: RwLock::new(entries),
            version: watch::Sender::new(0),
            gate: tokio::sync::RwLock::default(),
        };
        Ok(Fence { tasks, cluster, me, inner: Arc::new(inner) })
    }

    pub fn me(&self) -> ReplicaId {
        self.me
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn entry(&self, shard: Shard) -> Option<Entry> {
        self.inner.entries.read().get(&shard).cloned()
    }

    /// All entries that are durable here, in order.
    pub fn entries(&self) -> BTreeMap<Shard, Entry> {
        self.inner.entries.read().clone()
    }

    /// Wakes when an entry became durable.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.version.subscribe()
    }

    /// Makes the entries the fence of their shards where they are newer; durable when this returns (E3).
    pub async fn learn(&self, entries: &BTreeMap<Shard, Entry>) -> Result<(), StoreError> {
        if self.inner.newer(entries).is_empty() {
            return Ok(());
        }
        // A task of its own: whoever asked may go away, and an entry must not be durable but not in force.
        let (inner, entries) = (self.inner.clone(), entries.clone());
        let raise = self.tasks.spawn(async move { inner.raise(&entries).await });
        raise.await.unwrap_or(Err(StoreError::Closed))
    }

    /// E1, then E3 for all entries that came along.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub async fn admit(&self, envelope: &Envelope) -> Result<(), Refusal> {
        if let Some(lost) = self.inner.store.lost() {
            return Err(refuse(Reason::Lost, lost));
        }
        if envelope.cluster[..] != self.cluster.0.to_be_bytes() {
            return Err(refuse(Reason::WrongCluster, format!("this node is of cluster {}", self.cluster)));
        }
        if envelope.to_replica[..] != self.me.0.to_be_bytes() {
            return Err(refuse(Reason::WrongReplica, format!("the store here is {}", self.me)));
        }
        let mut entries = BTreeMap::new();
        for shard in envelope.shards.iter().filter(|shard| !shard.entry.is_empty()) {
            let entry = Entry::decode(&shard.entry)
                .map_err(|error| refuse(Reason::Malformed, format!("shard {}: {error}", shard.shard)))?;
            entries.insert(Shard(shard.shard), entry);
        }
        let learnt = self.learn(&entries).await;
        learnt.map_err(|error| refuse(Reason::ReadOnly, error.to_string()))?;
        Ok(())
    }

    /// Keeps epochs from changing until the guard is dropped.
    pub async fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.inner.gate.read().await
    }

    /// E2 and E4 for a message about `shard` at `epoch`.
    pub fn check(&self, shard: Shard, epoch: Epoch) -> Verdict {
        let entries = self.inner.entries.read();
        let Some(own) = entries.get(&shard) else { return Verdict::NeedEntry };
        match epoch.cmp(&own.epoch) {
            std::cmp::Ordering::Less => Verdict::Stale(own.clone()),
            std::cmp::Ordering::Greater => Verdict::NeedEntry,
            std::cmp::Ordering::Equal if !own.has(self.me) => Verdict::NotMember,
            std::cmp::Ordering::Equal => Verdict::Ok,
        }
    }

    /// Admits a message and demands that every shard in it is as this store knows it; a sender that is a replica
    /// must be a member too.
    ///
    /// # Errors
    /// The refusal to answer with; it carries what the sender lacks.
    pub async fn admit_all(&self, envelope: &Envelope) -> Result<Vec<Shard>, Refusal> {
        self.admit(envelope).await?;
        let sender = replica_of(&envelope.from_replica);
        let (mut shards, mut stale, mut need, mut strangers) = (vec![], vec![], vec![], vec![]);
        for message in &envelope.shards {
            let shard = Shard(message.shard);
            match self.check(shard, Epoch(message.epoch)) {
                Verdict::Ok if sender.is_some_and(|s| !self.entry(shard).is_some_and(|e| e.has(s))) => {
                    strangers.push(message.shard);
                }
                Verdict::Ok => shards.push(shard),
                Verdict::Stale(entry) => stale.push(carry(shard, &entry)),
                Verdict::NeedEntry => need.push(ShardEpoch { shard: shard.0, ..ShardEpoch::default() }),
                Verdict::NotMember => strangers.push(message.shard),
            }
        }
        if !stale.is_empty() {
            let message = "the sender's shard map is older".to_owned();
            return Err(Refusal { reason: Reason::Stale.into(), message, shards: stale });
        }
        if !need.is_empty() {
            let message = "entries are newer than those known here".to_owned();
            return Err(Refusal { reason: Reason::NeedEntry.into(), message, shards: need });
        }
        if !strangers.is_empty() {
            return Err(refuse(Reason::NotMember, format!("not a replica of shards {strangers:?}")));
        }
        Ok(shards)
    }
}

impl Inner {
    async fn raise(&self, entries: &BTreeMap<Shard, Entry>) -> Result<(), StoreError> {
        let _nothing_in_flight = self.gate.write().await;
        let newer = self.newer(entries);
        let fence = |entry: &Entry| FenceEntry { epoch: entry.epoch.0, encoded: Bytes::from(entry.encode()) };
        let raised = newer.iter().map(|(shard, entry)| (*shard, fence(entry))).collect();
        if newer.is_empty() || !oteld_env::mutant("volatile-fence") {
            self.store.raise_entries(raised).await?;
        }
        self.entries.write().extend(newer);
        self.version.send_modify(|version| *version += 1);
        Ok(())
    }

    fn newer(&self, entries: &BTreeMap<Shard, Entry>) -> BTreeMap<Shard, Entry> {
        let own = self.entries.read();
        let is_newer =
            |shard: &Shard, entry: &Entry| own.get(shard).is_none_or(|own| own.epoch < entry.epoch);
        let newer = entries.iter().filter(|(shard, entry)| is_newer(shard, entry));
        newer.map(|(shard, entry)| (*shard, entry.clone())).collect()
    }
}

/// The envelope of a message; a front has no replica id.
pub fn envelope(
    cluster: ClusterId,
    from: Option<ReplicaId>,
    to: ReplicaId,
    shards: Vec<ShardEpoch>,
) -> Envelope {
    Envelope {
        cluster: Bytes::copy_from_slice(&cluster.0.to_be_bytes()),
        from_replica: from.map(replica_bytes).unwrap_or_default(),
        to_replica: replica_bytes(to),
        shards,
    }
}

/// What a message says of its shards: their epochs, and the whole entries of those that its receiver asked for.
pub fn shard_epochs<'a>(
    entries: impl IntoIterator<Item = (&'a Shard, &'a Entry)>,
    carried: &BTreeSet<Shard>,
) -> Vec<ShardEpoch> {
    let shard_epoch = |(shard, entry): (&Shard, &Entry)| match carried.contains(shard) {
        true => carry(*shard, entry),
        false => mention(*shard, entry),
    };
    entries.into_iter().map(shard_epoch).collect()
}

/// Shards whose entries the refusing replica wants with the next message.
pub fn needed(refusal: &Refusal) -> BTreeSet<Shard> {
    match refusal.reason() {
        Reason::NeedEntry => refusal.shards.iter().map(|shard| Shard(shard.shard)).collect(),
        _ => BTreeSet::new(),
    }
}

/// An entry as messages carry it.
pub fn carry(shard: Shard, entry: &Entry) -> ShardEpoch {
    ShardEpoch { shard: shard.0, epoch: entry.epoch.0, entry: Bytes::from(entry.encode()) }
}

/// An epoch as messages carry it when the receiver should have the entry.
pub fn mention(shard: Shard, entry: &Entry) -> ShardEpoch {
    ShardEpoch { shard: shard.0, epoch: entry.epoch.0, entry: Bytes::new() }
}

/// A refusal without shards.
pub fn refuse(reason: Reason, message: String) -> Refusal {
    Refusal { reason: reason.into(), message, shards: Vec::new() }
}

/// The replica that a message names; `None` where a front speaks.
pub fn replica_of(bytes: &Bytes) -> Option<ReplicaId> {
    Some(ReplicaId(u128::from_be_bytes(bytes[..].try_into().ok()?)))
}

/// The bytes that name a replica in messages.
pub fn replica_bytes(replica: ReplicaId) -> Bytes {
    Bytes::copy_from_slice(&replica.0.to_be_bytes())
}

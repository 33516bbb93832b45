//! Request ids: which parts were applied, and which are on their way to the WAL (PROTOCOL, A1 to A3).
//!
//! Ids live in the (signal, window) of their part's first row, and are durable through the WAL, then through the
//! footers of that window's segments. They are kept by request and body: replicas may each have accepted another
//! body under a key that a client used twice, and a pull brings all of them together. A window's ids are loaded when a part for it arrives and forgotten when
//! memory is needed; losing them loses no exactness of what is stored, since equal rows are one row.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::watch;

use crate::model::{RequestId, Shard, Signal, Window};
use crate::segment::AppliedId;

/// What a part is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartId {
    pub signal: Signal,
    /// Of the part's first row.
    pub window: Window,
    pub request: RequestId,
    pub digest: u64,
    pub shard: Shard,
}

/// Who brings a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A front: another body under a known request id is a conflict (A2).
    Client,
    /// A peer that accepted it: it is stored beside other bodies, and items with equal keys are one (PROTOCOL,
    /// failure 14).
    Peer,
}

/// What is to be done with a part.
#[derive(Debug)]
pub(crate) enum Check {
    /// Nobody has it: reserve it in the same critical section.
    New,
    /// Published and durable.
    Applied,
    /// The request id is known with another body, and this one comes from a client.
    Conflict,
    /// Another append has it on its way. Ask again when that ended either way.
    Wait(watch::Receiver<bool>),
    /// The window's ids have to be loaded from its segments first.
    NotLoaded,
}

/// Applied and reserved ids.
#[derive(Debug, Default)]
pub(crate) struct IdIndex {
    windows: BTreeMap<(Signal, Window), IdWindow>,
    reserved: HashMap<(Signal, RequestId), Vec<Reserved>>,
    applied: usize,
    clock: u64,
}

#[derive(Debug, Default)]
struct IdWindow {
    /// By request and digest.
    ids: BTreeMap<(RequestId, u64), ShardSet>,
    /// Whether the ids of the window's segments are in it.
    loaded: bool,
    last_used: u64,
}

/// A part that is on its way; `true` is sent when it is published.
#[derive(Debug)]
struct Reserved {
    digest: u64,
    shard: Shard,
    outcome: watch::Receiver<bool>,
}

/// A set of shards: a mask for the first 64, a tree for those of larger clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ShardSet {
    mask: u64,
    more: BTreeSet<Shard>,
}

impl ShardSet {
    fn insert(&mut self, shard: Shard) {
        if shard.0 < 64 {
            self.mask |= 1 << shard.0;
        } else {
            self.more.insert(shard);
        }
    }

    fn remove(&mut self, shard: Shard) {
        if shard.0 < 64 {
            self.mask &= !(1 << shard.0);
        } else {
            self.more.remove(&shard);
        }
    }

    fn is_empty(&self) -> bool {
        self.mask == 0 && self.more.is_empty()
    }

    fn contains(&self, shard: Shard) -> bool {
        if shard.0 < 64 { self.mask & (1 << shard.0) != 0 } else { self.more.contains(&shard) }
    }
}

impl IdIndex {
    /// What is to be done with a part.
    pub(crate) fn check(&mut self, part: &PartId, origin: Origin) -> Check {
        self.clock += 1;
        let Some(window) = self.windows.get_mut(&(part.signal, part.window)).filter(|window| window.loaded)
        else {
            return Check::NotLoaded;
        };
        window.last_used = self.clock;
        if window.has(part) {
            return Check::Applied;
        }
        let excludes_others = origin == Origin::Client;
        if excludes_others && window.has_other_body(part) {
            return Check::Conflict;
        }
        let reserved = self.reserved.get(&(part.signal, part.request)).map_or(&[][..], Vec::as_slice);
        let in_the_way = reserved.iter().find(|other| {
            if other.digest == part.digest { other.shard == part.shard } else { excludes_others }
        });
        in_the_way.map_or(Check::New, |other| Check::Wait(other.outcome.clone()))
    }

    /// Marks a part as on its way, after [`Check::New`].
    pub(crate) fn reserve(&mut self, part: &PartId, outcome: watch::Receiver<bool>) {
        let reserved = self.reserved.entry((part.signal, part.request)).or_default();
        assert!(!reserved.iter().any(|other| other.is(part)), "check() makes a repeat wait");
        reserved.push(Reserved { digest: part.digest, shard: part.shard, outcome });
    }

    /// Ends a reservation, whether or not the part was published.
    pub(crate) fn release(&mut self, part: &PartId) {
        let key = (part.signal, part.request);
        if let Some(reserved) = self.reserved.get_mut(&key) {
            reserved.retain(|other| !other.is(part));
            if reserved.is_empty() {
                self.reserved.remove(&key);
            }
        }
    }

    /// Records a part that is durable and being published.
    pub(crate) fn apply(&mut self, part: &PartId) {
        let window = self.windows.entry((part.signal, part.window)).or_default();
        self.applied += window.apply(part.request, part.digest, &[part.shard]);
    }

    /// Whether the part is published and durable; `None` where the window's ids have to be loaded first.
    pub(crate) fn has(&mut self, part: &PartId) -> Option<bool> {
        match self.check(part, Origin::Peer) {
            Check::NotLoaded => None,
            Check::Applied => Some(true),
            Check::New | Check::Conflict | Check::Wait(_) => Some(false),
        }
    }

    /// Whether the ids of a window's segments are in memory.
    pub(crate) fn is_loaded(&self, signal: Signal, window: Window) -> bool {
        self.windows.get(&(signal, window)).is_some_and(|window| window.loaded)
    }

    /// Adds what the footers of a window's segments hold.
    pub(crate) fn load(&mut self, signal: Signal, window: Window, ids: &[AppliedId]) {
        let window = self.windows.entry((signal, window)).or_default();
        for id in ids {
            self.applied += window.apply(id.request, id.digest, &id.shards);
        }
        window.loaded = true;
        window.last_used = self.clock;
    }

    /// The windows whose segments' ids are in memory.
    pub(crate) fn loaded_windows(&self) -> BTreeSet<(Signal, Window)> {
        self.windows.iter().filter(|(_, window)| window.loaded).map(|(key, _)| *key).collect()
    }

    /// Adds the ids of a new segment to a window that is loaded; one that is not reads them when it is.
    pub(crate) fn extend_loaded(&mut self, signal: Signal, window: Window, ids: &[AppliedId]) {
        let Some(window) = self.windows.get_mut(&(signal, window)).filter(|window| window.loaded) else {
            return;
        };
        for id in ids {
            self.applied += window.apply(id.request, id.digest, &id.shards);
        }
    }

    /// How many ids are in memory.
    pub(crate) fn len(&self) -> usize {
        self.applied
    }

    /// Forgets the windows that were not used for longest until at most `ids_max` ids are left. `keep` names
    /// windows with ids that no segment has yet.
    pub(crate) fn evict(&mut self, ids_max: usize, keep: &BTreeSet<(Signal, Window)>) {
        let mut candidates: Vec<_> = self
            .windows
            .iter()
            .filter(|(key, _)| !keep.contains(key))
            .map(|(key, window)| (window.last_used, *key))
            .collect();
        candidates.sort();
        let windows_max = IdIndex::WINDOWS_MAX;
        for (_, key) in candidates {
            if self.applied <= ids_max && self.windows.len() <= windows_max {
                break;
            }
            self.forget(key);
        }
    }

    /// Forgets a window that retention deleted, or that memory is needed for.
    pub(crate) fn forget(&mut self, key: (Signal, Window)) {
        if let Some(window) = self.windows.remove(&key) {
            self.applied -= window.ids.len();
        }
    }

    /// Forgets the parts of shards that were left.
    pub(crate) fn forget_shards(&mut self, shards: &BTreeSet<Shard>) {
        for window in self.windows.values_mut() {
            let before = window.ids.len();
            window.ids.retain(|_, held| {
                shards.iter().for_each(|shard| held.remove(*shard));
                !held.is_empty()
            });
            self.applied -= before - window.ids.len();
        }
    }

    /// Loaded windows, however few ids they have.
    const WINDOWS_MAX: usize = 4096;
}

impl Reserved {
    fn is(&self, part: &PartId) -> bool {
        (self.digest, self.shard) == (part.digest, part.shard)
    }
}

impl IdWindow {
    fn has(&self, part: &PartId) -> bool {
        self.ids.get(&(part.request, part.digest)).is_some_and(|shards| shards.contains(part.shard))
    }

    fn has_other_body(&self, part: &PartId) -> bool {
        let bodies = self.ids.range((part.request, 0)..=(part.request, u64::MAX));
        bodies.into_iter().any(|((_, digest), _)| *digest != part.digest)
    }

    /// Adds shards of a request; says how many ids are new.
    fn apply(&mut self, request: RequestId, digest: u64, shards: &[Shard]) -> usize {
        let before = self.ids.len();
        let held = self.ids.entry((request, digest)).or_default();
        shards.iter().for_each(|shard| held.insert(*shard));
        self.ids.len() - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(request: u128, digest: u64, shard: u32) -> PartId {
        PartId {
            signal: Signal::Logs,
            window: Window(3),
            request: RequestId(request),
            digest,
            shard: Shard(shard),
        }
    }

    fn loaded() -> IdIndex {
        let mut ids = IdIndex::default();
        ids.load(Signal::Logs, Window(3), &[]);
        ids
    }

    #[test]
    fn an_applied_part_is_a_duplicate_and_another_body_a_conflict() {
        let mut ids = loaded();
        assert!(matches!(ids.check(&part(1, 7, 0), Origin::Client), Check::New));
        ids.apply(&part(1, 7, 0));
        assert!(matches!(ids.check(&part(1, 7, 0), Origin::Client), Check::Applied));
        assert!(
            matches!(ids.check(&part(1, 7, 99), Origin::Client), Check::New),
            "another shard of the same request"
        );
        assert!(matches!(ids.check(&part(1, 8, 0), Origin::Client), Check::Conflict));
        assert!(
            matches!(ids.check(&part(1, 8, 1), Origin::Client), Check::Conflict),
            "the digest is the request's"
        );
    }

    #[test]
    fn a_pulled_part_is_kept_beside_another_body_and_both_are_duplicates_then() {
        let mut ids = loaded();
        ids.apply(&part(1, 7, 0));
        assert_eq!(ids.has(&part(1, 8, 0)), Some(false));
        assert!(matches!(ids.check(&part(1, 8, 0), Origin::Peer), Check::New));
        ids.apply(&part(1, 8, 0));
        for digest in [7, 8] {
            assert_eq!(ids.has(&part(1, digest, 0)), Some(true));
            assert!(matches!(ids.check(&part(1, digest, 0), Origin::Peer), Check::Applied));
            assert!(matches!(ids.check(&part(1, digest, 0), Origin::Client), Check::Applied));
            assert!(matches!(ids.check(&part(1, digest, 1), Origin::Client), Check::Conflict));
        }
        assert!(matches!(ids.check(&part(1, 9, 0), Origin::Client), Check::Conflict));
        assert_eq!(ids.len(), 2);
    }

    #[test]
    fn a_pulled_part_waits_for_no_other_body_and_a_client_waits_for_any() {
        let mut ids = loaded();
        let (_sender, outcome) = watch::channel(false);
        ids.reserve(&part(1, 7, 0), outcome.clone());
        assert!(matches!(ids.check(&part(1, 7, 0), Origin::Peer), Check::Wait(_)));
        assert!(matches!(ids.check(&part(1, 8, 0), Origin::Peer), Check::New));
        ids.reserve(&part(1, 8, 0), outcome);
        ids.release(&part(1, 7, 0));
        assert!(matches!(ids.check(&part(1, 7, 0), Origin::Client), Check::Wait(_)));
        ids.release(&part(1, 8, 0));
        assert!(matches!(ids.check(&part(1, 7, 0), Origin::Client), Check::New));
    }

    #[test]
    fn a_reserved_part_makes_others_wait_until_it_is_released() {
        let mut ids = loaded();
        let (_sender, outcome) = watch::channel(false);
        ids.reserve(&part(1, 7, 0), outcome);
        assert!(matches!(ids.check(&part(1, 7, 0), Origin::Client), Check::Wait(_)));
        assert!(
            matches!(ids.check(&part(1, 8, 5), Origin::Client), Check::Wait(_)),
            "another body waits for the outcome"
        );
        assert!(matches!(ids.check(&part(1, 7, 1), Origin::Client), Check::New));
        assert_eq!(ids.has(&part(1, 7, 0)), Some(false), "reserved is not held");
        ids.release(&part(1, 7, 0));
        assert!(matches!(ids.check(&part(1, 7, 0), Origin::Client), Check::New));
    }

    #[test]
    fn parts_of_a_shard_that_was_left_are_new_again() {
        let mut ids = loaded();
        for (request, shard) in [(1, 3), (1, 70), (2, 3)] {
            ids.apply(&part(request, 7, shard));
        }
        ids.forget_shards(&BTreeSet::from([Shard(3)]));
        assert_eq!(ids.has(&part(1, 7, 3)), Some(false));
        assert_eq!(ids.has(&part(1, 7, 70)), Some(true));
        assert_eq!(ids.len(), 1);
    }

    #[test]
    fn a_window_is_asked_for_before_it_answers_and_forgotten_only_when_it_is_flushed() {
        let mut ids = IdIndex::default();
        assert!(matches!(ids.check(&part(1, 7, 0), Origin::Client), Check::NotLoaded));
        ids.apply(&part(1, 7, 0));
        assert!(
            matches!(ids.check(&part(1, 7, 0), Origin::Client), Check::NotLoaded),
            "replayed ids alone are not enough"
        );
        let stored = AppliedId { request: RequestId(2), digest: 9, shards: vec![Shard(0), Shard(70)] };
        ids.load(Signal::Logs, Window(3), &[stored]);
        assert_eq!(ids.len(), 2);
        assert!(matches!(ids.check(&part(1, 7, 0), Origin::Client), Check::Applied));
        assert!(matches!(ids.check(&part(2, 9, 70), Origin::Client), Check::Applied));
        ids.evict(0, &BTreeSet::from([(Signal::Logs, Window(3))]));
        assert_eq!(ids.len(), 2);
        ids.evict(0, &BTreeSet::new());
        assert_eq!(ids.len(), 0);
        assert!(matches!(ids.check(&part(1, 7, 0), Origin::Client), Check::NotLoaded));
    }
}

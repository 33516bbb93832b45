//! Reading the log back at start: what is whole, what is a torn tail, and what is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oteld_env::{Disk, DiskFile};

use super::WalEnd;
use super::file::{self, Group};
use super::group::{FileHeader, GroupHeader, HEADER_BYTES};
use super::writer::WalFile;
use crate::error::OpenError;
use crate::position::{Position, ReplicaId};

/// What the manifest says about the log.
#[derive(Clone, Debug)]
pub(crate) struct WalFacts {
    pub replica: ReplicaId,
    /// Files from this one on hold what no segment holds.
    pub floor: u64,
    /// Synced up to here when the manifest was written.
    pub end: WalEnd,
    /// Nonces of the boots that served, by counter.
    pub boots: BTreeMap<u64, u64>,
}

/// Told what the log holds, in its order.
pub(crate) trait Visit {
    /// A file starts. `flushed`: segments hold all of it, so that only its positions matter.
    fn file(&mut self, file: WalFile, flushed: bool);
    /// A group of that file. An error is a reason why it cannot be used although its checksum is right.
    fn group(&mut self, group: Group) -> Result<(), String>;
    /// What came so far is not connected with what follows: positions start anew.
    fn forget(&mut self);
}

/// How the log ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WalReplay {
    /// Where the next file has to say that this one ended.
    pub end: WalEnd,
    /// Last position of each boot that the log knows of.
    pub ends: BTreeMap<u64, u64>,
    /// Bytes of a torn group that were cut off.
    pub torn_bytes: u64,
}

struct Found {
    seq: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    header: FileHeader,
}

/// Reads all WAL files in `dir`, cuts a torn tail off and makes the rest durable.
///
/// # Errors
/// [`OpenError::Loss`] where synced data is missing, [`OpenError::Io`] where the disk fails.
pub(crate) fn replay(
    disk: &dyn Disk,
    dir: &Path,
    facts: &WalFacts,
    visit: &mut dyn Visit,
) -> Result<WalReplay, OpenError> {
    let files = find_files(disk, dir, facts)?;
    let mut result = WalReplay { end: facts.end, ..WalReplay::default() };
    for (index, found) in files.iter().enumerate() {
        let flushed = found.seq < facts.floor;
        let next = files.get(index + 1).map(|next| next.header.previous);
        if next.is_some_and(|previous| previous.seq != found.seq) {
            return Err(loss_at(found, "the next file does not continue it"));
        }
        let start = Position { boot: found.header.boot.counter, n: found.header.start_n };
        let (seq, file) = (found.seq, found.file.clone());
        visit.file(WalFile { seq, file, start, definitions: Arc::default() }, flushed);
        let previous_group = found.header.previous;
        let limit = next.map(|previous| previous.offset);
        let read = read_groups(found, previous_group, limit, visit)?;
        result.ends.insert(start.boot, read.last_n);
        result.end = WalEnd { seq: found.seq, offset: read.end };
        match limit {
            Some(limit) if read.end < limit && flushed => {
                tracing::warn!(path = %found.path.display(), "a flushed WAL file is damaged; peers cannot tail it");
                visit.forget();
            }
            Some(limit) if read.end < limit => {
                return Err(loss_at(
                    found,
                    &format!("it is damaged at {} and was synced to {limit}", read.end),
                ));
            }
            Some(_) if !flushed => refuse_group_at(found, &read)?,
            Some(_) => {}
            None => result.torn_bytes = finish_last(disk, found, read.end, facts.end)?,
        }
    }
    Ok(result)
}

struct Read {
    end: u64,
    last_n: u64,
    /// What a group at `end` would name as its predecessor.
    previous: WalEnd,
}

/// Visits the groups of a file until one is not whole or `limit` is reached.
fn read_groups(
    found: &Found,
    previous: WalEnd,
    limit: Option<u64>,
    visit: &mut dyn Visit,
) -> Result<Read, OpenError> {
    let mut read = Read { end: HEADER_BYTES as u64, last_n: found.header.start_n, previous };
    while limit.is_none_or(|limit| read.end < limit) {
        let group = file::read_group(&*found.file, &found.header, read.end, read.previous)
            .map_err(OpenError::io(format!("cannot read {}", found.path.display())))?;
        let Some(group) = group else { break };
        let header = group.header;
        if header.first_n != read.last_n + 1 {
            return Err(loss_at(
                found,
                &format!("positions jump from {} to {}", read.last_n, header.first_n),
            ));
        }
        // What its checksum vouches for is what was written.
        let unreadable = |reason| OpenError::Unreadable { path: found.path.display().to_string(), reason };
        visit.group(group).map_err(unreadable)?;
        read.last_n += u64::from(header.positions);
        read.end = header.end().expect("read_group checked the end");
        read.previous = WalEnd { seq: found.seq, offset: read.end };
    }
    Ok(read)
}

/// A whole group where the next file says that this one ended: it may have been acknowledged, and positions of
/// the next file would be its own. What a full disk cut short there is not whole.
fn refuse_group_at(found: &Found, read: &Read) -> Result<(), OpenError> {
    let group = file::read_group(&*found.file, &found.header, read.end, read.previous)
        .map_err(OpenError::io(format!("cannot read {}", found.path.display())))?;
    match group {
        Some(_) => Err(loss_at(
            found,
            &format!("a group at {} was written after the next file was started", read.end),
        )),
        None => Ok(()),
    }
}

/// Decides whether what lies behind the last whole group is a torn tail, and cuts it.
fn finish_last(disk: &dyn Disk, found: &Found, end: u64, known: WalEnd) -> Result<u64, OpenError> {
    let io = || OpenError::io(format!("cannot finish {}", found.path.display()));
    if known.seq == found.seq && known.offset > end {
        return Err(loss_at(
            found,
            &format!("it is damaged at {end} and the manifest knows that it was synced to {}", known.offset),
        ));
    }
    // A batch in the torn group may spell a header; it knows neither the nonce nor what came before.
    let follows = |header: &GroupHeader| {
        header.boot == found.header.boot && header.previous >= (WalEnd { seq: found.seq, offset: end })
    };
    let behind = file::find_group_behind(&*found.file, found.seq, end, follows).map_err(io())?;
    if let Some(behind) = behind {
        return Err(loss_at(
            found,
            &format!(
                "it is damaged at {end} and a group at {} was written after that was synced",
                behind.offset
            ),
        ));
    }
    let torn = torn_bytes(&*found.file, end).map_err(io())?;
    found.file.set_len(end).map_err(io())?;
    // What was read counts from here on, and may never have been synced.
    let synced = if known.seq == found.seq { known.offset } else { 0 };
    rewrite(&*found.file, synced, end).map_err(io())?;
    found.file.sync_data().map_err(io())?;
    let dir = found.path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(dir).map_err(io())?;
    Ok(torn)
}

/// Writes bytes over themselves: after a failed sync the page cache has them as if they were on disk, and the next
/// sync would pass them over.
fn rewrite(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    const CHUNK_BYTES: u64 = 1 << 20;
    let mut chunk = Vec::new();
    for at in (from..to).step_by(CHUNK_BYTES as usize) {
        chunk.resize(CHUNK_BYTES.min(to - at) as usize, 0);
        file.read_exact_at(at, &mut chunk)?;
        file.write_all_at(at, &chunk)?;
    }
    Ok(())
}

/// Length from `end` to the last byte that is not zero.
fn torn_bytes(file: &dyn DiskFile, end: u64) -> std::io::Result<u64> {
    const CHUNK_BYTES: u64 = 1 << 20;
    let len = file.len()?;
    let (mut at, mut torn) = (end, 0);
    let mut chunk = Vec::new();
    while at < len {
        chunk.resize(CHUNK_BYTES.min(len - at) as usize, 0);
        file.read_exact_at(at, &mut chunk)?;
        if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
            torn = at + last as u64 + 1 - end;
        }
        at += chunk.len() as u64;
    }
    Ok(torn)
}

/// The files to read, oldest first: removes a newest file that was never used, and old ones that are not
/// connected with the rest.
fn find_files(disk: &dyn Disk, dir: &Path, facts: &WalFacts) -> Result<Vec<Found>, OpenError> {
    let listed = disk.list(dir).map_err(OpenError::io(format!("cannot list {}", dir.display())))?;
    let mut paths: Vec<_> =
        listed.into_iter().filter_map(|path| Some((file::seq_of(&path)?, path))).collect();
    paths.sort();
    let newest = paths.last().map(|(seq, _)| *seq);
    let mut files: Vec<Found> = Vec::new();
    for (seq, path) in paths {
        let is_newest = newest == Some(seq);
        if let Some(found) = open_file(disk, seq, path, is_newest, facts)? {
            files.push(found);
        }
    }
    let first_needed = facts.floor.max(1);
    let last_needed = facts.end.seq;
    let held: Vec<u64> = files.iter().map(|found| found.seq).collect();
    if let Some(missing) = (first_needed..=last_needed).find(|seq| !held.contains(seq)) {
        return Err(OpenError::loss(format!("WAL file {missing} is not in {}", dir.display())));
    }
    let connected = files.windows(2).rposition(|pair| pair[0].seq + 1 != pair[1].seq).map_or(0, |at| at + 1);
    for found in files.drain(..connected) {
        if found.seq >= first_needed {
            return Err(OpenError::loss(format!("a WAL file after {} is missing", found.path.display())));
        }
        disk.remove_file(&found.path)
            .map_err(OpenError::io(format!("cannot remove {}", found.path.display())))?;
    }
    Ok(files)
}

fn open_file(
    disk: &dyn Disk,
    seq: u64,
    path: PathBuf,
    is_newest: bool,
    facts: &WalFacts,
) -> Result<Option<Found>, OpenError> {
    let io = || OpenError::io(format!("cannot read {}", path.display()));
    let file: Arc<dyn DiskFile> = disk.open(&path, false).map_err(io())?.into();
    let header = file::read_header(&*file, seq).map_err(io())?;
    let known_boot = header.is_some_and(|header| {
        facts.boots.get(&header.boot.counter) == Some(&header.boot.nonce) && header.replica == facts.replica
    });
    if let (Some(header), true) = (header, known_boot) {
        return Ok(Some(Found { seq, path, file, header }));
    }
    // Even a batch that spells a header is in a file only that was used.
    let used = file::find_group_behind(&*file, seq, 0, |_| true).map_err(io())?.is_some();
    if used || seq <= facts.end.seq && seq >= facts.floor || !is_newest && seq >= facts.floor {
        let what = if header.is_some() {
            "belongs to a boot that the manifest does not know"
        } else {
            "has no header"
        };
        return Err(OpenError::loss(format!("WAL file {} {what}", path.display())));
    }
    disk.remove_file(&path).map_err(OpenError::io(format!("cannot remove {}", path.display())))?;
    Ok(None)
}

fn loss_at(found: &Found, what: &str) -> OpenError {
    OpenError::loss(format!("{}: {what}", found.path.display()))
}

#[cfg(test)]
mod tests;

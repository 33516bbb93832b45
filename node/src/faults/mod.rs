//! `oteld run --faults FILE`: a process that a fault test can hurt, through the doors of `oteld_env` that it hurts
//! simulated nodes by. [`oteld_env::faults`] has the format of FILE and what the control socket understands.

mod control;

use std::path::Path;
use std::sync::Arc;

use oteld_env::disk::Disk;
use oteld_env::faults::FaultsFile;
use oteld_env::net::Detours;
use oteld_env::{Clock, Env, FaultyDisk, Net, RealDisk};

/// The doors of this process that faults go through. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Faults {
    file: Arc<FaultsFile>,
    clock: Clock,
    disk: FaultyDisk,
    detours: &'static Detours,
}

impl Faults {
    /// Reads what `--faults` names.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    pub fn from_file(path: &Path) -> Result<Faults, String> {
        let bytes = RealDisk::new().read(path);
        let bytes =
            bytes.map_err(|error| format!("cannot read the faults of {}: {error}", path.display()))?;
        let file = serde_json::from_slice(&bytes)
            .map_err(|error| format!("{} does not say which faults there are: {error}", path.display()))?;
        Ok(Faults::new(file))
    }

    pub fn new(file: FaultsFile) -> Faults {
        Faults {
            clock: Clock::real(),
            disk: FaultyDisk::new(file.seed, file.power_loss),
            detours: Detours::leak(file.dial.clone()),
            file: Arc::new(file),
        }
    }

    /// The machine, seen through the faults.
    pub fn env(&self) -> Env {
        Env {
            clock: self.clock.clone(),
            disk: Arc::new(self.disk.clone()),
            net: Net::Detoured(self.detours),
            ..Env::real()
        }
    }

    /// Says in the log that faults are on, and takes commands until the process ends.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn listen(&self) -> Result<(), String> {
        tracing::warn!(
            power_loss = self.file.power_loss,
            "faults are on (--faults): a test may hurt this process, and it must not hold data that matters"
        );
        match &self.file.control {
            Some(path) => control::listen(self, path).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use oteld_env::faults::{FaultCommand, FaultReply};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixStream;

    use super::*;

    fn file(text: &str) -> Result<Faults, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("faults.json");
        RealDisk::new().replace(&path, text.as_bytes()).unwrap();
        Faults::from_file(&path)
    }

    #[test]
    fn a_file_with_an_unknown_key_is_refused_by_name() {
        let faults = file(r#"{"seed":7,"power_loss":true,"dial":{"127.0.0.1:1":"127.0.0.1:2"}}"#).unwrap();
        assert!(faults.file.power_loss && faults.file.seed == 7 && faults.file.control.is_none());
        let error = file("{\"seed\":7,\n\"powerloss\":true}").unwrap_err();
        assert!(error.contains("powerloss") && error.contains("line 2"), "{error}");
        assert!(Faults::from_file(Path::new("/nowhere/faults")).unwrap_err().contains("/nowhere/faults"));
    }

    #[test]
    fn commands_are_read_as_they_are_documented() {
        let read = |line: &str| serde_json::from_str::<FaultCommand>(line);
        for line in [
            r#"{"do":"clock","offset_ms":-30000}"#,
            r#"{"do":"disk","fault":"eio","on":"sync"}"#,
            r#"{"do":"disk","fault":"slow","on":"any_change","after":3,"count":null,"ms":50}"#,
            r#"{"do":"capacity","bytes":null}"#,
            r#"{"do":"dial","map":{"127.0.0.1:7001":"127.0.0.1:9001"}}"#,
            r#"{"do":"crash_at","point":"flush.before_commit","nth":1}"#,
            r#"{"do":"heal"}"#,
            r#"{"do":"stats"}"#,
        ] {
            let command = read(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let written = serde_json::to_string(&command).unwrap();
            assert_eq!(read(&written).unwrap(), command);
        }
        for line in [
            r#"{"do":"explode"}"#,
            r#"{"do":"clock","offset":1}"#,
            r#"{"do":"disk","fault":"eio","on":"sync","n":1}"#,
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[tokio::test]
    async fn a_test_gives_orders_through_the_socket_and_hears_what_came_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("control.sock");
        let text = format!(r#"{{"control":{control:?},"power_loss":true}}"#);
        let faults = file(&text).unwrap();
        // As a process that was killed leaves it.
        RealDisk::new().open(&control, true).unwrap();
        faults.listen().await.unwrap();
        let env = faults.env();
        let stream = UnixStream::connect(&control).await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut say = async |line: &str| -> FaultReply {
            write.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap()
        };
        assert_eq!(say(r#"{"do":"clock","offset_ms":-3600000}"#).await, FaultReply::ok());
        let unknown = say(r#"{"do":"explode"}"#).await;
        assert!(!unknown.ok && unknown.error.unwrap().contains("explode"));
        let nowhere = say(r#"{"do":"crash_at","point":"nowhere"}"#).await;
        assert!(nowhere.error.unwrap().contains("wal.group_synced"));
        assert!(say(r#"{"do":"disk","fault":"eio","on":"sync"}"#).await.ok);
        let opened = env.disk.open(&dir.path().join("new"), true).unwrap();
        opened.write_all_at(0, b"four").unwrap();
        assert!(opened.sync_data().is_err(), "the fault is armed");
        opened.write_all_at(4, b"more").unwrap();
        env.disk.reach("wal.group_synced");
        let stats = say(r#"{"do":"stats"}"#).await.stats.unwrap();
        assert_eq!((stats.unsynced_bytes, stats.unsynced_files), (4, 1));
        assert_eq!((stats.struck.eio, stats.clock_offset_ms), (1, -3_600_000));
        assert_eq!(stats.points, [("wal.group_synced".to_owned(), 1)].into());
        assert!(say(r#"{"do":"heal"}"#).await.ok);
        assert_eq!(env.clock.error_nanos(), 0);
    }
}

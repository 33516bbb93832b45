//! Tenants and named settings.

use super::{ClusterState, Limits, retention};
use crate::command::{Applied, Rejected};
use crate::ids::Signal;
use crate::retention::parse_retention;

/// Longest name or value of a setting, tenant name or token hash, in bytes.
pub(super) const TEXT_LENGTH_MAX: usize = 4096;

impl ClusterState {
    pub(super) fn set_limits(&mut self, tenant: String, limits: Limits) -> Result<Applied, Rejected> {
        check_text("tenant", &tenant)?;
        let known = self.tenants.get(&tenant).map(|entry| &entry.limits);
        if known.unwrap_or(&Limits::default()) == &limits {
            return Ok(Applied::Unchanged);
        }
        let entry = self.tenants.entry(tenant).or_default();
        // From here on the tenant's own floors count: they begin where those of everyone are.
        for signal in limits.retention_seconds.keys() {
            let floor = entry.floors.entry(*signal).or_default();
            *floor = self.floors.get(signal).copied().unwrap_or(0).max(*floor);
        }
        entry.limits = limits;
        Ok(Applied::Done)
    }

    pub(super) fn add_token(&mut self, tenant: String, hash: String) -> Result<Applied, Rejected> {
        check_text("tenant", &tenant)?;
        if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            let reason = "64 lower-case hexadecimal digits are needed".to_owned();
            return Err(Rejected::Invalid("the token's hash".to_owned(), reason));
        }
        let holder = self.tenants.iter().find(|(_, entry)| entry.tokens.contains(&hash));
        match holder {
            Some((name, _)) if *name == tenant => Ok(Applied::Unchanged),
            Some((name, _)) => {
                Err(Rejected::Differs { what: "the token's tenant".to_owned(), actual: Some(name.clone()) })
            }
            None => {
                self.tenants.entry(tenant).or_default().tokens.insert(hash);
                Ok(Applied::Done)
            }
        }
    }

    pub(super) fn remove_token(&mut self, tenant: &str, hash: &str) -> Result<Applied, Rejected> {
        let removed = self.tenants.get_mut(tenant).is_some_and(|entry| entry.tokens.remove(hash));
        Ok(if removed { Applied::Done } else { Applied::Unchanged })
    }

    pub(super) fn raise_floor(
        &mut self,
        tenant: String,
        signal: Signal,
        floor_unix_nano: u64,
    ) -> Result<Applied, Rejected> {
        check_text("tenant", &tenant)?;
        if floor_unix_nano <= self.floor(&tenant, signal) {
            return Ok(Applied::Unchanged);
        }
        self.tenants.entry(tenant).or_default().floors.insert(signal, floor_unix_nano);
        Ok(Applied::Done)
    }

    pub(super) fn set_setting(
        &mut self,
        name: String,
        expect: Option<String>,
        to: Option<String>,
    ) -> Result<Applied, Rejected> {
        check_text("setting", &name)?;
        if to.as_ref().is_some_and(|value| value.len() > TEXT_LENGTH_MAX) {
            let reason = format!("its value is longer than {TEXT_LENGTH_MAX} bytes");
            return Err(Rejected::Invalid(name, reason));
        }
        if let (Some(_), Some(value)) = (retention::signal_of(&name), &to) {
            parse_retention(value).map_err(|error| Rejected::Invalid(name.clone(), error.to_string()))?;
        }
        let actual = self.options.get(&name);
        if actual == to.as_ref() {
            return Ok(Applied::Unchanged);
        }
        if actual != expect.as_ref() && !oteld_env::mutant("compare-and-set-ignores-expect") {
            return Err(Rejected::Differs { actual: actual.cloned(), what: name });
        }
        match to {
            Some(value) => self.options.insert(name, value),
            None => self.options.remove(&name),
        };
        Ok(Applied::Done)
    }
}

fn check_text(what: &str, text: &str) -> Result<(), Rejected> {
    if text.is_empty() || text.len() > TEXT_LENGTH_MAX {
        let reason = format!("its name must have 1 to {TEXT_LENGTH_MAX} bytes");
        return Err(Rejected::Invalid(what.to_owned(), reason));
    }
    Ok(())
}

//! Definitions that batches may name without carrying them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::batch::{Batch, Definition, FormatError};

/// What a definition costs beside its bytes.
const OVERHEAD_BYTES: usize = 128;

/// Those that batches named lately, by their hash. What is forgotten is asked for again; batches that wait for
/// their flush hold their own.
#[derive(Debug)]
pub(crate) struct Definitions {
    bytes_max: usize,
    /// Those that were named since `older` was set aside.
    recent: HashMap<u128, Arc<Definition>>,
    recent_bytes: usize,
    older: HashMap<u128, Arc<Definition>>,
}

impl Definitions {
    /// Holds `bytes_max` at most.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Definitions { bytes_max, recent: HashMap::new(), recent_bytes: 0, older: HashMap::new() }
    }

    /// The batch with the definitions that it names and lacks; those that it carries are remembered.
    ///
    /// # Errors
    /// `MissingDefinitions` with those that are neither carried nor known.
    pub(crate) fn resolve(&mut self, batch: &Batch) -> Result<Batch, FormatError> {
        batch.resolve(|hash, carried| self.find(hash).or_else(|| carried.map(|carried| self.learn(carried))))
    }

    /// One that was named lately.
    pub(crate) fn find(&mut self, hash: u128) -> Option<Arc<Definition>> {
        if let Some(known) = self.recent.get(&hash) {
            return Some(known.clone());
        }
        let known = self.older.remove(&hash)?;
        self.insert(known.clone());
        Some(known)
    }

    /// Remembers a definition, in bytes of its own.
    pub(crate) fn learn(&mut self, definition: &Definition) -> Arc<Definition> {
        let own = Arc::new(definition.detached());
        self.insert(own.clone());
        own
    }

    fn insert(&mut self, definition: Arc<Definition>) {
        let bytes = definition.bytes.len() + OVERHEAD_BYTES;
        if self.recent_bytes + bytes > self.bytes_max / 2 {
            self.older = std::mem::take(&mut self.recent);
            self.recent_bytes = 0;
        }
        if self.recent.insert(definition.hash, definition).is_none() {
            self.recent_bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Kind;

    fn definition(number: u8) -> Definition {
        Definition::new(Kind::Scope, vec![number; 100].into())
    }

    #[test]
    fn what_is_named_again_stays_and_the_rest_is_forgotten() {
        let mut definitions = Definitions::new(4 * (100 + OVERHEAD_BYTES));
        let first = definition(0);
        definitions.learn(&first);
        for number in 1..50 {
            definitions.learn(&definition(number));
            assert!(definitions.find(first.hash).is_some(), "after {number} others");
            assert!(definitions.recent.len() + definitions.older.len() <= 4);
        }
        assert!(definitions.find(definition(1).hash).is_none());
    }
}

//! Payload files that something on its way to the committer is going to name. A sweep leaves them alone: until the
//! commit that names them is applied, nothing in the tree tells that they are wanted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::codec::Hash;

/// How many want each file.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<HashMap<Hash, u32>>);

/// Keeps one payload file from being swept.
#[derive(Debug)]
pub(crate) struct Held {
    all: Arc<InFlight>,
    digest: Hash,
}

/// What is wanted, which nobody can add to meanwhile.
pub(crate) struct Wanted<'a>(MutexGuard<'a, HashMap<Hash, u32>>);

impl InFlight {
    /// Must be called before the file is looked for or written.
    pub(crate) fn hold(self: &Arc<Self>, digest: Hash) -> Held {
        *self.lock().entry(digest).or_default() += 1;
        Held { all: Arc::clone(self), digest }
    }

    /// Whoever wants a file from now on waits, and then finds what is left.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted(self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted<'_> {
    pub(crate) fn contains(&self, digest: &Hash) -> bool {
        self.0.contains_key(digest)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_wanted_as_long_as_anybody_holds_it() {
        let all = Arc::new(InFlight::default());
        let (one, two) = (all.hold([1; 32]), all.hold([1; 32]));
        drop(one);
        assert!(all.wanted().contains(&[1; 32]) && !all.wanted().contains(&[2; 32]));
        drop(two);
        assert!(!all.wanted().contains(&[1; 32]));
    }
}

//! What locks, semaphores and rates promise, as the cloud sees it: who is in which section.

use super::Cloud;
use crate::scenario::{PERMITS, RATE, RATE_MS};

impl Cloud {
    /// Enters a section that a lock guards; two in one that exclude each other are a violation.
    pub fn enter(&self, lock: &str, exclusive: bool) -> Section {
        let mut inner = self.lock();
        let (count, alone) = inner.sections.get(lock).copied().unwrap_or_default();
        if lock.starts_with("permit-") && count >= PERMITS {
            inner.violations.push(format!("more than {PERMITS} attempts are in the section of {lock}"));
        }
        if lock.starts_with("rate-") {
            let now = inner.now;
            let begun = inner.begun.entry(lock.to_owned()).or_default();
            begun.retain(|at| at + RATE_MS > now);
            begun.push(now);
            // A full bucket and what came meanwhile; and one for the way from the bucket to here.
            if begun.len() > 2 * RATE as usize + 2 {
                let text = format!("{} attempts in {RATE_MS} ms keep to {lock}", begun.len());
                inner.violations.push(text);
            }
        }
        if alone || (exclusive && count > 0) {
            inner.violations.push(format!("two attempts are in the section of lock {lock}"));
        }
        inner.sections.insert(lock.to_owned(), (count + 1, exclusive));
        drop(inner);
        Section { cloud: self.clone(), lock: lock.to_owned() }
    }
}

/// Being in a section that a lock guards.
#[derive(Debug)]
pub struct Section {
    cloud: Cloud,
    lock: String,
}

impl Drop for Section {
    fn drop(&mut self) {
        let mut inner = self.cloud.lock();
        if let Some(section) = inner.sections.get_mut(&self.lock) {
            section.0 = section.0.saturating_sub(1);
            section.1 = false;
            if section.0 == 0 {
                inner.sections.remove(&self.lock);
            }
        }
    }
}

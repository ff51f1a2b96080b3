//! The world around a run: what is there before it, and what people and strangers do to it from outside.

use super::{Cloud, Marks, Origin, SITE, Service, Setting, Thing};

impl Cloud {
    /// Puts a thing there that the run did not make.
    pub fn plant(&self, service: Service, name: &str, origin: Origin) {
        let marks = (origin == Origin::EarlierRun).then(|| Marks {
            store: self.store.clone(),
            site: SITE.to_owned(),
            run: "earlier".to_owned(),
            step: "whatever".to_owned(),
            generation: 1,
        });
        let mut inner = self.lock();
        let id = inner.id();
        let thing = Thing {
            id: id.clone(),
            service,
            name: name.to_owned(),
            origin,
            marks,
            visible: 0,
            settled: 0,
            fails: false,
        };
        inner.things.insert(id, thing);
    }

    /// Makes a setting with its first value.
    pub fn set_up(&self, key: &str, value: &str) {
        let setting = Setting {
            original: value.to_owned(),
            current: value.to_owned(),
            seen: vec![(0, value.to_owned())],
            ours: false,
        };
        self.lock().settings.insert(key.to_owned(), setting);
    }

    /// Has every creating or changing call of a step refused for good, until [`Cloud::repair`].
    pub fn refuse(&self, step: &str) {
        self.lock().refused_steps.insert(step.to_owned());
    }

    /// Has every undoing call of a step refused for good, until [`Cloud::repair`].
    pub fn refuse_undo(&self, step: &str) {
        self.lock().stubborn_steps.insert(step.to_owned());
    }

    /// Ends the process at mutating call number `at` (from 1): before it takes effect, or after.
    pub fn crash_at(&self, at: u64, after: bool) {
        self.lock().crash_at.insert(at, after);
    }

    /// Ends all permanent troubles, as a person would, and takes a stranger's thing out of the way of a step that
    /// may not have it.
    pub fn repair(&self, in_the_way: &[String]) {
        let mut inner = self.lock();
        inner.refused_steps.clear();
        inner.stubborn_steps.clear();
        for thing in inner.things.values_mut() {
            thing.fails = false;
        }
        inner.things.retain(|_, t| t.origin != Origin::Stranger || !in_the_way.contains(&t.name));
    }

    /// A stranger changes a setting that the run had changed.
    pub fn drift(&self, key: &str) -> bool {
        let mut inner = self.lock();
        if !inner.pending.is_empty() {
            return false;
        }
        let now = inner.now;
        let Some(setting) = inner.settings.get_mut(key).filter(|s| s.ours) else { return false };
        "drifted".clone_into(&mut setting.current);
        "drifted".clone_into(&mut setting.original);
        setting.seen.push((now, "drifted".to_owned()));
        setting.ours = false;
        true
    }

    /// A person takes away whatever a step made, and waits until nothing more lands.
    pub fn by_hand(&self, step: &str) {
        let mut inner = self.lock();
        for (_, _, request) in std::mem::take(&mut inner.pending) {
            self.land(&mut inner, request, false);
        }
        inner
            .things
            .retain(|_, t| t.marks.as_ref().is_none_or(|m| m.step != step || t.origin != Origin::Run));
        inner.notes.retain(|_, m| m.step != step);
        let now = inner.now;
        if let Some(setting) = inner.settings.get_mut(&format!("key-{step}")).filter(|s| s.ours) {
            setting.current.clone_from(&setting.original);
            setting.seen.push((now, setting.original.clone()));
            setting.ours = false;
        }
    }

    /// A step is never undone from now on.
    pub fn leave(&self, step: &str) {
        self.journal.keep(step);
    }
}

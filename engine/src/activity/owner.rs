//! Whose a thing in the outside world is: the marks put on it, and what they prove.

use serde::{Deserialize, Serialize};

/// Who a thing in the outside world belongs to, proven by its marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// This run made it.
    ThisRun,
    /// An earlier run of the same store and site made it; the run is named.
    ThisSite(String),
    /// Somebody else's, or without marks.
    Foreign,
}

/// The marks put on everything that is created, and compared at delete time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The store whose ledger records the creation.
    pub store: String,
    /// The site, or an empty string for a run without one.
    pub site: String,
    /// The creating run.
    pub run: String,
    /// The creating step.
    pub step: String,
    /// The generation of the step, from 1.
    pub generation: u32,
}

impl Marks {
    /// Tag key of [`Marks::store`].
    pub const STORE: &'static str = "dssflow:store";
    /// Tag key of [`Marks::site`].
    pub const SITE: &'static str = "dssflow:site";
    /// Tag key of [`Marks::run`].
    pub const RUN: &'static str = "dssflow:run";
    /// Tag key of [`Marks::step`].
    pub const STEP: &'static str = "dssflow:step";
    /// Tag key of [`Marks::generation`].
    pub const GENERATION: &'static str = "dssflow:generation";

    /// The marks as tags, in a fixed order.
    pub fn tags(&self) -> Vec<(&'static str, String)> {
        vec![
            (Self::STORE, self.store.clone()),
            (Self::SITE, self.site.clone()),
            (Self::RUN, self.run.clone()),
            (Self::STEP, self.step.clone()),
            (Self::GENERATION, self.generation.to_string()),
        ]
    }

    /// Decides who owns a thing that carries `tags`. The step is not compared: names already tell things apart,
    /// and one step may make several.
    pub fn owner_by<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Owner {
        let (mut store, mut site, mut run) = (None, None, None);
        for (key, value) in tags {
            match key {
                Self::STORE => store = Some(value),
                Self::SITE => site = Some(value),
                Self::RUN => run = Some(value),
                _ => {}
            }
        }
        match (store, site, run) {
            (Some(store), _, Some(run)) if store == self.store && run == self.run => Owner::ThisRun,
            (Some(store), Some(site), Some(run))
                if store == self.store && site == self.site && !site.is_empty() =>
            {
                Owner::ThisSite(run.to_owned())
            }
            _ => Owner::Foreign,
        }
    }

    /// Decides who owns a thing that carries `marks`.
    pub fn owner_of(&self, marks: &Marks) -> Owner {
        self.owner_by([
            (Self::STORE, marks.store.as_str()),
            (Self::SITE, marks.site.as_str()),
            (Self::RUN, marks.run.as_str()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(store: &str, site: &str, run: &str) -> Marks {
        Marks { store: store.into(), site: site.into(), run: run.into(), step: "s".into(), generation: 1 }
    }

    #[test]
    fn ownership_needs_the_store_and_the_run() {
        let ours = marks("s1", "lab", "r1");
        assert_eq!(ours.owner_of(&marks("s1", "lab", "r1")), Owner::ThisRun);
        assert_eq!(ours.owner_of(&marks("s1", "lab", "r0")), Owner::ThisSite("r0".into()));
        assert_eq!(ours.owner_of(&marks("s1", "other", "r0")), Owner::Foreign);
        assert_eq!(ours.owner_of(&marks("s2", "lab", "r1")), Owner::Foreign);
        assert_eq!(ours.owner_by([("Name", "x")]), Owner::Foreign);
    }

    #[test]
    fn runs_without_a_site_share_nothing() {
        assert_eq!(marks("s1", "", "r1").owner_of(&marks("s1", "", "r0")), Owner::Foreign);
    }
}

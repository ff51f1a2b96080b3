//! Whose a table of Glue is: dssflow's, DSS's, or foreign. Foreign ones are never touched.
//!
//! *dssflow's* carries the ownership marks among its parameters: `mode: direct` put them there when it made the table.
//! DSS puts no mark on its tables that is told anywhere. So *DSS's* is a table that a dataset names as its own and that
//! also lies where the dataset's files are, or at least where the dataset's connection keeps managed datasets; or one with
//! the parameters that the site says DSS writes ([`DssMarks`]). A table that a dataset names and that lies elsewhere
//! without any such proof is somebody else's that got in the way. Tables that are no plain external tables (views, Iceberg,
//! links to other catalogues) are nobody's to mend.
//!
//! Deleting asks for more: dssflow's marks, or marks of DSS that name the dataset, which then must be gone. Pure.

use std::collections::BTreeMap;

use dssflow_engine::activity::{Marks, Owner};
use serde::{Deserialize, Serialize};

use super::desired::ConnectionPlace;
use super::table::Table;

/// The parameter by which a table of ours says which dataset it is of.
pub const DATASET: &str = "dssflow:dataset";
/// Stands for the project's key in the value of a mark.
const PROJECT: &str = "{project}";
/// Stands for the dataset's name in the value of a mark.
const NAME: &str = "{dataset}";

/// Table parameters by which DSS's own tables are known, with their values; `{project}` and `{dataset}` stand for the
/// dataset's. All of them must be there. Empty: there are none.
pub type DssMarks = BTreeMap<String, String>;

/// Who owns a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// dssflow made it for this site.
    Ours,
    /// DSS's, or as good as: a dataset's own table.
    Dss,
    /// Somebody else's; the reason is for people.
    Foreign(String),
}

/// What tells owners.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    /// The marks of this run.
    pub marks: &'a Marks,
    /// The marks of DSS that the site names.
    pub dss: &'a DssMarks,
}

/// What the marks of DSS say of a table's dataset.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    /// As `PROJECT.name`.
    As(String),
    /// That there is one.
    Nothing,
}

/// What DSS's marks on a table say of its dataset; `None` without all of the marks.
fn named_by_dss(dss: &DssMarks, parameters: &BTreeMap<String, String>) -> Option<Named> {
    if dss.is_empty() {
        return None;
    }
    let (mut project, mut name) = (None, None);
    for (key, wanted) in dss {
        let found = parameters.get(key)?;
        // One mark may hold both, as `{project}.{dataset}`.
        let mut rest = found.as_str();
        let mut pattern = wanted.as_str();
        while !pattern.is_empty() {
            let (slot, after) = if let Some(after) = pattern.strip_prefix(PROJECT) {
                (Some(&mut project), after)
            } else if let Some(after) = pattern.strip_prefix(NAME) {
                (Some(&mut name), after)
            } else {
                (None, pattern)
            };
            let Some(slot) = slot else {
                let next = [PROJECT, NAME].iter().filter_map(|p| after.find(p)).min().unwrap_or(after.len());
                rest = rest.strip_prefix(&after[..next])?;
                pattern = &after[next..];
                continue;
            };
            let next = [PROJECT, NAME].iter().filter_map(|p| after.find(p)).min().unwrap_or(after.len());
            let end = if next == 0 { rest.len() } else { rest.find(&after[..next])? };
            let value = &rest[..end];
            if value.is_empty() || slot.as_ref().is_some_and(|known: &String| known != value) {
                return None;
            }
            *slot = Some(value.to_owned());
            rest = &rest[end..];
            pattern = after;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Some(match project.zip(name) {
        Some((project, name)) => Named::As(format!("{project}.{name}")),
        None => Named::Nothing,
    })
}

/// Why a table is of a kind that nobody here can mend.
fn strange(kind: &str, parameters: &BTreeMap<String, String>, is_link: bool) -> Option<String> {
    if is_link {
        return Some("it is a link to a table of another catalog".to_owned());
    }
    if kind.contains("VIEW") {
        return Some("it is a view".to_owned());
    }
    let format = parameters.get("table_type").or_else(|| parameters.get("spark.sql.sources.provider"))?;
    let known = ["iceberg", "delta", "hudi"].into_iter().find(|known| format.eq_ignore_ascii_case(known));
    known.map(|known| format!("it is a table of {known}"))
}

impl Proof<'_> {
    /// Whose a table is that the dataset `dataset` names as its own and that should lie at `location`.
    pub fn of_claimed(
        &self,
        table: &Table,
        is_link: bool,
        dataset: &str,
        location: &str,
        connection: &ConnectionPlace,
    ) -> Whose {
        let parameters = &table.parameters;
        if let Some(why) = strange(&table.kind, parameters, is_link) {
            return Whose::Foreign(why);
        }
        if self.is_ours(parameters) {
            return match parameters.get(DATASET).filter(|of| *of != dataset) {
                None => Whose::Ours,
                // Renamed, or another one took its name: the place of its files decides.
                Some(_) if table.location == location => Whose::Ours,
                Some(of) => Whose::Foreign(format!("dssflow made it for dataset {of}")),
            };
        }
        // Marks of another store or site: two of us must not fight over one table.
        if parameters.contains_key(Marks::STORE) {
            let site = parameters.get(Marks::SITE).map_or("another site", String::as_str);
            return Whose::Foreign(format!("dssflow made it from another store, for {site}"));
        }
        match named_by_dss(self.dss, parameters) {
            Some(Named::As(of)) if of != dataset => {
                return Whose::Foreign(format!("DSS made it for dataset {of}"));
            }
            Some(_) => return Whose::Dss,
            None => {}
        }
        if table.location == location || connection.holds(&table.location) {
            return Whose::Dss;
        }
        let at = if table.location.is_empty() { "nowhere" } else { &table.location };
        Whose::Foreign(format!("it lies at {at}, where DSS keeps nothing of it"))
    }

    /// The dataset whose table this was, of a table that no dataset names; `None` when that cannot be proven.
    pub fn orphan_of(
        &self,
        kind: &str,
        parameters: &BTreeMap<String, String>,
        is_link: bool,
    ) -> Option<String> {
        if strange(kind, parameters, is_link).is_some() {
            return None;
        }
        if self.is_ours(parameters) {
            return parameters.get(DATASET).cloned();
        }
        if parameters.contains_key(Marks::STORE) {
            return None;
        }
        match named_by_dss(self.dss, parameters)? {
            Named::As(dataset) => Some(dataset),
            Named::Nothing => None,
        }
    }

    fn is_ours(&self, parameters: &BTreeMap<String, String>) -> bool {
        let owner = self.marks.owner_by(parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        owner != Owner::Foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(store: &str, run: &str) -> Marks {
        Marks { store: store.into(), site: "lab".into(), run: run.into(), step: "s".into(), generation: 1 }
    }

    fn table(location: &str, parameters: &[(&str, &str)]) -> Table {
        Table {
            location: location.into(),
            kind: super::super::table::EXTERNAL.into(),
            parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Table::default()
        }
    }

    fn managed() -> ConnectionPlace {
        ConnectionPlace { managed: "s3://b/dataiku".into(), ..ConnectionPlace::default() }
    }

    const AT: &str = "s3://b/dataiku/P/d";

    fn whose(table: &Table, dss: &DssMarks) -> Whose {
        let marks = marks("s1", "r2");
        Proof { marks: &marks, dss }.of_claimed(table, false, "P.d", AT, &managed())
    }

    fn ours(run: &str, dataset: &str) -> Vec<(&'static str, String)> {
        let mut all = marks("s1", run).tags();
        all.push((DATASET, dataset.to_owned()));
        all
    }

    fn with(location: &str, parameters: &[(&'static str, String)]) -> Table {
        let list: Vec<(&str, &str)> = parameters.iter().map(|(k, v)| (*k, v.as_str())).collect();
        table(location, &list)
    }

    #[test]
    fn a_table_is_dsss_by_its_place_and_foreign_without_any_proof() {
        let none = DssMarks::new();
        assert_eq!(whose(&table(AT, &[]), &none), Whose::Dss);
        assert_eq!(whose(&table("s3://b/dataiku/old/d", &[]), &none), Whose::Dss, "it was moved in DSS");
        for foreign in ["s3://b/dataiku2/P/d", "s3://other/x", ""] {
            assert!(matches!(whose(&table(foreign, &[]), &none), Whose::Foreign(_)), "{foreign}");
        }
        assert!(matches!(whose(&table(AT, &[("table_type", "ICEBERG")]), &none), Whose::Foreign(_)));
        let mut view = table(AT, &[]);
        view.kind = "VIRTUAL_VIEW".into();
        assert!(matches!(whose(&view, &none), Whose::Foreign(_)));
    }

    #[test]
    fn our_marks_prove_ours_and_those_of_another_store_that_it_is_not() {
        let none = DssMarks::new();
        assert_eq!(whose(&with("s3://x/elsewhere", &ours("r1", "P.d")), &none), Whose::Ours);
        assert!(matches!(whose(&with("s3://x/y", &ours("r1", "P.other")), &none), Whose::Foreign(_)));
        let mut theirs = marks("s9", "r1").tags();
        theirs.push((DATASET, "P.d".into()));
        assert!(matches!(whose(&with(AT, &theirs), &none), Whose::Foreign(_)), "whatever its place");
    }

    #[test]
    fn marks_of_dss_are_what_the_site_says() {
        let two = DssMarks::from([
            ("dku.project".into(), "{project}".into()),
            ("dku.dataset".into(), "{dataset}".into()),
        ]);
        let found = table("s3://x/y", &[("dku.project", "P"), ("dku.dataset", "d")]);
        assert_eq!(whose(&found, &two), Whose::Dss);
        assert!(matches!(whose(&table("s3://x/y", &[("dku.project", "P")]), &two), Whose::Foreign(_)));
        let other = table(AT, &[("dku.project", "Q"), ("dku.dataset", "d")]);
        assert!(matches!(whose(&other, &two), Whose::Foreign(_)), "another dataset's");
        let one = DssMarks::from([
            ("comment".into(), "dss:{project}.{dataset}!".into()),
            ("by".into(), "dss".into()),
        ]);
        let both = |comment: &str| table("s3://x/y", &[("comment", comment), ("by", "dss")]);
        assert_eq!(whose(&both("dss:P.d!"), &one), Whose::Dss);
        for comment in ["dss:P.d", "dss:P.e!", "dss:.d!", "P.d"] {
            assert!(matches!(whose(&both(comment), &one), Whose::Foreign(_)), "{comment}");
        }
    }

    #[test]
    fn only_what_names_its_dataset_may_be_deleted() {
        let marks = marks("s1", "r2");
        let orphan = |dss: &DssMarks, table: &Table| {
            Proof { marks: &marks, dss }.orphan_of(&table.kind, &table.parameters, false)
        };
        let none = DssMarks::new();
        assert_eq!(orphan(&none, &with(AT, &ours("r1", "P.d"))).as_deref(), Some("P.d"));
        assert_eq!(orphan(&none, &with(AT, &marks.tags())), None, "it does not say of which dataset");
        assert_eq!(orphan(&none, &table(AT, &[])), None, "its place proves nothing");
        let by = DssMarks::from([("by".into(), "dss".into())]);
        assert_eq!(orphan(&by, &table(AT, &[("by", "dss")])), None, "DSS's, but of which dataset");
        let named = DssMarks::from([("of".into(), "{project}.{dataset}".into())]);
        assert_eq!(orphan(&named, &table(AT, &[("of", "P.gone")])).as_deref(), Some("P.gone"));
        let mut iceberg = with(AT, &ours("r1", "P.d"));
        iceberg.parameters.insert("table_type".into(), "ICEBERG".into());
        assert_eq!(orphan(&none, &iceberg), None);
    }
}

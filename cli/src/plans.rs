//! Saved plans: what a plan is bound to, how it is written and read, and whether it still holds.
//!
//! A plan names its site whole (a site names secrets and never holds them), the store's runs of that site, the account
//! and the principal. It holds no answer of the world, only what would be done and a fingerprint of what was found.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use dssflow_activities::aws::identity::Identity;
use dssflow_engine::id::{RunId, StoreId};
use dssflow_engine::runtime::{Action, Plan};
use dssflow_engine::store::{ListQuery, MAX_PAGE};
use dssflow_engine::time::Timestamp;
use dssflow_workflows::Workflow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::Access;
use crate::error::{Code, CommandError, CommandResult};
use crate::outfile::{self, OutFile};
use crate::ui::one_line;

/// The format that this version writes, and the only one it reads.
const FORMAT: u32 = 1;
/// The most differences that are told.
const MAX_TOLD: usize = 20;
/// The largest file that is read as a plan, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// What the store knows of a site: its id, and for each run of the site when it last got on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Revision {
    /// The store; none when there is no store yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<StoreId>,
    /// The site's runs with the time of their last event.
    pub(crate) runs: BTreeMap<RunId, Timestamp>,
}

impl Revision {
    /// Reads it from the store in `dir`, or from the process that owns that.
    ///
    /// # Errors
    /// When the store cannot be opened or its owner not be asked; that there is none is no error.
    pub(crate) async fn read(dir: &Path, command: &str, site: &str) -> CommandResult<Self> {
        let access = match Access::open_as(dir, command).await {
            Ok(access) => access,
            Err(error) if error.code == Code::NoStore => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let revision = Self::of(&access, site).await;
        access.close().await?;
        revision
    }

    /// Reads it where runs are read.
    ///
    /// # Errors
    /// When the store fails or its owner cannot be asked.
    pub(crate) async fn of(access: &Access, site: &str) -> CommandResult<Self> {
        let store = Some(access.store_id().await?);
        let mut runs = BTreeMap::new();
        let mut cursor = None;
        loop {
            let query =
                ListQuery { site: Some(site.to_owned()), limit: MAX_PAGE, cursor, ..ListQuery::default() };
            let page = access.list(query).await?;
            runs.extend(page.runs.into_iter().map(|run| (run.run, run.updated)));
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(Self { store, runs });
            }
        }
    }

    /// What differs from an earlier one, one line each.
    fn moved_since(&self, earlier: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        match (&earlier.store, &self.store) {
            (Some(then), now) if now.as_ref() != Some(then) => {
                lines.push(format!("the plan was made with store {}, this is another one", then.as_str()));
            }
            _ => {}
        }
        for (run, at) in &self.runs {
            match earlier.runs.get(run) {
                None => lines.push(format!("run {run} is new")),
                Some(then) if then != at => lines.push(format!("run {run} got on")),
                Some(_) => {}
            }
        }
        let gone = earlier.runs.keys().filter(|run| !self.runs.contains_key(*run));
        lines.extend(gone.map(|run| format!("run {run} is gone")));
        lines
    }
}

/// What a run acts as and where, for a plan that is bound to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Actor {
    /// The account's twelve digits.
    pub(crate) account: String,
    /// The region.
    pub(crate) region: String,
    /// The user or role.
    pub(crate) principal: String,
    /// Its unique id, which tells a role made anew from the one before.
    pub(crate) principal_id: String,
    /// The sandbox it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sandbox: Option<String>,
}

impl Actor {
    pub(crate) fn new(identity: &Identity, sandbox: Option<String>) -> Self {
        Self {
            account: identity.account.clone(),
            region: identity.region.clone(),
            principal: identity.principal_arn.clone(),
            principal_id: identity.principal_id.clone(),
            sandbox,
        }
    }
}

/// A plan with all it is bound to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SavedPlan {
    /// The format of the file.
    pub(crate) format: u32,
    /// The version of dssflow that made it.
    pub(crate) dssflow: String,
    /// When it was made.
    pub(crate) made: Timestamp,
    /// The workflow.
    pub(crate) workflow: String,
    /// Its version.
    pub(crate) workflow_version: u32,
    /// The site's name.
    pub(crate) site: String,
    /// The site, whole.
    pub(crate) spec: Value,
    /// The store's runs of the site.
    pub(crate) revision: Revision,
    /// Who would act, and where.
    pub(crate) actor: Actor,
    /// What steps start that costs money, by step.
    pub(crate) costs: BTreeMap<String, String>,
    /// How many steps there are of each action.
    pub(crate) totals: BTreeMap<Action, usize>,
    /// What would be done.
    pub(crate) plan: Plan,
}

impl SavedPlan {
    pub(crate) fn new(
        workflow: &Workflow,
        revision: Revision,
        actor: Actor,
        costs: BTreeMap<String, String>,
        plan: Plan,
        made: Timestamp,
    ) -> Self {
        Self {
            format: FORMAT,
            dssflow: env!("CARGO_PKG_VERSION").to_owned(),
            made,
            workflow: workflow.name.to_string(),
            workflow_version: workflow.version,
            site: workflow.site.clone(),
            spec: workflow.input.clone(),
            revision,
            actor,
            costs,
            totals: plan.counts(),
            plan,
        }
    }

    /// Writes it to a file of its own, for its owner only.
    ///
    /// # Errors
    /// When the file exists and `force` is not given, or cannot be written.
    pub(crate) fn write(&self, path: &Path, force: bool) -> CommandResult<()> {
        let mut file = OutFile::create(path, force)?;
        let text = serde_json::to_string_pretty(self).expect("a plan is plain data");
        writeln!(file, "{text}").map_err(|error| outfile::failed(path, &error))?;
        file.finish()
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it cannot be read, is none, or is of another format.
    pub(crate) fn read(path: &Path) -> CommandResult<Self> {
        let cannot = |why: &dyn std::fmt::Display| {
            CommandError::new(Code::BadPlan, format!("{} cannot be used as a plan", path.display()))
                .why(why)
                .hint("make a new one: `dssflow plan bootstrap --out FILE`")
        };
        let size = std::fs::metadata(path).map_err(|e| cannot(&e))?.len();
        if size > MAX_BYTES {
            return Err(cannot(&format!("it has {size} bytes, at most {MAX_BYTES} are read")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| cannot(&e))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| cannot(&e))?;
        let format = value.get("format").and_then(Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            let found = format.map_or_else(|| "no format".to_owned(), |f| format!("format {f}"));
            return Err(cannot(&format!("it has {found}, this version reads format {FORMAT}")));
        }
        serde_json::from_value(value).map_err(|e| cannot(&e))
    }

    /// Refuses a plan that was made for something else than what is to be run now.
    ///
    /// # Errors
    /// Everything it is bound to that is another now.
    pub(crate) fn must_fit(
        &self,
        workflow: &Workflow,
        revision: &Revision,
        actor: &Actor,
    ) -> CommandResult<()> {
        let mut why = Vec::new();
        if (self.workflow.as_str(), self.workflow_version) != (workflow.name.as_str(), workflow.version) {
            why.push(format!(
                "it is of workflow {} version {}, this is {} version {}",
                self.workflow, self.workflow_version, workflow.name, workflow.version
            ));
        }
        let mut changed = Vec::new();
        different("", &self.spec, &workflow.input, &mut changed);
        why.extend(changed.into_iter().take(MAX_TOLD).map(|at| format!("the site file has another {at}")));
        if why.is_empty() && self.plan.graph != *workflow.graph.hash() {
            why.push(format!(
                "dssflow {} makes other steps of this site than {}",
                env!("CARGO_PKG_VERSION"),
                self.dssflow
            ));
        }
        if self.actor.sandbox != actor.sandbox {
            why.push("it was made for another sandbox, or for none".to_owned());
        } else if self.actor != *actor {
            why.push(format!(
                "it was made as {} in {} of account {}; the credentials are of {} in {} of account {}",
                one_line(&self.actor.principal),
                self.actor.region,
                self.actor.account,
                one_line(&actor.principal),
                actor.region,
                actor.account
            ));
        }
        why.extend(revision.moved_since(&self.revision));
        if why.is_empty() {
            return Ok(());
        }
        let mut error = CommandError::new(
            Code::StalePlan,
            "the plan is not of what is to be run now; nothing was created",
        );
        error.why = why;
        Err(error.hint(format!("make a new one: `dssflow plan {} --out FILE`", self.workflow)))
    }

    /// Refuses a plan after which the world has moved.
    ///
    /// # Errors
    /// Every step of which something else would be done now.
    pub(crate) fn must_hold(&self, now: &Plan) -> CommandResult<()> {
        let moved = now.moved_since(&self.plan);
        if moved.is_empty() {
            return Ok(());
        }
        let mut error = CommandError::new(
            Code::StalePlan,
            format!("the world moved since the plan was made: {} steps; nothing was created", moved.len()),
        );
        let word = |step: Option<&dssflow_engine::runtime::Planned>| {
            step.map_or_else(|| "not in the plan".to_owned(), |step| step.action.to_string())
        };
        for m in moved.iter().take(MAX_TOLD) {
            let Some(step) = m.now.or(m.then) else { continue };
            let (then, now) = (word(m.then), word(m.now));
            let what = if then == now {
                format!("still {now}, but what it depends on or whose it is has changed")
            } else {
                format!("planned: {then}; now: {now}")
            };
            error.why.push(format!("{}: {what}", step.step));
        }
        if moved.len() > MAX_TOLD {
            error.why.push(format!("and {} more", moved.len() - MAX_TOLD));
        }
        Err(error.hint(format!("look at what would be done now: `dssflow plan {}`", self.workflow)))
    }
}

/// Where two documents differ, as `connections[0].bucket`.
fn different(at: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let below = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                different(
                    &below,
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                    out,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                different(&format!("{at}[{n}]"), a, b, out);
            }
        }
        (a, b) if a != b => out.push(at.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_changed_site_is_told_by_its_keys() {
        let mut out = Vec::new();
        let (a, b) = (json!({"a": {"b": [1, {"c": 2}]}, "d": 1}), json!({"a": {"b": [1, {"c": 3}]}, "e": 1}));
        different("", &a, &b, &mut out);
        assert_eq!(out, ["a.b[1].c", "d", "e"]);
    }

    #[test]
    fn runs_that_moved_are_named() {
        let at = Timestamp::from_millis;
        let run = |id: &str| RunId::new(id).unwrap();
        let then =
            Revision { store: None, runs: [(run("a"), at(1)), (run("b"), at(1)), (run("c"), at(1))].into() };
        let now =
            Revision { store: None, runs: [(run("a"), at(1)), (run("b"), at(2)), (run("d"), at(1))].into() };
        assert_eq!(now.moved_since(&then), ["run b got on", "run d is new", "run c is gone"]);
        assert!(then.moved_since(&then).is_empty());
        // A plan that was made before there was a store holds in a new one.
        let store = Revision { store: Some(StoreId::generate([1; 16])), ..Revision::default() };
        assert!(store.moved_since(&Revision::default()).is_empty());
        assert_eq!(Revision::default().moved_since(&store).len(), 1);
    }
}

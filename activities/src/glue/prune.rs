//! Deletes tables of datasets that are gone: only with the site's word, only with proof, and never many at once.

use dssflow_engine::activity::{Activity, ActivityContext, ActivityResult, Effect};
use serde::{Deserialize, Serialize};

use super::Rules;
use super::calls::Calls;
use super::instance::{Instance, is_of_one};
use super::inventory::Removed;
use super::report::{Finding, Findings, Kind};
use super::table::Table;
use super::whose::Proof;
use crate::clients::AwsClients;
use crate::dss::client::DssTarget;

/// The registered name.
pub const NAME: &str = "glue.prune";
/// The most bytes of findings.
const FINDINGS_BYTES: usize = 64 * 1024;

/// What the activity takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneInput {
    /// Which DSS.
    pub target: DssTarget,
    /// How tables are known.
    pub rules: Rules,
    /// The tables.
    pub removed: Vec<Removed>,
    /// With more than so many, none is deleted.
    pub at_most: u64,
}

/// The activity.
pub(crate) struct Prune;

/// Deletes tables.
///
/// # Idempotency
/// Right before each table is deleted its dataset is asked for again, and the table read again, with its marks. What is gone
/// is no error.
///
/// # Compensation
/// None: the files are in S3 and the dataset is gone; only marks of dssflow's own, or of DSS as the site names them, lead
/// to a deletion.
///
/// Page: <https://docs.aws.amazon.com/glue/latest/webapi/API_DeleteTable.html>
impl Activity for Prune {
    type Input = PruneInput;
    type Output = Findings;
    const OWNS: bool = false;

    fn effect(&self) -> Effect {
        Effect::Delete
    }

    async fn execute(&self, ctx: &ActivityContext, input: &PruneInput) -> ActivityResult<Findings> {
        let aws = AwsClients::of(ctx)?;
        let calls = Calls { ctx, aws: &aws };
        let mut found = Findings::default();
        let count = u64::try_from(input.removed.len()).unwrap_or(u64::MAX);
        if count > input.at_most {
            // A DSS that shows fewer projects than it has would lead to this, too.
            let why = format!(
                "{count} tables would be deleted, more than glue_resync.prune_at_most ({}): none was",
                input.at_most
            );
            for removed in &input.removed {
                let name = format!("{}.{}", removed.database, removed.table);
                found.push(Finding::new(Kind::Removed, name, &removed.dataset).because([why.clone()]));
            }
            return Ok(found.within(FINDINGS_BYTES, usize::MAX));
        }
        let instance = Instance::connect(ctx, &input.target).await?;
        for (number, removed) in input.removed.iter().enumerate() {
            ctx.heartbeat(format!("{number} of {count}: {}.{}", removed.database, removed.table));
            let name = format!("{}.{}", removed.database, removed.table);
            let finding = Finding::new(Kind::Removed, &name, &removed.dataset);
            let finding = match one(calls, input, &instance, removed).await {
                Ok(None) => Finding { mended: true, ..finding.because(["its dataset is gone".to_owned()]) },
                Ok(Some(why)) => finding.because([why]),
                Err(error) if is_of_one(&error) => {
                    Finding::new(Kind::Failed, &name, &removed.dataset).because([error.to_string()])
                }
                Err(mut error) => {
                    error.no_effect = false;
                    return Err(error);
                }
            };
            found.push(finding);
        }
        Ok(found.within(FINDINGS_BYTES, usize::MAX))
    }

    fn describe(&self, input: &PruneInput) -> String {
        format!("delete {} tables whose datasets are gone", input.removed.len())
    }
}

/// Deletes one table; `Some` says why not. Whatever was known of DSS when the tables were listed, or at the table before
/// this one, may be otherwise by now: so nothing of it is kept.
async fn one(
    calls: Calls<'_>,
    input: &PruneInput,
    instance: &Instance,
    removed: &Removed,
) -> ActivityResult<Option<String>> {
    let named =
        removed.dataset.split_once('.').filter(|(project, name)| !project.is_empty() && !name.is_empty());
    let Some((project, dataset)) = named else {
        return Ok(Some("its marks name no dataset".to_owned()));
    };
    if still_its_table(calls, instance, project, dataset, removed).await? {
        return Ok(Some("its dataset is there again".to_owned()));
    }
    let Some(table) = calls.table(&removed.database, &removed.table).await? else { return Ok(None) };
    let marks = calls.ctx.marks();
    let proof = Proof { marks: &marks, dss: &input.rules.dss_marks };
    let have = Table::of(&table);
    let of = proof.orphan_of(&have.kind, &have.parameters, table.target_table().is_some());
    if of.as_ref() != Some(&removed.dataset) {
        return Ok(Some("its marks are others by now".to_owned()));
    }
    calls.delete_table(&removed.database, &removed.table).await?;
    Ok(None)
}

/// Whether the dataset is there and may still want this table: unless it names another one, it may.
async fn still_its_table(
    calls: Calls<'_>,
    instance: &Instance,
    project: &str,
    dataset: &str,
    removed: &Removed,
) -> ActivityResult<bool> {
    let Some(settings) = instance.dataset(calls, project, dataset).await? else { return Ok(false) };
    let named = settings["params"]["metastoreTableName"].as_str().unwrap_or_default().to_lowercase();
    let named = named.replace("${projectkey}", &project.to_lowercase());
    Ok(named.is_empty() || named.contains("${") || named == removed.table)
}

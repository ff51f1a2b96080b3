//! One dataset: its table in Glue compared and, when that is wanted, mended and looked at again.
//!
//! What somebody else changes meanwhile is read again and compared anew; a table is only changed in the version that was
//! compared. An error that is about this dataset alone becomes a finding; one that says that DSS or AWS cannot be reached
//! ends the attempt.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use super::batches::Batches;
use super::calls::{Calls, EXISTS, NOT_FOUND, Walk};
use super::desired::{ConnectionPlace, Desired, desired, names};
use super::instance::{Instance, is_of_one};
use super::page::Entry;
use super::partitions::{Counts, DELETE_BATCH, Fate, Known, MAX_PARTITIONS, judge};
use super::report::{Finding, Kind};
use super::table::{Difference, Table, differences, mended};
use super::whose::{DATASET, Proof, Whose};
use super::{Mode, Rules};
use crate::aws::tags;
use crate::clients::AwsClients;
use crate::dss::client::DssTarget;
use crate::wildcard;
use aws_sdk_glue::types as sdk;
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, ErrorClass};

/// How often a table, or a partition, is read and changed before it is given up that somebody else keeps changing.
pub(super) const TRIES: u32 = 10;
/// How often Glue is looked at after DSS said that it has synchronised.
const LOOKS: u32 = 4;
/// The wait between two such looks.
const LOOK_WAIT: Duration = Duration::from_millis(500);
/// What is said of vanished partitions that stay without `prune`.
const LEFT: &str = ": left, prune is off";

/// The wait before a table is tried again: longer each time, and another for each table, so that many that were refused
/// together do not all come back at once.
pub(super) fn pause(table: &str, tries: u32) -> Duration {
    let mut hasher = DefaultHasher::new();
    (table, tries).hash(&mut hasher);
    let part = u32::try_from(hasher.finish() % 1_000).expect("it is below a thousand");
    LOOK_WAIT * (tries + 1) + LOOK_WAIT * part / 1_000
}

/// Codes that mean: read it again.
const READ_AGAIN: [&str; 6] = [
    EXISTS,
    NOT_FOUND,
    "ConcurrentModificationException",
    "VersionMismatchException",
    "ResourceNotReadyException",
    "OperationTimeoutException",
];

/// What came of one dataset.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its table is as it should be.
    Equal(Option<Counts>),
    /// Something is the matter, or was.
    Found(Finding),
}

/// Looks at datasets for one attempt.
pub(super) struct Mender<'a> {
    pub(super) calls: Calls<'a>,
    instance: Instance,
    rules: &'a Rules,
    connections: &'a BTreeMap<String, ConnectionPlace>,
    /// Whether anything is changed.
    apply: bool,
    /// Told how many partitions of the present table were looked at.
    progress: &'a (dyn Fn(u64) + Sync),
}

/// The table that is looked at.
struct Job<'a> {
    entry: &'a Entry,
    desired: Desired,
    connection: &'a ConnectionPlace,
    database: String,
    table: String,
}

impl Job<'_> {
    fn finding(&self, kind: Kind) -> Finding {
        Finding::new(kind, format!("{}.{}", self.database, self.table), &self.entry.dataset)
    }

    fn changed(&self, differ: &[Difference]) -> Finding {
        let mut finding = self.finding(Kind::Changed).because(differ.iter().map(ToString::to_string));
        finding.types = differ.iter().any(Difference::is_type);
        finding
    }
}

fn skipped(entry: &Entry, why: impl Into<String>) -> Outcome {
    let table = format!("{}.{}", entry.database, entry.table);
    Outcome::Found(Finding::new(Kind::Skipped, table, &entry.dataset).because([why.into()]))
}

fn failed(entry: &Entry, error: &ActivityError) -> Outcome {
    let mut lines = vec![error.to_string()];
    lines.extend(error.help.clone());
    let table = format!("{}.{}", entry.database, entry.table);
    Outcome::Found(Finding::new(Kind::Failed, table, &entry.dataset).because(lines))
}

impl<'a> Mender<'a> {
    pub(super) async fn connect(
        ctx: &'a ActivityContext,
        aws: &'a AwsClients,
        target: &DssTarget,
        rules: &'a Rules,
        connections: &'a BTreeMap<String, ConnectionPlace>,
        apply: bool,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> ActivityResult<Self> {
        let instance = Instance::connect(ctx, target).await?;
        Ok(Self { calls: Calls { ctx, aws }, instance, rules, connections, apply, progress })
    }

    /// Compares and mends the table of one dataset.
    pub(super) async fn look_at(&mut self, entry: &Entry) -> ActivityResult<Outcome> {
        match Box::pin(self.look(entry)).await {
            Err(error) if is_of_one(&error) => Ok(failed(entry, &error)),
            Err(mut error) => {
                // Tables before this one may have been changed.
                error.no_effect &= !self.apply;
                Err(error)
            }
            outcome => outcome,
        }
    }

    async fn look(&mut self, entry: &Entry) -> ActivityResult<Outcome> {
        let (project, name) = entry.dataset.split_once('.').unwrap_or((&entry.dataset, ""));
        let Some(settings) = self.instance.dataset(self.calls, project, name).await? else {
            return Ok(skipped(entry, "it is gone since it was listed"));
        };
        let on = settings["params"]["connection"].as_str().unwrap_or_default();
        let Some(connection) = self.connections.get(on) else {
            return Ok(skipped(entry, format!("it was moved to connection {on:?} since it was listed")));
        };
        let variables = self.instance.variables(self.calls, project, &settings).await?;
        let made = names(&settings, connection, &variables)
            .and_then(|names| Ok((names, desired(&settings, connection, &variables, &self.rules.types)?)));
        let ((database, table), desired) = match made {
            Ok(made) => made,
            Err(why) => return Ok(skipped(entry, why)),
        };
        if (&database, &table) != (&entry.database, &entry.table) {
            return Ok(skipped(entry, format!("it names {database}.{table} since it was listed")));
        }
        let job = Job { entry, desired, connection, database, table };
        match self.rules.mode {
            Mode::Direct => self.direct(&job).await,
            Mode::Dss => self.by_dss(&job, project, name).await,
        }
    }

    /// Why a table is not to be touched.
    fn foreign(&self, job: &Job<'_>, found: &sdk::Table, have: &Table) -> Option<String> {
        let marks = self.calls.ctx.marks();
        let proof = Proof { marks: &marks, dss: &self.rules.dss_marks };
        let is_link = found.target_table().is_some();
        let whose =
            proof.of_claimed(have, is_link, &job.entry.dataset, &job.desired.location, job.connection);
        let Whose::Foreign(why) = whose else { return None };
        // Somebody may say that it is; but not of what no table of DSS ever is.
        let adopted = wildcard::any(&self.rules.adopt, &format!("{}.{}", job.database, job.table));
        let plain = Table { location: job.desired.location.clone(), ..have.clone() };
        let nobodys =
            proof.of_claimed(&plain, is_link, &job.entry.dataset, &job.desired.location, job.connection);
        (!(adopted && nobodys == Whose::Dss)).then_some(why)
    }

    /// Mends by calls to Glue.
    async fn direct(&mut self, job: &Job<'_>) -> ActivityResult<Outcome> {
        let mut first: Option<Finding> = None;
        for tries in 0..TRIES {
            let found = self.calls.table(&job.database, &job.table).await?;
            let Some(found) = found else {
                first.get_or_insert_with(|| job.finding(Kind::Added));
                if !self.apply {
                    return self.close(job, first, false).await;
                }
                let mut table = mended(&job.desired, &Table::default());
                table.parameters.extend(tags::ordered(&self.calls.ctx.marks()));
                table.parameters.insert(DATASET.to_owned(), job.entry.dataset.clone());
                let made = self.calls.create_table(&job.database, &table.input(&job.table, None)?).await;
                if let Err(error) = &made
                    && error.code == NOT_FOUND
                {
                    let message = format!("there is no Glue database {}: {}", job.database, error.message);
                    return Err(ActivityError::terminal("DatabaseMissing", message)
                        .help("`dssflow run bootstrap` makes the databases of a site's connections"));
                }
                self.read_again(job, made, tries).await?;
                continue;
            };
            let have = Table::of(&found);
            if let Some(why) = self.foreign(job, &found, &have) {
                return Ok(Outcome::Found(job.finding(Kind::Foreign).because([why])));
            }
            let differ = differences(&job.desired, &have);
            if differ.is_empty() {
                return self.close(job, first, true).await;
            }
            first.get_or_insert_with(|| job.changed(&differ));
            let rekeyed = differ.iter().any(|d| matches!(d, Difference::Keys { .. }));
            if !self.apply {
                return if rekeyed {
                    Ok(Outcome::Found(first.expect("set above")))
                } else {
                    self.close(job, first, true).await
                };
            }
            if rekeyed {
                if let Some(outcome) = self.make_anew(job, first.clone(), &have).await? {
                    return Ok(outcome);
                }
                continue;
            }
            let input = mended(&job.desired, &have).input(&job.table, Some(&found))?;
            let changed = self.calls.update_table(&job.database, &input, found.version_id()).await;
            self.read_again(job, changed, tries).await?;
        }
        let message = format!("somebody else keeps changing {}.{}", job.database, job.table);
        Err(ActivityError::terminal("KeepsChanging", message).help("see who writes to it, then run again"))
    }

    /// Glue cannot change partition keys: a table of ours is deleted, to be made again. Gives the finding when it may not.
    async fn make_anew(
        &self,
        job: &Job<'_>,
        first: Option<Finding>,
        have: &Table,
    ) -> ActivityResult<Option<Outcome>> {
        let marks = self.calls.ctx.marks();
        let ours = Proof { marks: &marks, dss: &self.rules.dss_marks }.orphan_of(
            &have.kind,
            &have.parameters,
            false,
        );
        if self.rules.prune && ours.as_ref() == Some(&job.entry.dataset) {
            self.calls.delete_table(&job.database, &job.table).await?;
            return Ok(None);
        }
        let mut finding = first.unwrap_or_else(|| job.finding(Kind::Changed));
        finding.what.push(
            "Glue cannot change partition keys: with `prune: true` a table of dssflow's is made anew, delete another's by hand"
                .to_owned(),
        );
        Ok(Some(Outcome::Found(finding)))
    }

    /// Lets the next look decide after a call that met somebody else's, or whose answer was lost.
    async fn read_again(&self, job: &Job<'_>, done: ActivityResult<()>, tries: u32) -> ActivityResult<()> {
        let Err(error) = done else { return Ok(()) };
        let unknown = error.class == ErrorClass::Retryable && !error.no_effect;
        if !unknown && !READ_AGAIN.contains(&error.code.as_str()) {
            return Err(error);
        }
        tracing::info!(%error, tries, "the table is read again");
        self.calls.ctx.sleep(pause(&job.table, tries)).await
    }

    /// Lets DSS mend, and looks what Glue has afterwards.
    async fn by_dss(&mut self, job: &Job<'_>, project: &str, name: &str) -> ActivityResult<Outcome> {
        let mut first: Option<Finding> = None;
        let mut before: Option<Counts> = None;
        let (mut synced, mut looks) = (false, 0);
        loop {
            let found = self.calls.table(&job.database, &job.table).await?;
            let mut differ = Vec::new();
            if let Some(found) = &found {
                let have = Table::of(found);
                if let Some(why) = self.foreign(job, found, &have) {
                    return Ok(Outcome::Found(job.finding(Kind::Foreign).because([why])));
                }
                differ = differences(&job.desired, &have);
                if differ.is_empty() {
                    let first = (first, before);
                    return self.close_by_dss(job, first, project, name, synced).await;
                }
                first.get_or_insert_with(|| job.changed(&differ));
            } else {
                first.get_or_insert_with(|| job.finding(Kind::Added));
            }
            if !self.apply {
                return self.close(job, first, found.is_some()).await;
            }
            if !synced {
                // DSS mends partitions with the table, and says of neither what it did.
                before = self.partitions(job, found.is_some(), false).await?.0;
                self.instance.synchronize(self.calls, project, name).await?;
                synced = true;
                continue;
            }
            looks += 1;
            if looks < LOOKS {
                self.calls.ctx.sleep(LOOK_WAIT).await?;
                continue;
            }
            if found.is_none() {
                let message =
                    format!("DSS has synchronised it, and Glue has no table {}.{}", job.database, job.table);
                return Err(ActivityError::terminal("NotSynchronised", message).help(
                    "is the metastore catalog of DSS Glue, in this account and region, and may its credentials write to it?",
                ));
            }
            let mut finding = job.changed(&differ);
            finding.kind = Kind::Disputed;
            return Ok(Outcome::Found(finding));
        }
    }

    /// The partitions of a table that is as it should be, and what there is to say of both. Only DSS mends here.
    async fn close_by_dss(
        &mut self,
        job: &Job<'_>,
        (first, before): (Option<Finding>, Option<Counts>),
        project: &str,
        name: &str,
        mut synced: bool,
    ) -> ActivityResult<Outcome> {
        let (mut counts, mut notes) = self.partitions(job, true, false).await?;
        let was = before.or(counts);
        // What vanished is deleted with `prune` only. Without it DSS is not asked for the sake of that: whether it deletes
        // partitions nobody knows, and one that does not would be asked at every run, for nothing.
        let prune = self.rules.prune;
        let wrong = |counts: Option<Counts>| {
            counts.is_some_and(|c| c.added + c.changed > 0 || (prune && c.vanished > 0))
        };
        if self.apply && wrong(counts) && !synced {
            self.instance.synchronize(self.calls, project, name).await?;
            synced = true;
            (counts, notes) = self.partitions(job, true, false).await?;
        }
        let mut looks = 1;
        while self.apply && synced && wrong(counts) && looks < LOOKS {
            self.calls.ctx.sleep(LOOK_WAIT).await?;
            (counts, notes) = self.partitions(job, true, false).await?;
            looks += 1;
        }
        // What is no longer wrong was mended.
        let left = |c: Counts| c.added + c.changed + c.vanished;
        let told =
            was.zip(counts).map(|(was, now)| Counts { mended: left(was).saturating_sub(left(now)), ..was });
        let Some(mut finding) =
            first.or_else(|| told.filter(Counts::differ).map(|_| job.finding(Kind::Changed)))
        else {
            return Ok(Outcome::Equal(told));
        };
        if self.apply && synced && wrong(counts) {
            finding.kind = Kind::Disputed;
        } else {
            finding.mended = self.apply && counts.is_none_or(|c| !c.differ());
        }
        let stay = counts.map_or(0, |c| c.vanished);
        let left = match (self.apply && stay > 0, prune) {
            (true, true) => format!(": DSS leaves {stay}"),
            (true, false) => LEFT.to_owned(),
            (false, _) => String::new(),
        };
        Ok(with_partitions(finding, told, &left, notes))
    }

    /// The partitions of a table that is as it should be (or that would be made), and what there is to say of both.
    async fn close(
        &mut self,
        job: &Job<'_>,
        first: Option<Finding>,
        exists: bool,
    ) -> ActivityResult<Outcome> {
        let write = self.apply && self.rules.mode == Mode::Direct;
        let (counts, notes) = self.partitions(job, exists, write).await?;
        let differ = counts.is_some_and(|c| c.differ());
        let Some(mut finding) = first.or_else(|| differ.then(|| job.finding(Kind::Changed))) else {
            return Ok(Outcome::Equal(counts));
        };
        let open = counts.is_some_and(|c| c.mended < c.added + c.changed + c.vanished);
        finding.mended = self.apply && !open;
        let left = if self.apply && !self.rules.prune { LEFT } else { "" };
        Ok(with_partitions(finding, counts, left, notes))
    }

    /// Compares the partitions of a table with S3 and, when told to, makes Glue equal as it goes.
    async fn partitions(
        &mut self,
        job: &Job<'_>,
        exists: bool,
        write: bool,
    ) -> ActivityResult<(Option<Counts>, Vec<String>)> {
        let Some(pattern) = job.desired.pattern.as_ref().filter(|_| self.rules.partitions) else {
            return Ok((None, Vec::new()));
        };
        let (database, table) = (job.database.as_str(), job.table.as_str());
        let mut known = Known::default();
        let mut fits = true;
        if exists {
            self.calls
                .partitions(database, table, |partition| {
                    let storage = partition.storage_descriptor().map(Table::stored).unwrap_or_default();
                    fits =
                        known.glue_has(partition.values(), judge(&job.desired, partition.values(), &storage));
                    fits
                })
                .await?;
        }
        let mut batches = Batches::new(self.calls, &job.desired, database, table, write);
        let mut walk = Walk::new(self.calls, &job.desired.location, pattern);
        while fits && let Some(page) = walk.next().await? {
            for found in page {
                match known.s3_has(&found.values) {
                    Fate::Missing => batches.make(found).await?,
                    Fate::Wrong => batches.change(found).await?,
                    Fate::Right | Fate::Again => {}
                }
            }
            fits = usize::try_from(known.looked()).unwrap_or(usize::MAX) <= MAX_PARTITIONS;
            (self.progress)(known.looked());
        }
        if !fits {
            let message = format!("{database}.{table} has more than {MAX_PARTITIONS} partitions");
            return Err(ActivityError::terminal("TooManyPartitions", message)
                .help("set `glue_resync.partitions: false`, or leave the dataset out"));
        }
        let (vanished, mut counts) = known.finish();
        if write && self.rules.prune {
            for values in vanished.chunks(DELETE_BATCH) {
                batches.delete(values).await?;
            }
        }
        let (mended, notes) = batches.finish().await?;
        counts.mended = mended;
        Ok((Some(counts), notes))
    }
}

/// A finding with what there is to say of its partitions; `left` is added to what vanished.
fn with_partitions(mut finding: Finding, counts: Option<Counts>, left: &str, notes: Vec<String>) -> Outcome {
    finding.partitions = counts;
    let table = std::mem::take(&mut finding.what);
    Outcome::Found(finding.because(table.into_iter().chain(said(counts, left)).chain(notes)))
}

/// What there is to say of partitions.
fn said(counts: Option<Counts>, left: &str) -> Vec<String> {
    let Some(counts) = counts else { return Vec::new() };
    let mut lines = Vec::new();
    for (count, what, more) in [
        (counts.added, "in S3 and not in Glue", ""),
        (counts.changed, "not as the table", ""),
        (counts.vanished, "in Glue and no longer in S3", left),
    ] {
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            lines.push(format!("{count} partition{plural} {what}{more}"));
        }
    }
    lines
}

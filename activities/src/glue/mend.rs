//! One dataset: its table in Glue compared and, when that is wanted, mended and looked at again.
//!
//! What somebody else changes meanwhile is read again and compared anew; a table is only changed in the version that was
//! compared. An error that is about this dataset alone becomes a finding; one that says that DSS or AWS cannot be reached
//! ends the attempt.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use super::calls::{Calls, EXISTS, NOT_FOUND, Refused, Walk, partition_input};
use super::desired::{ConnectionPlace, Desired, desired, names};
use super::instance::{Instance, is_of_one};
use super::page::Entry;
use super::partitions::{BATCH, Counts, DELETE_BATCH, Fate, Known, MAX_PARTITIONS, judge};
use super::report::{Finding, Kind};
use super::table::{Difference, Table, differences, mended, mended_stored};
use super::whose::{DATASET, Proof, Whose};
use super::{Mode, Rules};
use crate::aws::tags;
use crate::clients::AwsClients;
use crate::dss::client::DssTarget;
use crate::wildcard;
use aws_sdk_glue::types as sdk;
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, ErrorClass};

/// How often a table is read and changed before it is given up that somebody else keeps changing.
const TRIES: u32 = 10;
/// How often Glue is looked at after DSS said that it has synchronised.
const LOOKS: u32 = 4;
/// The wait between two such looks.
const LOOK_WAIT: Duration = Duration::from_millis(500);
/// The wait before a table is tried again: longer each time, and another for each table, so that many that were refused
/// together do not all come back at once.
fn pause(table: &str, tries: u32) -> Duration {
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
        let wrong = |counts: Option<Counts>| counts.is_some_and(|c| c.added + c.changed > 0);
        if self.apply && counts.is_some_and(|c| c.differ()) && !synced {
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
        Ok(self.told(finding, told, notes))
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
        Ok(self.told(finding, counts, notes))
    }

    /// A finding with what there is to say of its partitions.
    fn told(&self, mut finding: Finding, counts: Option<Counts>, notes: Vec<String>) -> Outcome {
        finding.partitions = counts;
        let table = std::mem::take(&mut finding.what);
        Outcome::Found(
            finding.because(table.into_iter().chain(said(counts, self.apply, self.rules)).chain(notes)),
        )
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
        let mut batches = Batches::new(self.calls, job, write);
        let mut walk = Walk::new(self.calls, &job.desired.location, pattern);
        while fits && let Some(page) = walk.next().await? {
            for found in page {
                match known.s3_has(&found.values) {
                    Fate::Missing => batches.make(&found.values, &found.location).await?,
                    Fate::Wrong => batches.change(&found.values, &found.location).await?,
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

/// What there is to say of partitions.
fn said(counts: Option<Counts>, apply: bool, rules: &Rules) -> Vec<String> {
    let Some(counts) = counts else { return Vec::new() };
    let plural = |n: u64| if n == 1 { "partition" } else { "partitions" };
    let mut lines = Vec::new();
    if counts.added > 0 {
        lines.push(format!("{} {} in S3 and not in Glue", counts.added, plural(counts.added)));
    }
    if counts.changed > 0 {
        lines.push(format!("{} {} not as the table", counts.changed, plural(counts.changed)));
    }
    if counts.vanished > 0 {
        let left =
            if apply && rules.mode == Mode::Direct && !rules.prune { ": left, prune is off" } else { "" };
        lines.push(format!(
            "{} {} in Glue and no longer in S3{left}",
            counts.vanished,
            plural(counts.vanished)
        ));
    }
    lines
}

/// Partitions that are collected until a call is worth it.
struct Batches<'j> {
    calls: Calls<'j>,
    job: &'j Job<'j>,
    write: bool,
    new: Vec<sdk::PartitionInput>,
    other: Vec<sdk::PartitionInput>,
    mended: u64,
    notes: Vec<String>,
}

impl<'j> Batches<'j> {
    fn new(calls: Calls<'j>, job: &'j Job<'j>, write: bool) -> Self {
        Self { calls, job, write, new: Vec::new(), other: Vec::new(), mended: 0, notes: Vec::new() }
    }

    fn input(&self, values: &[String], location: &str) -> ActivityResult<sdk::PartitionInput> {
        partition_input(values, &mended_stored(&self.job.desired, location, &Table::default()))
    }

    async fn make(&mut self, values: &[String], location: &str) -> ActivityResult<()> {
        if !self.write {
            return Ok(());
        }
        self.new.push(self.input(values, location)?);
        if self.new.len() == BATCH { self.send_new().await } else { Ok(()) }
    }

    async fn change(&mut self, values: &[String], location: &str) -> ActivityResult<()> {
        if !self.write {
            return Ok(());
        }
        self.other.push(self.input(values, location)?);
        if self.other.len() == BATCH { self.send_other().await } else { Ok(()) }
    }

    async fn send_new(&mut self) -> ActivityResult<()> {
        let mut left = std::mem::take(&mut self.new);
        for tries in 0..TRIES {
            if left.is_empty() {
                return Ok(());
            }
            let sent = left.len();
            let refused = self.calls.create_partitions(&self.job.database, &self.job.table, &left).await;
            let Some(refused) = self.answered(refused, tries).await? else { continue };
            // One that is there was made by somebody else meanwhile, or by a call whose answer was lost.
            let refused: Vec<Refused> = refused.into_iter().filter(|r| r.code != EXISTS).collect();
            self.mended += count(sent - refused.len());
            left = self.worth_another(left, refused, tries).await?;
        }
        self.give_up(&left);
        Ok(())
    }

    async fn send_other(&mut self) -> ActivityResult<()> {
        let mut left = std::mem::take(&mut self.other);
        for tries in 0..TRIES {
            if left.is_empty() {
                return Ok(());
            }
            let sent = left.len();
            let refused = self.calls.update_partitions(&self.job.database, &self.job.table, &left).await;
            let Some(refused) = self.answered(refused, tries).await? else { continue };
            self.mended += count(sent - refused.len());
            left = self.worth_another(left, refused, tries).await?;
        }
        self.give_up(&left);
        Ok(())
    }

    async fn delete(&mut self, values: &[Vec<String>]) -> ActivityResult<()> {
        let mut tries = 0;
        let refused = loop {
            let refused = self.calls.delete_partitions(&self.job.database, &self.job.table, values).await;
            if let Some(refused) = self.answered(refused, tries).await? {
                break refused;
            }
            tries += 1;
        };
        let refused: Vec<Refused> = refused.into_iter().filter(|r| r.code != NOT_FOUND).collect();
        self.mended += count(values.len() - refused.len());
        self.note(&refused);
        Ok(())
    }

    /// The answer to a call for many; `None` when it was lost and the call is to be made again.
    async fn answered(
        &self,
        answer: ActivityResult<Vec<Refused>>,
        tries: u32,
    ) -> ActivityResult<Option<Vec<Refused>>> {
        match answer {
            Ok(refused) => Ok(Some(refused)),
            Err(error) if error.class == ErrorClass::Retryable && tries + 1 < TRIES => {
                tracing::info!(%error, tries, "the partitions are sent again");
                self.calls.ctx.sleep(pause(&self.job.table, tries)).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Of what was refused, that which may be taken the next time; the rest is noted.
    async fn worth_another(
        &mut self,
        sent: Vec<sdk::PartitionInput>,
        refused: Vec<Refused>,
        tries: u32,
    ) -> ActivityResult<Vec<sdk::PartitionInput>> {
        const PASSING: [&str; 5] = [
            "InternalServiceException",
            "OperationTimeoutException",
            "ConcurrentModificationException",
            "ThrottlingException",
            "Unknown",
        ];
        let (again, lost): (Vec<Refused>, Vec<Refused>) =
            refused.into_iter().partition(|r| PASSING.contains(&r.code.as_str()));
        self.note(&lost);
        if again.is_empty() {
            return Ok(Vec::new());
        }
        self.calls.ctx.sleep(pause(&self.job.table, tries)).await?;
        Ok(sent.into_iter().filter(|input| again.iter().any(|r| r.values == input.values())).collect())
    }

    fn note(&mut self, refused: &[Refused]) {
        let line = |r: &Refused| format!("partition {}: {}: {}", r.values.join("|"), r.code, r.why);
        self.notes.extend(refused.iter().take(3).map(line));
    }

    fn give_up(&mut self, left: &[sdk::PartitionInput]) {
        if let Some(first) = left.first() {
            let more = left.len() - 1;
            self.notes.push(format!(
                "partition {} and {more} more are refused again and again",
                first.values().join("|")
            ));
        }
    }

    async fn finish(mut self) -> ActivityResult<(u64, Vec<String>)> {
        self.send_new().await?;
        self.send_other().await?;
        Ok((self.mended, self.notes))
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

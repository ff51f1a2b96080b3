//! Searches the account for what carries the marks of a run, or of any run of a store and site.
//!
//! Used at the very end of a rollback and of a teardown, to prove that nothing is left, and for the list of orphans. It
//! deletes nothing. A service the principal may not list is left out with a warning: a right that was not needed to
//! make things cannot be asked for to look for them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use dssflow_engine::activity::{
    ActivityContext, ActivityError, ActivityResult, ErrorClass, Marks, Owner, Undo,
};
use dssflow_engine::id::StepName;
use serde::{Deserialize, Serialize};

use super::error::classify;
use super::{glue_database, key_pair, launch_template, repositories, tags};
use crate::clients::AwsClients;

/// How long a final sweep waits for things that are on their way out.
pub const SWEEP_LIMIT: Duration = Duration::from_mins(5);

/// Searches again and again until nothing is found that no rule keeps, and goes on finding nothing for `quiet`: a lost
/// create can land late. What a rule keeps is named.
///
/// # Errors
/// Those of a search; and `CompensationFailed` with the list when something stays for [`SWEEP_LIMIT`].
pub(super) async fn until_clean(
    ctx: &ActivityContext,
    quiet: Duration,
    scope: Scope,
) -> ActivityResult<Undo> {
    let (clients, marks) = (AwsClients::of(ctx)?, ctx.marks());
    let started = ctx.now();
    let mut clean_since = None;
    let mut left = Box::pin(search(&clients, &marks, scope, ctx.kept())).await?;
    let mut intervals = [1, 2, 4, 8].into_iter();
    loop {
        ctx.heartbeat(&left);
        let now = ctx.now();
        if left.iter().all(|l| l.kept.is_some()) {
            let since = *clean_since.get_or_insert(now);
            if now.since(since) >= quiet {
                break;
            }
        } else {
            clean_since = None;
            if now.since(started) >= SWEEP_LIMIT {
                return Err(remains(&left));
            }
        }
        ctx.sleep(Duration::from_secs(intervals.next().unwrap_or(15))).await?;
        left = Box::pin(search(&clients, &marks, scope, ctx.kept())).await?;
    }
    if left.is_empty() {
        return Ok(Undo::NothingToDo);
    }
    let kept: Vec<_> = left.iter().map(ToString::to_string).collect();
    Ok(Undo::Kept { reason: kept.join("; ") })
}

fn remains(left: &[Leftover]) -> ActivityError {
    let names: Vec<_> = left.iter().filter(|l| l.kept.is_none()).map(ToString::to_string).collect();
    ActivityError::terminal("CompensationFailed", format!("with our marks remains: {}", names.join("; ")))
        .help("look at each, delete it by hand if nothing needs it, then `dssflow rollback RUN --retry`")
}

/// Whose things are searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those of the run that the marks name.
    Run,
    /// Those of any run of the store and site that the marks name.
    Site,
}

impl Scope {
    /// Whether a thing of this owner is searched for.
    fn has(self, owner: &Owner) -> bool {
        match owner {
            Owner::ThisRun => true,
            Owner::ThisSite(_) => self == Self::Site,
            Owner::Foreign => false,
        }
    }
}

/// A thing that carries the marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Leftover {
    /// What it is, as `ecr:repository`.
    pub kind: String,
    /// Its name, id or ARN.
    pub id: String,
    /// The run that made it, by its mark; empty when that cannot be read.
    #[serde(default)]
    pub run: String,
    /// The step that made it, by its mark; empty when that cannot be read.
    #[serde(default)]
    pub step: String,
    /// The rule by which it stays, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

impl Leftover {
    /// `tags` are all that the thing carries.
    fn new<'a>(
        kind: &str,
        id: impl Into<String>,
        tags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut left = Self {
            kind: kind.to_owned(),
            id: id.into(),
            run: String::new(),
            step: String::new(),
            kept: None,
        };
        for (key, value) in tags {
            match key {
                Marks::RUN => value.clone_into(&mut left.run),
                Marks::STEP => value.clone_into(&mut left.step),
                _ => {}
            }
        }
        left
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)?;
        self.kept.as_ref().map_or(Ok(()), |kept| write!(f, " ({kept})"))
    }
}

/// Everything that carries the marks of this run, sorted by kind and id. What a step of `kept_steps` made stays.
///
/// # Errors
/// The first error of a call, except a denied one.
pub async fn leftovers(
    clients: &AwsClients,
    marks: &Marks,
    kept_steps: &[StepName],
) -> ActivityResult<Vec<Leftover>> {
    Box::pin(search(clients, marks, Scope::Run, kept_steps)).await
}

/// Everything that carries the marks of any run of this store and site, sorted by kind and id; nothing when the marks
/// name no site. What a step of `kept_steps` made stays.
///
/// # Errors
/// The first error of a call, except a denied one.
pub async fn of_site(
    clients: &AwsClients,
    marks: &Marks,
    kept_steps: &[StepName],
) -> ActivityResult<Vec<Leftover>> {
    if marks.site.is_empty() {
        return Ok(Vec::new());
    }
    Box::pin(search(clients, marks, Scope::Site, kept_steps)).await
}

async fn search(
    clients: &AwsClients,
    marks: &Marks,
    scope: Scope,
    kept_steps: &[StepName],
) -> ActivityResult<Vec<Leftover>> {
    let mut left = Vec::new();
    left.extend(allowed("EC2", Box::pin(ec2(clients, marks, scope)).await)?);
    left.extend(allowed("EKS", Box::pin(eks(clients, marks, scope)).await)?);
    left.extend(allowed("ECR", Box::pin(ecr(clients, marks, scope)).await)?);
    left.extend(allowed("Glue", Box::pin(glue(clients, marks, scope)).await)?);
    left.extend(allowed("IAM", Box::pin(iam(clients, marks, scope)).await)?);
    left.extend(allowed("CloudFormation", Box::pin(stacks(clients, marks, scope)).await)?);
    left.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
    left.dedup();
    for thing in left.iter_mut().filter(|l| l.kept.is_none()) {
        if kept_steps.iter().any(|s| s.as_str() == thing.step) {
            thing.kept = Some(format!("of step {}, which stays", thing.step));
        }
    }
    Ok(left)
}

/// A map of tags as pairs.
fn pairs(tags: Option<&HashMap<String, String>>) -> impl Iterator<Item = (&str, &str)> {
    tags.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
}

fn allowed(service: &str, found: ActivityResult<Vec<Leftover>>) -> ActivityResult<Vec<Leftover>> {
    match found {
        Err(error) if error.class == ErrorClass::Terminal && error.code.contains("Denied") => {
            tracing::warn!(service, %error, "not searched for leftovers");
            Ok(Vec::new())
        }
        other => other,
    }
}

/// Asks by one mark, then for all tags of what was found: another store may have a run or site of the same name.
async fn ec2(clients: &AwsClients, marks: &Marks, scope: Scope) -> ActivityResult<Vec<Leftover>> {
    let (key, value) = match scope {
        Scope::Run => (Marks::RUN, &marks.run),
        Scope::Site => (Marks::SITE, &marks.site),
    };
    let by = [("key", vec![key.to_owned()]), ("value", vec![value.clone()])];
    let found: BTreeSet<String> = ec2_tags(clients, &by).await?.into_iter().map(|t| t.id).collect();
    let found: Vec<String> = found.into_iter().collect();
    let mut left = Vec::new();
    for batch in found.chunks(FILTER_VALUES) {
        let tags = ec2_tags(clients, &[("resource-id", batch.to_vec())]).await?;
        for id in batch {
            let pairs = || tags.iter().filter(|t| t.id == *id).map(|t| (t.key.as_str(), t.value.as_str()));
            if scope.has(&marks.owner_by(pairs())) {
                let kind = tags.iter().find(|t| t.id == *id).map_or("thing", |t| t.kind.as_str());
                left.push(Leftover::new(&format!("ec2:{kind}"), id, pairs()));
            }
        }
    }
    // Tags outlive what they were put on: those of an instance by an hour, those of others for a moment.
    let of_kind = |kind: &str| -> Vec<String> {
        left.iter().filter(|l| l.kind == kind).map(|l| l.id.clone()).collect()
    };
    let (instances, templates) = (of_kind("ec2:instance"), of_kind("ec2:launch-template"));
    let volumes = of_kind("ec2:volume");
    let mut ended = Vec::new();
    if !instances.is_empty() {
        ended = ended_instances(clients, &instances).await?;
    }
    if !volumes.is_empty() {
        ended.extend(ended_volumes(clients, &volumes).await?);
    }
    for id in of_kind("ec2:key-pair") {
        if !key_pair::exists(clients, &id).await? {
            ended.push(id);
        }
    }
    for id in templates {
        if !launch_template::exists(clients, &id).await? {
            ended.push(id);
        }
    }
    left.retain(|l| !ended.contains(&l.id));
    Ok(left)
}

/// EC2 takes at most so many values for one filter.
const FILTER_VALUES: usize = 200;

struct Ec2Tag {
    id: String,
    kind: String,
    key: String,
    value: String,
}

async fn ec2_tags(clients: &AwsClients, by: &[(&str, Vec<String>)]) -> ActivityResult<Vec<Ec2Tag>> {
    let filters: Vec<_> = by
        .iter()
        .map(|(name, values)| {
            aws_sdk_ec2::types::Filter::builder().name(*name).set_values(Some(values.clone())).build()
        })
        .collect();
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let (mut tags, mut next) = (Vec::new(), None);
    loop {
        let call = clients.ec2().describe_tags().set_filters(Some(filters.clone())).set_next_token(next);
        let page = call.send().await.map_err(|e| classify("ec2:DescribeTags", e))?;
        tags.extend(page.tags().iter().map(|t| Ec2Tag {
            id: text(t.resource_id()),
            kind: t.resource_type().map_or("thing", aws_sdk_ec2::types::ResourceType::as_str).to_owned(),
            key: text(t.key()),
            value: text(t.value()),
        }));
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok(tags);
        }
    }
}

async fn ended_instances(clients: &AwsClients, ids: &[String]) -> ActivityResult<Vec<String>> {
    let filter =
        aws_sdk_ec2::types::Filter::builder().name("instance-id").set_values(Some(ids.to_vec())).build();
    let answer = clients
        .ec2()
        .describe_instances()
        .filters(filter)
        .send()
        .await
        .map_err(|e| classify("ec2:DescribeInstances", e))?;
    let live: Vec<&str> = answer
        .reservations()
        .iter()
        .flat_map(aws_sdk_ec2::types::Reservation::instances)
        .filter(|i| {
            use aws_sdk_ec2::types::InstanceStateName::{ShuttingDown, Terminated};
            !matches!(i.state().and_then(|s| s.name()), Some(ShuttingDown | Terminated))
        })
        .filter_map(|i| i.instance_id())
        .collect();
    Ok(ids.iter().filter(|id| !live.contains(&id.as_str())).cloned().collect())
}

/// A disk that goes with its instance is on its way when the instance is.
async fn ended_volumes(clients: &AwsClients, ids: &[String]) -> ActivityResult<Vec<String>> {
    let filter =
        aws_sdk_ec2::types::Filter::builder().name("volume-id").set_values(Some(ids.to_vec())).build();
    let call = clients.ec2().describe_volumes().filters(filter).send().await;
    let answer = call.map_err(|e| classify("ec2:DescribeVolumes", e))?;
    let live: Vec<&str> = answer
        .volumes()
        .iter()
        .filter(|v| {
            use aws_sdk_ec2::types::VolumeState::{Deleted, Deleting};
            !matches!(v.state(), Some(Deleted | Deleting))
        })
        .filter_map(|v| v.volume_id())
        .collect();
    Ok(ids.iter().filter(|id| !live.contains(&id.as_str())).cloned().collect())
}

async fn eks(clients: &AwsClients, marks: &Marks, scope: Scope) -> ActivityResult<Vec<Leftover>> {
    let mut left = Vec::new();
    let mut next = None;
    loop {
        let page = clients
            .eks()
            .list_clusters()
            .set_next_token(next)
            .send()
            .await
            .map_err(|e| classify("eks:ListClusters", e))?;
        for name in page.clusters() {
            if let Some(cluster) = super::cluster::find(clients, name).await?
                && scope.has(&tags::owner_of_map(marks, cluster.tags()))
            {
                left.push(Leftover::new("eks:cluster", name, pairs(cluster.tags())));
            }
        }
        next = page.next_token().map(str::to_owned);
        if next.is_none() {
            return Ok(left);
        }
    }
}

async fn ecr(clients: &AwsClients, marks: &Marks, scope: Scope) -> ActivityResult<Vec<Leftover>> {
    let mut left = Vec::new();
    let mut next = None;
    loop {
        let page = clients
            .ecr()
            .describe_repositories()
            .set_next_token(next)
            .send()
            .await
            .map_err(|e| classify("ecr:DescribeRepositories", e))?;
        for repository in page.repositories() {
            let (Some(name), Some(arn)) = (repository.repository_name(), repository.repository_arn()) else {
                continue;
            };
            let tags = repositories::tags_of(clients, arn).await?;
            if scope.has(&tags::owner_of_ecr(marks, &tags)) {
                let images = repositories::images(clients, name).await?.len();
                let kept = (images > 0).then(|| format!("holds {images} images that this run did not push"));
                let pairs = tags.iter().map(|t| (t.key(), t.value()));
                left.push(Leftover { kept, ..Leftover::new("ecr:repository", name, pairs) });
            }
        }
        next = page.next_token().map(str::to_owned);
        if next.is_none() {
            return Ok(left);
        }
    }
}

async fn glue(clients: &AwsClients, marks: &Marks, scope: Scope) -> ActivityResult<Vec<Leftover>> {
    let mut left = Vec::new();
    let mut next = None;
    loop {
        let page = clients
            .glue()
            .get_databases()
            .set_next_token(next)
            .send()
            .await
            .map_err(|e| classify("glue:GetDatabases", e))?;
        for database in page.database_list() {
            if scope.has(&tags::owner_of_map(marks, database.parameters())) {
                let tables = glue_database::table_count(clients, database.name()).await?;
                let kept = (tables > 0).then(|| glue_database::keep_reason(tables));
                let pairs = pairs(database.parameters());
                left.push(Leftover { kept, ..Leftover::new("glue:database", database.name(), pairs) });
            }
        }
        next = page.next_token().map(str::to_owned);
        if next.is_none() {
            return Ok(left);
        }
    }
}

/// IAM cannot be searched by tag: the names of ours begin with [`tags::NAME_PREFIX`], so only those are asked.
async fn iam(clients: &AwsClients, marks: &Marks, scope: Scope) -> ActivityResult<Vec<Leftover>> {
    let mut left = Vec::new();
    let mut next = None;
    loop {
        let page = clients
            .iam()
            .list_roles()
            .set_marker(next)
            .send()
            .await
            .map_err(|e| classify("iam:ListRoles", e))?;
        for role in page.roles().iter().filter(|r| r.role_name().starts_with(tags::NAME_PREFIX)) {
            if let Some(role) = super::role::find(clients, role.role_name()).await?
                && scope.has(&tags::owner_of_iam(marks, role.tags()))
            {
                let pairs = role.tags().iter().map(|t| (t.key(), t.value()));
                left.push(Leftover::new("iam:role", role.role_name(), pairs));
            }
        }
        next = page.marker().filter(|_| page.is_truncated()).map(str::to_owned);
        if next.is_none() {
            return Ok(left);
        }
    }
}

async fn stacks(clients: &AwsClients, marks: &Marks, scope: Scope) -> ActivityResult<Vec<Leftover>> {
    let stacks = super::eksctl::all_stacks(clients).await?;
    let ours = stacks.iter().filter(|s| scope.has(&s.owner(marks)));
    Ok(ours
        .map(|s| {
            let tags = s.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            Leftover::new("cloudformation:stack", &s.name, tags)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_service_is_left_out_and_others_are_not() {
        assert_eq!(allowed("x", Err(ActivityError::terminal("AccessDeniedException", "no"))), Ok(Vec::new()));
        assert!(allowed("x", Err(ActivityError::retryable("Timeout", "no"))).is_err());
        assert!(allowed("x", Err(ActivityError::terminal("ValidationException", "no"))).is_err());
    }

    #[test]
    fn a_leftover_reads_well() {
        let mut left = Leftover::new("glue:database", "sales", [(Marks::STEP, "glue"), (Marks::RUN, "r1")]);
        assert_eq!((left.run.as_str(), left.step.as_str()), ("r1", "glue"));
        assert_eq!(left.to_string(), "glue:database sales");
        left.kept = Some("holds 3 tables".into());
        assert_eq!(left.to_string(), "glue:database sales (holds 3 tables)");
    }
}

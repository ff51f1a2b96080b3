//! Athena: results can be written where the connections say (P28), and who wins where the workgroup says otherwise
//! (P29).
//!
//! The site's credentials are not used to write anything here: whether results can be written is asked of IAM. The
//! run's own steps query through DSS, which writes.

use std::collections::BTreeSet;

use aws_sdk_athena::types::{
    ManagedQueryResultsConfiguration, WorkGroup, WorkGroupConfiguration, WorkGroupState,
};
use dssflow_engine::activity::{ActivityError, ActivityResult};
use futures::future::join_all;

use super::Notes;
use super::look::Look;
use super::permissions::may_write;
use super::spec::{AthenaSpec, ConnectionSpec};
use crate::aws::bucket::{BucketOutput, check_bucket};
use crate::aws::error::classify;
use crate::clients::AwsClients;

/// A workgroup as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    enabled: bool,
    /// Whether its settings win over a client's.
    enforced: bool,
    location: Option<String>,
    encryption: Option<String>,
    /// Whether Athena keeps the results itself.
    managed: bool,
}

/// Reads a workgroup; `None` when there is none of that name.
async fn read(clients: &AwsClients, name: &str) -> ActivityResult<Option<Group>> {
    let call = clients.athena().get_work_group().work_group(name).send().await;
    match call.map_err(|e| classify("athena:GetWorkGroup", e)) {
        Ok(answer) => Ok(answer.work_group().map(group)),
        Err(error) if error.code == "InvalidRequestException" && error.message.contains("not found") => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn group(found: &WorkGroup) -> Group {
    let settings = found.configuration();
    let results = settings.and_then(|c| c.result_configuration());
    Group {
        enabled: found.state() != Some(&WorkGroupState::Disabled),
        enforced: settings
            .and_then(WorkGroupConfiguration::enforce_work_group_configuration)
            .unwrap_or(false),
        location: results.and_then(|r| r.output_location()).map(str::to_owned).filter(|l| !l.is_empty()),
        encryption: results.and_then(|r| r.encryption_configuration()).map(|e| {
            let key = e.kms_key().map(|k| format!(" with {k}")).unwrap_or_default();
            format!("{}{key}", e.encryption_option().as_str())
        }),
        managed: settings
            .and_then(|c| c.managed_query_results_configuration())
            .is_some_and(ManagedQueryResultsConfiguration::enabled),
    }
}

/// The Athena pairs of a site.
fn pairs(look: &Look) -> impl Iterator<Item = (&ConnectionSpec, &AthenaSpec)> {
    look.spec.connections.iter().filter_map(|c| Some((c, c.athena.as_ref()?)))
}

/// Each workgroup of the site, asked once.
async fn groups(look: &Look) -> Vec<(&str, ActivityResult<Option<Group>>)> {
    let names: BTreeSet<&str> = pairs(look).map(|(_, athena)| athena.workgroup.as_str()).collect();
    join_all(names.into_iter().map(|name| async move { (name, Box::pin(read(&look.clients, name)).await) }))
        .await
}

/// Where results of a pair go in truth.
fn effective(athena: &AthenaSpec, group: &Group) -> Option<String> {
    if group.managed {
        return None;
    }
    let own = Some(athena.output_location.clone()).filter(|l| !l.is_empty());
    if group.enforced { group.location.clone() } else { own.or_else(|| group.location.clone()) }
}

/// P28: the results of every pair have a place that can be written.
pub(super) async fn results(look: &Look, notes: &mut Notes) {
    let groups = groups(look).await;
    let asked = pairs(look).map(|(connection, athena)| {
        let answer = groups.iter().find(|(name, _)| *name == athena.workgroup).map(|(_, answer)| answer);
        async move {
            let Some(Ok(Some(group))) = answer else { return (connection, athena, answer, None) };
            let Some(location) = effective(athena, group) else { return (connection, athena, answer, None) };
            let bucket = bucket_of(&location).to_owned();
            let (place, right) = tokio::join!(
                Box::pin(check_bucket(&look.clients, &bucket)),
                Box::pin(may_write(look, &connection.credentials, &location)),
            );
            (connection, athena, answer, Some((location, place, right)))
        }
    });
    let asked = join_all(asked).await;
    if asked.is_empty() {
        return notes.seen("the site has no Athena connection");
    }
    for (connection, athena, answer, place) in asked {
        match (answer, place) {
            (Some(Err(error)), _) => notes.unanswered(&athena.workgroup, error),
            (Some(Ok(group)), None) => judge_group(athena, group.as_ref(), notes),
            (_, Some((location, place, right))) => {
                if let Some(Ok(Some(group))) = answer
                    && !group.enabled
                {
                    judge_group(athena, Some(group), notes);
                }
                judge_place(&look.spec.region, athena, &location, place, notes);
                judge_right(&connection.name, &location, right, notes);
            }
            (None, None) => {}
        }
    }
}

fn bucket_of(location: &str) -> &str {
    let rest = location.strip_prefix("s3://").unwrap_or(location);
    rest.split('/').next().unwrap_or(rest)
}

fn judge_group(athena: &AthenaSpec, group: Option<&Group>, notes: &mut Notes) {
    let name = &athena.workgroup;
    match group {
        None => notes.error(
            name,
            format!("there is no Athena workgroup {name}, which {} names (\"WorkGroup is not found\")", athena.name),
            format!("`aws athena create-work-group --name {name}`, or correct connections[].athena.workgroup"),
        ),
        Some(group) if !group.enabled => notes.error(
            name,
            format!("workgroup {name} is disabled: queries of {} would be refused", athena.name),
            format!("`aws athena update-work-group --work-group {name} --state ENABLED`"),
        ),
        Some(group) if group.managed => notes.seen(format!("Athena keeps the results of workgroup {name} itself")),
        Some(_) => notes.error(
            name,
            format!("workgroup {name} enforces its settings and names no place for results (\"Unable to verify/create output bucket\")"),
            format!("`aws athena update-work-group --work-group {name} --configuration-updates 'ResultConfigurationUpdates={{OutputLocation=s3://BUCKET/PATH/}}'`"),
        ),
    }
}

fn judge_place(
    region: &str,
    athena: &AthenaSpec,
    location: &str,
    place: ActivityResult<BucketOutput>,
    notes: &mut Notes,
) {
    match place {
        Err(error) if error.code == "BucketNotFound" => notes.error(
            &athena.name,
            format!("results would go to {location}, whose bucket is not there (\"Unable to verify/create output bucket\")"),
            "make the bucket, or correct output_location",
        ),
        Err(error) => notes.unanswered(&athena.name, &error),
        Ok(found) => match found.region.as_deref() {
            Some(other) if other != region => notes.error(
                &athena.name,
                format!("results would go to {location}, which is in {other}; Athena in {region} refuses that"),
                format!("name a bucket in {region}"),
            ),
            _ => notes.seen(format!("results of {} go to {location}", athena.name)),
        },
    }
}

fn judge_right(
    connection: &str,
    location: &str,
    right: Result<Vec<String>, ActivityError>,
    notes: &mut Notes,
) {
    match right {
        Ok(denied) if denied.is_empty() => {}
        Ok(denied) => notes.error(
            connection,
            format!("its credentials may not do {} on {location}: queries would fail with \"Unable to verify/create output bucket\"", denied.join(", ")),
            format!("allow s3:GetBucketLocation and s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, s3:AbortMultipartUpload on {location}*"),
        ),
        Err(error) => notes.unanswered(format!("{connection} on {location}"), &error),
    }
}

/// P29: where the workgroup's settings win over the connection's.
pub(super) async fn settings(look: &Look, notes: &mut Notes) {
    let groups = groups(look).await;
    if groups.is_empty() {
        return notes.seen("the site has no Athena connection");
    }
    for (_, athena) in pairs(look) {
        match groups.iter().find(|(name, _)| *name == athena.workgroup) {
            Some((_, Ok(Some(group)))) => judge_settings(athena, group, notes),
            Some((_, Err(error))) => notes.unanswered(&athena.workgroup, error),
            // P28 tells that it is not there.
            _ => {}
        }
    }
}

fn judge_settings(athena: &AthenaSpec, group: &Group, notes: &mut Notes) {
    let name = &athena.workgroup;
    if !group.enforced {
        return notes
            .seen(format!("{}: the connection's settings win over those of workgroup {name}", athena.name));
    }
    let plain = |location: &str| location.trim_end_matches('/').to_owned();
    let mut differs = Vec::new();
    if let Some(location) = &group.location
        && plain(location) != plain(&athena.output_location)
    {
        differs.push(format!("results go to {location} and not to {}", athena.output_location));
    }
    if let Some(encryption) = &group.encryption {
        differs.push(format!("results are encrypted by {encryption}, whatever the connection says"));
    }
    if differs.is_empty() {
        return notes.seen(format!("{}: workgroup {name} wins and says the same", athena.name));
    }
    notes.warning(
        &athena.name,
        format!("workgroup {name} enforces its settings and wins: {}", differs.join("; ")),
        format!(
            "give the connection the same settings, or `aws athena update-work-group --work-group {name} \
             --configuration-updates EnforceWorkGroupConfiguration=false`; with a KMS key its policy must allow the connection's principal"
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::super::{CHECKS, Finding, Severity};
    use super::*;

    fn pair() -> AthenaSpec {
        AthenaSpec {
            name: "athena-sales".into(),
            workgroup: "primary".into(),
            output_location: "s3://acme/results/".into(),
        }
    }

    fn open() -> Group {
        Group { enabled: true, ..Group::default() }
    }

    fn found(judge: impl FnOnce(&mut Notes)) -> Option<Finding> {
        let mut notes = Notes::of(&CHECKS[0]);
        judge(&mut notes);
        notes.findings.pop()
    }

    #[test]
    fn p28_groups_and_places_that_cannot_take_results() {
        let missing = found(|n| judge_group(&pair(), None, n)).unwrap();
        assert!(missing.evidence.contains("WorkGroup is not found") && missing.severity == Severity::Error);
        let disabled = found(|n| judge_group(&pair(), Some(&Group::default()), n)).unwrap();
        assert!(disabled.fix.contains("--state ENABLED"), "{disabled:?}");
        let place = |answer| found(|n| judge_place("eu-west-1", &pair(), "s3://acme/results/", answer, n));
        let there = |region: &str| BucketOutput {
            bucket: "acme".into(),
            region: Some(region.into()),
            accessible: true,
        };
        assert_eq!(place(Ok(there("eu-west-1"))), None);
        assert!(place(Ok(there("us-east-1"))).unwrap().evidence.contains("in us-east-1"));
        let gone = place(Err(ActivityError::terminal("BucketNotFound", "x"))).unwrap();
        assert!(gone.evidence.contains("Unable to verify/create output bucket"), "{gone:?}");
        let denied =
            found(|n| judge_right("s3-sales", "s3://acme/", Ok(vec!["s3:PutObject".into()]), n)).unwrap();
        assert!(denied.evidence.contains("s3:PutObject") && denied.severity == Severity::Error);
        let enforced = Group { enforced: true, ..open() };
        assert_eq!(effective(&pair(), &enforced), None);
        assert!(
            found(|n| judge_group(&pair(), Some(&enforced), n)).unwrap().evidence.contains("names no place")
        );
        assert_eq!(effective(&pair(), &open()).as_deref(), Some("s3://acme/results/"));
    }

    #[test]
    fn p29_a_workgroup_that_enforces_wins_and_says_so() {
        assert_eq!(found(|n| judge_settings(&pair(), &open(), n)), None);
        let same = Group { enforced: true, location: Some("s3://acme/results".into()), ..open() };
        assert_eq!(found(|n| judge_settings(&pair(), &same, n)), None);
        let other = Group {
            enforced: true,
            location: Some("s3://central/".into()),
            encryption: Some("SSE_KMS with arn:key".into()),
            ..open()
        };
        let told = found(|n| judge_settings(&pair(), &other, n)).unwrap();
        assert_eq!(told.severity, Severity::Warning);
        assert!(told.evidence.contains("s3://central/ and not to s3://acme/results/"), "{told:?}");
        assert!(told.evidence.contains("SSE_KMS with arn:key"), "{told:?}");
    }
}

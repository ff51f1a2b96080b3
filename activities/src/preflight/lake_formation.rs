//! P26: Lake Formation lets the run make its Glue databases, where it has taken the place of IAM.
//!
//! An account starts with IAM in charge: the group `IAM_ALLOWED_PRINCIPALS` holds every right by default. Once somebody
//! takes that away, rights in IAM alone do nothing for the catalog.
//!
//! Page: <https://docs.aws.amazon.com/lake-formation/latest/dg/change-settings.html>

use aws_sdk_lakeformation::types::{
    CatalogResource, DataLakePrincipal, DataLakeSettings, Permission, Resource,
};
use dssflow_engine::activity::ActivityResult;

use super::Notes;
use super::look::Look;
use super::spec::Spec;
use crate::aws::error::classify;
use crate::clients::AwsClients;

/// The group that stands for "as IAM says".
const IAM: &str = "IAM_ALLOWED_PRINCIPALS";

/// Who may do what with the catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Grants {
    /// Administrators of the data lake.
    admins: Vec<String>,
    /// Who gets rights on a new database, from the settings.
    defaults: Vec<String>,
    /// Who may make databases, from the catalog's permissions.
    creators: Vec<String>,
}

fn name(principal: Option<&DataLakePrincipal>) -> Option<String> {
    principal.and_then(DataLakePrincipal::data_lake_principal_identifier).map(str::to_owned)
}

async fn read(clients: &AwsClients) -> ActivityResult<Grants> {
    let client = clients.lakeformation();
    let settings = async {
        let call = client.get_data_lake_settings().send().await;
        call.map_err(|e| classify("lakeformation:GetDataLakeSettings", e))
    };
    let (settings, creators) = tokio::try_join!(settings, creators(clients))?;
    let settings = settings.data_lake_settings();
    let admins = settings.map(DataLakeSettings::data_lake_admins).unwrap_or_default();
    let defaults = settings.map(DataLakeSettings::create_database_default_permissions).unwrap_or_default();
    Ok(Grants {
        admins: admins.iter().filter_map(|p| name(Some(p))).collect(),
        defaults: defaults
            .iter()
            .filter(|d| !d.permissions().is_empty())
            .filter_map(|d| name(d.principal()))
            .collect(),
        creators,
    })
}

async fn creators(clients: &AwsClients) -> ActivityResult<Vec<String>> {
    let catalog = Resource::builder().catalog(CatalogResource::builder().build()).build();
    let (mut creators, mut next) = (Vec::new(), None);
    loop {
        let call = clients.lakeformation().list_permissions().resource(catalog.clone()).set_next_token(next);
        let page = call.send().await.map_err(|e| classify("lakeformation:ListPermissions", e))?;
        let may = |p: &Permission| matches!(p, Permission::CreateDatabase | Permission::All);
        let entries = page.principal_resource_permissions().iter();
        creators
            .extend(entries.filter(|e| e.permissions().iter().any(may)).filter_map(|e| name(e.principal())));
        next = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok(creators);
        }
    }
}

/// P26.
pub(super) async fn rights(look: &Look, notes: &mut Notes) {
    if look.spec.connections.is_empty() {
        return notes.seen("the site has no connection, hence no Glue database");
    }
    let caller = match &look.caller().await.identity {
        Ok(identity) => look.policy_source(&identity.principal_arn).await,
        Err(error) => return notes.unanswered("principal", error),
    };
    let grants = match Box::pin(read(&look.clients)).await {
        Ok(grants) => grants,
        Err(error) => return notes.unanswered("Lake Formation", &error),
    };
    let mut readers = Vec::new();
    for connection in &look.spec.connections {
        if let Some(Ok(principal)) = look.principal(&connection.credentials).await {
            readers.push((connection.glue_database.clone(), look.policy_source(&principal.arn).await));
        }
    }
    judge(&look.spec, &grants, &caller, &readers, notes);
}

fn judge(spec: &Spec, grants: &Grants, caller: &str, readers: &[(String, String)], notes: &mut Notes) {
    let by_default = grants.defaults.iter().any(|p| p == IAM);
    let has = |list: &[String], who: &str| list.iter().any(|p| p == who);
    let may = has(&grants.creators, IAM)
        || has(&grants.creators, caller)
        || has(&grants.admins, caller)
        // An account that nobody has set up lists no grant at all.
        || (by_default && grants.creators.is_empty());
    if !may {
        notes.error(
            "Lake Formation",
            format!(
                "{caller} may not make databases: Lake Formation, not IAM, guards the catalog here and would say \
                 \"Insufficient Lake Formation permission(s): Required Create Database on Catalog\""
            ),
            format!(
                "IAM rights alone do not do: `aws lakeformation grant-permissions --region {} --principal \
                 DataLakePrincipalIdentifier={caller} --resource '{{\"Catalog\":{{}}}}' --permissions CREATE_DATABASE`",
                spec.region
            ),
        );
    }
    if by_default {
        if may {
            notes.seen("IAM alone decides about new databases");
        }
        return;
    }
    let outside: Vec<&(String, String)> =
        readers.iter().filter(|(_, arn)| arn != caller && !has(&grants.admins, arn)).collect();
    if outside.is_empty() {
        if may {
            notes.seen(format!("{caller} may make databases by Lake Formation"));
        }
        return;
    }
    let grant = |(database, arn): &&(String, String)| {
        format!(
            "`aws lakeformation grant-permissions --region {} --principal DataLakePrincipalIdentifier={arn} --resource \
             '{{\"Database\":{{\"Name\":\"{database}\"}}}}' --permissions DESCRIBE CREATE_TABLE ALTER`",
            spec.region
        )
    };
    notes.warning(
        "Lake Formation",
        "new databases give nobody but their maker rights: the connections' principals could not synchronise or query".to_owned(),
        format!("once the databases are made: {}", outside.iter().map(grant).collect::<Vec<_>>().join("; ")),
    );
}

#[cfg(test)]
mod tests {
    use super::super::{CHECKS, Finding, Severity};
    use super::*;

    fn found(grants: &Grants) -> Vec<Finding> {
        let spec = Spec { region: "eu-west-1".into(), ..Spec::default() };
        let mut notes = Notes::of(&CHECKS[0]);
        judge(&spec, grants, "arn:me", &[("sales".into(), "arn:reader".into())], &mut notes);
        notes.findings
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn p26_iam_in_charge_is_fine() {
        let fresh = Grants { defaults: list(&[IAM]), creators: list(&[IAM]), ..Grants::default() };
        assert_eq!(found(&fresh), []);
        assert_eq!(found(&Grants { creators: Vec::new(), ..fresh }), []);
    }

    #[test]
    fn p26_lake_formation_in_charge_names_the_grant() {
        let told = found(&Grants::default());
        assert_eq!((told.len(), told[0].severity), (2, Severity::Error), "{told:?}");
        assert!(told[0].evidence.contains("Required Create Database on Catalog"), "{told:?}");
        assert!(
            told[0].fix.contains(
                "grant-permissions --region eu-west-1 --principal DataLakePrincipalIdentifier=arn:me"
            )
        );
        assert!(told[0].fix.contains("'{\"Catalog\":{}}'"), "{told:?}");
        assert_eq!(told[1].severity, Severity::Warning);
        assert!(told[1].fix.contains("DataLakePrincipalIdentifier=arn:reader"), "{told:?}");
        let granted =
            Grants { creators: list(&["arn:me"]), admins: list(&["arn:reader"]), ..Grants::default() };
        assert_eq!(found(&granted), []);
    }
}

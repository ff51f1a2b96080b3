//! What the AWS principals of a site must be allowed to do: dssflow's own, the service user, and the key of each S3
//! connection. Three policies that have nothing in common but the site.
//!
//! Pure: derived from the bootstrap's graph and from what each activity declares
//! ([`dssflow_activities::aws::permissions`]). That dssflow's own policy is what dssflow calls is tested against the
//! record of the sandbox. What the service user's tools call (eksctl, docker, DSS) is not ours to record: its policy
//! follows what Dataiku and eksctl publish, and so do the connections'.
//!
//! It asks AWS nothing: whether a principal has these rights is the preflight's business.

mod connection;
mod documents;
mod own;
mod policy;
mod resync;
mod service_user;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dssflow_activities::aws::tags::partition;
use serde::Serialize;

pub use documents::{Document, MAX_ATTACHED_POLICIES, Theme, documents};
pub use own::{calls, needs_of};
pub use policy::{MANAGED_POLICY_LIMIT, policy, size};
pub use resync::resync_needs;

use crate::site::{Credentials, Site};

/// Operator, then condition key, then values, as in an IAM statement.
pub type Conditions = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// Who needs a right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum Principal {
    /// What dssflow itself acts as.
    Dssflow,
    /// What dssflow begins with, when its own credentials come from AWS: a role that is assumed, secrets that are read.
    Source,
    /// The service user's credentials, which make clusters and push images.
    ServiceUser,
    /// The credentials of the S3 connection with this name.
    Connection(String),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dssflow => f.write_str("dssflow"),
            Self::Source => f.write_str("source"),
            Self::ServiceUser => f.write_str("service-user"),
            Self::Connection(name) => write!(f, "connection:{name}"),
        }
    }
}

/// A right that somebody needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Permission {
    /// Who needs it.
    pub principal: Principal,
    /// IAM actions, as `eks:CreateCluster`; sorted.
    pub actions: Vec<String>,
    /// ARNs, with `*` where the name is not known before, or `*` alone.
    pub resources: Vec<String>,
    /// Conditions under which it is enough.
    pub conditions: Conditions,
    /// What it is for.
    pub why: String,
}

/// Everything that the principals of a site need, in a fixed order.
///
/// A site whose graph cannot be made (`protect` or `adopt` name no step) has the same needs; such names are told
/// elsewhere.
pub fn needed(site: &Site) -> Vec<Permission> {
    let mut all = own::needed(site);
    all.extend(service_user::needed(site));
    all.extend(site.connections.iter().flat_map(|c| connection::needed(site, c)));
    all.sort();
    all.dedup();
    all
}

/// What one of them needs.
pub fn needed_by(site: &Site, principal: &Principal) -> Vec<Permission> {
    needed(site).into_iter().filter(|p| p.principal == *principal).collect()
}

/// The principals of a site, dssflow's own first.
pub fn principals(site: &Site) -> Vec<Principal> {
    let found: BTreeSet<Principal> = needed(site).into_iter().map(|p| p.principal).collect();
    found.into_iter().collect()
}

/// The policies of all principals of a site, dssflow's own first, each as documents that IAM takes.
pub fn policies(site: &Site) -> Vec<(Principal, Vec<Document>)> {
    let mut of_principal: BTreeMap<Principal, Vec<Permission>> = BTreeMap::new();
    for permission in needed(site) {
        of_principal.entry(permission.principal.clone()).or_default().push(permission);
    }
    let all = of_principal.into_iter();
    all.map(|(principal, needed)| (principal.clone(), documents(&principal, &needed))).collect()
}

/// Names ARNs of a site.
#[derive(Debug, Clone, Copy)]
struct Arns<'a> {
    region: &'a str,
    account: &'a str,
}

impl<'a> Arns<'a> {
    fn of(site: &'a Site) -> Self {
        Self { region: &site.region, account: &site.expected_account }
    }

    fn partition(self) -> &'static str {
        partition(self.region)
    }

    /// An ARN with region and account.
    fn regional(self, service: &str, resource: &str) -> String {
        let (region, account) = (self.region, self.account);
        format!("arn:{}:{service}:{region}:{account}:{resource}", self.partition())
    }

    /// An ARN of IAM, which knows no region.
    fn iam(self, resource: &str) -> String {
        format!("arn:{}:iam::{}:{resource}", self.partition(), self.account)
    }

    /// An ARN of S3, which knows neither.
    fn s3(self, resource: &str) -> String {
        format!("arn:{}:s3:::{resource}", self.partition())
    }

    /// A Glue database with all in it; Glue asks for the catalog as well.
    fn glue(self, database: &str) -> Vec<String> {
        vec![
            self.regional("glue", "catalog"),
            self.regional("glue", &format!("database/{database}")),
            self.regional("glue", &format!("table/{database}/*")),
            self.regional("glue", &format!("userDefinedFunction/{database}/*")),
        ]
    }
}

/// A condition with one key.
fn condition(operator: &str, key: &str, values: &[&str]) -> Conditions {
    let values = values.iter().map(|v| (*v).to_owned()).collect();
    Conditions::from([(operator.to_owned(), BTreeMap::from([(key.to_owned(), values)]))])
}

/// Actions of one service.
fn actions(service: &str, names: &[&str]) -> Vec<String> {
    let mut actions: Vec<String> = names.iter().map(|name| format!("{service}:{name}")).collect();
    actions.sort();
    actions
}

/// The role of a set of credentials, when it is one.
fn role_of<'a>(site: &'a Site, set: &str) -> Option<&'a str> {
    match site.credentials.get(set)? {
        Credentials::AssumeRole { role_arn, .. } => Some(role_arn),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

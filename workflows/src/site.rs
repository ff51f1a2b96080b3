//! `site.yaml`: reading it, checking it and telling everything that is wrong with it in one go.
//!
//! The file is read into a tree that knows its lines, compared with the JSON Schema of [`Site`], checked for what
//! must fit together, and only then turned into a [`Site`]. Nothing here looks at the world: that a subnet exists
//! is the preflight's business. No value of a secret can stand in a site, and none is ever repeated in a problem.

pub(crate) mod formats;
mod node;
mod rules;
mod shape;
mod types;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use dssflow_activities::credentials::CredentialSource;
use serde::de::DeserializeOwned;

use dssflow_activities::wildcard::matches;

pub(crate) use shape::{FILL_IN, nearest};
pub use types::*;

/// The most a site file may have, in bytes.
pub const MAX_SITE_BYTES: usize = 1024 * 1024;

/// The codes of [`SiteProblem::code`]; each has a page under `docs/errors`.
pub mod codes {
    /// The file is no YAML, is too large, or nests too deep.
    pub const UNREADABLE: &str = "DF0101";
    /// A key that no site has.
    pub const UNKNOWN_KEY: &str = "DF0102";
    /// A key that every site, or this one, must have.
    pub const MISSING_KEY: &str = "DF0103";
    /// A value of the wrong type, form or range.
    pub const WRONG_VALUE: &str = "DF0104";
    /// A value where a reference to a secret belongs.
    pub const PLAINTEXT_SECRET: &str = "DF0105";
    /// A name that is not defined in the file.
    pub const UNKNOWN_REFERENCE: &str = "DF0106";
    /// A key or name that stands there twice.
    pub const DUPLICATE: &str = "DF0107";
    /// A cluster with fewer than two subnets.
    pub const TOO_FEW_SUBNETS: &str = "DF0108";
    /// A place that `init` left open.
    pub const UNFILLED: &str = "DF0109";
    /// A combination that DSS or AWS cannot serve.
    pub const UNSUPPORTED: &str = "DF0110";
    /// Credentials that are to be private serve two purposes.
    pub const SHARED_CREDENTIALS: &str = "DF0160";

    /// All of them, each with its title.
    pub const ALL: [(&str, &str); 11] = [
        (UNREADABLE, "the site file cannot be read"),
        (UNKNOWN_KEY, "unknown key in the site file"),
        (MISSING_KEY, "missing key in the site file"),
        (WRONG_VALUE, "wrong value in the site file"),
        (PLAINTEXT_SECRET, "a secret stands in the site file"),
        (UNKNOWN_REFERENCE, "the site file refers to something it does not define"),
        (DUPLICATE, "something stands in the site file twice"),
        (TOO_FEW_SUBNETS, "the cluster has fewer than two subnets"),
        (UNFILLED, "the site file is not filled in"),
        (UNSUPPORTED, "the site file asks for what DSS or AWS cannot do"),
        (SHARED_CREDENTIALS, "private credentials are given to others as well"),
    ];
}

/// One thing that is wrong with a site file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SiteProblem {
    /// One of [`codes`].
    pub code: &'static str,
    /// Where, as `connections[1].credentials`; empty for the file as a whole.
    pub path: String,
    /// The line, from 1, where it is known.
    pub line: Option<u32>,
    /// What is wrong, a fragment that follows the path.
    pub message: String,
    /// What mends it.
    pub help: String,
}

impl fmt::Display for SiteProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] ", self.code)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        self.line.map_or(Ok(()), |line| write!(f, " (line {line})"))
    }
}

/// Everything that is wrong with a site file, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SiteErrors {
    /// What people call the file.
    pub source_name: String,
    /// What is wrong.
    pub problems: Vec<SiteProblem>,
}

impl SiteErrors {
    fn new(source_name: &str, mut problems: Vec<SiteProblem>) -> Self {
        problems.sort_by_key(|p| p.line.unwrap_or(u32::MAX));
        Self { source_name: source_name.to_owned(), problems }
    }

    pub(crate) fn one(source_name: &str, problem: SiteProblem) -> Self {
        Self { source_name: source_name.to_owned(), problems: vec![problem] }
    }
}

impl fmt::Display for SiteErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "{} has {count} problem{}", self.source_name, if count == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            write!(f, "\n  {problem}\n    help: {}", problem.help)?;
        }
        Ok(())
    }
}

/// Reads and checks a site file; `source_name` is what people call it.
///
/// # Errors
/// Everything that is wrong with it, not only the first.
pub fn parse(text: &str, source_name: &str) -> Result<Site, SiteErrors> {
    read(text, source_name, "bootstrap", &SCHEMA, rules::check)
}

/// What must fit together: the file as JSON, the lines of its paths, and where problems go.
type Rules = fn(&serde_json::Value, &BTreeMap<String, u32>, &mut Vec<SiteProblem>);

/// Reads a file of the shape that `schema` tells, checks it by `rules`, and turns it into its type.
pub(crate) fn read<T: DeserializeOwned>(
    text: &str,
    source_name: &str,
    workflow: &str,
    schema: &serde_json::Value,
    rules: Rules,
) -> Result<T, SiteErrors> {
    let unreadable = |line, message: String, help: &str| {
        let code = codes::UNREADABLE;
        SiteErrors::one(
            source_name,
            SiteProblem { code, path: String::new(), line, message, help: help.to_owned() },
        )
    };
    if text.len() > MAX_SITE_BYTES {
        let message = format!("has {} bytes, at most {MAX_SITE_BYTES} are read", text.len());
        return Err(unreadable(None, message, "a site file is a few hundred lines; is this the right file?"));
    }
    if text.trim().is_empty() {
        return Err(unreadable(
            None,
            "is empty".to_owned(),
            "`dssflow init bootstrap -o site.yaml` writes one to start from",
        ));
    }
    let root = node::read(text)
        .map_err(|e| unreadable(e.line, e.message, "mend the YAML; nothing else has been checked yet"))?;
    let mut shape = shape::check(&root, schema);
    rules(&shape.value, &shape.lines, &mut shape.problems);
    if !shape.problems.is_empty() {
        return Err(SiteErrors::new(source_name, shape.problems));
    }
    serde_json::from_value(shape.value).map_err(|error| {
        let (code, help) =
            (codes::WRONG_VALUE, format!("compare the file with `dssflow workflows schema {workflow}`"));
        SiteErrors::one(
            source_name,
            SiteProblem { code, path: String::new(), line: None, message: error.to_string(), help },
        )
    })
}

static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(schema);

/// The JSON Schema of a site file, for editors and for [`parse`].
///
/// # Panics
/// Never: the schema of a type is plain data.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Site);
    schema.insert("title".to_owned(), "dssflow site".into());
    serde_json::to_value(schema).expect("a schema is plain data")
}

impl Site {
    /// Whether the step of this name may take what it finds and no run of the site made.
    pub fn adopts(&self, step: &str) -> bool {
        self.adopt.iter().any(|pattern| matches(pattern, step))
    }

    /// The image registry's host.
    pub fn registry(&self) -> String {
        let default = || format!("{}.dkr.ecr.{}.{}", self.expected_account, self.region, self.dns_suffix());
        self.ecr.registry.clone().unwrap_or_else(default)
    }

    /// The registry with the prefix, as DSS wants it: no scheme, no slash at the end.
    pub fn registry_url(&self) -> String {
        match &self.ecr.prefix {
            Some(prefix) => format!("{}/{prefix}", self.registry()),
            None => self.registry(),
        }
    }

    /// Where the credentials of the named set come from; `None` when there is no such set, or a role's source leads back
    /// to it.
    pub fn credential_source(&self, name: &str) -> Option<CredentialSource> {
        source_at(&self.credentials, name, self.credentials.len())
    }

    /// The URL of DSS: `dss.url`, or what it is on the host itself. Over ssh the latter is reached through a forward.
    pub fn dss_url(&self) -> String {
        self.dss.url.clone().unwrap_or_else(|| format!("http://127.0.0.1:{}", self.dss.port))
    }

    /// The directory the kit unpacks to.
    pub fn kit_dir(&self) -> String {
        format!("{}/dataiku-dss-{}", self.dss.install_dir.trim_end_matches('/'), self.dss.version)
    }

    /// The tag `dssadmin` gives the base images: it carries the version, so that an upgrade means new images.
    pub fn image_tag(&self) -> String {
        format!("dss-{}", self.dss.version)
    }

    /// The major version of DSS.
    pub fn dss_major(&self) -> u32 {
        let first = self.dss.version.split('.').next().and_then(|n| n.parse().ok());
        self.dss.major.or(first).unwrap_or(14)
    }

    /// The S3 connection whose credentials DSS uses for Glue.
    pub fn glue_connection(&self) -> Option<&Connection> {
        match &self.glue.connection {
            Some(name) => self.connections.iter().find(|c| c.name == *name),
            None => self.connections.first(),
        }
    }

    /// The S3 connection a smoke test works on: the first with a pair, else the first.
    pub fn smoke_connection(&self) -> Option<&Connection> {
        self.connections.iter().find(|c| c.athena.is_some()).or(self.connections.first())
    }

    /// The partition's DNS suffix.
    fn dns_suffix(&self) -> &'static str {
        if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
    }
}

/// Where the set of that name gets its credentials from; `None` when it, or a set it builds on, is not there.
pub(crate) fn source_at(
    sets: &BTreeMap<String, Credentials>,
    name: &str,
    deep: usize,
) -> Option<CredentialSource> {
    Some(match sets.get(name)? {
        Credentials::Environment {} => CredentialSource::Environment,
        Credentials::InstanceRole {} => CredentialSource::InstanceRole,
        Credentials::Profile { profile } => CredentialSource::Profile(profile.clone()),
        Credentials::Static { access_key_id, secret_access_key, session_token } => CredentialSource::Static {
            access_key_id: access_key_id.clone(),
            secret_access_key: secret_access_key.clone(),
            session_token: session_token.clone(),
        },
        Credentials::AssumeRole { role_arn, source, session_name, external_id } => {
            let source = match source {
                Some(source) => source_at(sets, source, deep.checked_sub(1)?)?,
                None => CredentialSource::Chain { profile: None },
            };
            CredentialSource::Role {
                arn: role_arn.clone(),
                session_name: session_name.clone(),
                external_id: external_id.clone(),
                source: Box::new(source),
            }
        }
    })
}

#[cfg(test)]
mod tests;

//! Connections: S3 (type `EC2`), Athena, and others taken as they come.
//!
//! Secrets come back wrapped, never in clear. A wrapped value that is written back is taken for the secret
//! itself, which breaks the connection: a client that writes back what it read is found out by the next test or
//! query. A missing connection answers 500 and not 404, so that existence is looked up in the list.

use serde_json::{Map, Value, json};

use super::FakeDss;
use super::backend::QuerySpec;
use super::behaviour::Duplicates;
use super::general::redact;
use super::reply::{Answer, Call, Refusal, Reply, ok};
use super::spelling::{self, Document};
use super::state::{State, WRAPPED};
use super::unverified;

/// Connection types the fake licence allows; there is no `S3`.
pub(super) const TYPES: &[&str] =
    &["EC2", "Athena", "Filesystem", "HDFS", "FTP", "PostgreSQL", "MySQL", "Redshift", "Snowflake", "HTTP"];

const S3_PARAMS: &[&str] = &[
    "credentialsMode",
    "accessKey",
    "secretKey",
    "stsRoleToAssume",
    "regionOrEndpoint",
    "switchToRegionFromBucket",
    "usePathMode",
    "chbucket",
    "chroot",
    "defaultManagedBucket",
    "defaultManagedPath",
    "hdfsInterface",
    "encryptionMode",
    "metastoreSynchronizationMode",
    "customAWSCredentialsProviderParams",
    "dkuProperties",
    "namingRule",
    unverified::S3_SYNC_DATABASE,
    unverified::S3_ATHENA_CONNECTION,
];

const TOP: &[&str] = &[
    "name",
    "type",
    "description",
    "params",
    "credentialsMode",
    "usableBy",
    "allowedGroups",
    "detailsReadability",
    "allowWrite",
    "allowManagedDatasets",
    "allowManagedFolders",
    "allowKnowledgeBanks",
    "allowMirror",
    "maxActivities",
    "useGlobalProxy",
    "indexingSettings",
];

/// The types with spellings of their own.
fn spelled(kind: &Value) -> Option<&'static str> {
    ["EC2", "Athena"].into_iter().find(|known| kind == known)
}

/// Params that are secrets.
const SECRETS: &[&str] = &["secretKey", "password"];

impl FakeDss {
    fn keep(&self, fields: &Value, known: &[&str]) -> Map<String, Value> {
        let all = fields.as_object().cloned().unwrap_or_default();
        let drops = self.behaviour().drop_unknown_keys;
        all.into_iter().filter(|(key, _)| !drops || known.contains(&key.as_str())).collect()
    }

    /// What creating something that is there comes to: a refusal, or nothing when it is overwritten.
    pub(super) fn duplicate(&self, message: String) -> Result<(), Refusal> {
        match self.behaviour().duplicates {
            Duplicates::Refused400 => Err(Refusal::illegal(message)),
            Duplicates::Refused500 => Err(Refusal::late_illegal(message)),
            Duplicates::Overwritten => Ok(()),
        }
    }

    /// A connection as it is read: secrets unreadable, keys as this DSS spells them.
    fn shown(&self, mut connection: Value) -> Value {
        let behaviour = self.behaviour();
        for secret in SECRETS {
            redact(&mut connection, &format!("/params/{secret}"), behaviour.redaction);
        }
        if let Some(kind) = spelled(&connection["type"]) {
            spelling::outward(&behaviour.spellings, Document::Connection(kind), &mut connection);
        }
        connection
    }

    pub(super) fn connections(&self, call: &Call) -> Answer {
        if call.method == "GET" {
            let all = self.read(|state| state.connections.clone()).into_iter();
            return ok(Value::Object(all.map(|(name, connection)| (name, self.shown(connection))).collect()));
        }
        let body = call.json()?;
        let name = Call::text(&body, "name")?;
        let kind = Call::text(&body, "type")?;
        if !TYPES.contains(&kind.as_str()) {
            return Err(Refusal::broken(
                "java.lang.NullPointerException",
                "Internal error, caused by: NullPointerException",
            ));
        }
        let mut connection = json!({
            "name": name, "type": kind, "description": body.get("description").cloned().unwrap_or_else(|| json!("")),
            "usableBy": body.get("usableBy").cloned().unwrap_or_else(|| json!("ALL")),
            "allowedGroups": body.get("allowedGroups").cloned().unwrap_or_else(|| json!([])),
            "credentialsMode": "GLOBAL", "allowWrite": false, "allowManagedDatasets": false,
            "allowManagedFolders": false, "allowKnowledgeBanks": false, "maxActivities": 0, "useGlobalProxy": false,
            "detailsReadability": {"readableBy": "NONE", "allowedGroups": []}
        });
        connection["params"] = self.params(&kind, &body["params"]);
        self.try_write(|state| {
            if state.connections.contains_key(&name) {
                self.duplicate(format!("Connection '{name}' already exists"))?;
            }
            state.connections.insert(name.clone(), connection);
            Ok(())
        })?;
        Ok(Reply::Text(format!("Created connection {name}")))
    }

    pub(super) fn connection(&self, call: &Call, name: &str) -> Answer {
        let missing = || Refusal::late_illegal(format!("Connection '{name}' does not exist")).of_absent();
        match call.method.as_str() {
            "GET" => {
                ok(self.shown(self.read(|state| state.connections.get(name).cloned()).ok_or_else(missing)?))
            }
            "DELETE" => {
                self.try_write(|state| state.connections.remove(name).ok_or_else(missing))?;
                Ok(Reply::Empty)
            }
            _ => {
                let body = call.json()?;
                self.try_write(|state| {
                    let stored = state.connections.get_mut(name).ok_or_else(missing)?;
                    if body["type"] != stored["type"] || body["name"] != stored["name"] {
                        return Err(Refusal::illegal(
                            "The name and the type of a connection cannot be changed",
                        ));
                    }
                    let kind = stored["type"].as_str().unwrap_or_default().to_owned();
                    let mut kept = self.keep(&body, TOP);
                    kept.insert("params".to_owned(), self.params(&kind, &body["params"]));
                    *stored = Value::Object(kept);
                    Ok(())
                })?;
                ok(json!({"msg": format!("Updated connection {name}")}))
            }
        }
    }

    pub(super) fn connection_names(&self, call: &Call) -> Answer {
        let wanted = call.query.get("type").filter(|kind| *kind != "all");
        let names: Vec<String> = self.read(|state| {
            let matching = state
                .connections
                .iter()
                .filter(|(_, value)| wanted.is_none_or(|kind| value["type"] == **kind));
            matching.map(|(name, _)| name.clone()).collect()
        });
        ok(json!(names))
    }

    pub(super) fn connection_test(&self, name: &str) -> Answer {
        let verdict = self.read(|state| {
            let connection = state.connections.get(name);
            let connection = connection.ok_or_else(|| {
                Refusal::late_illegal(format!("Connection '{name}' does not exist")).of_absent()
            })?;
            match connection["type"].as_str().unwrap_or_default() {
                "EC2" => Ok(self.s3_keys(connection).map(|_| ())),
                "Athena" => Ok(self.athena_query(state, name, String::new()).map(|_| ())),
                other => {
                    Err(Refusal::illegal(format!("Testing is not supported for connections of type {other}")))
                }
            }
        })?;
        ok(match verdict {
            Ok(()) => json!({"connectionOK": true}),
            Err(message) => json!({"connectionOK": false, "connectionErrorMsg": message}),
        })
    }

    pub(super) fn connection_info(&self, name: &str) -> Answer {
        self.read(|state| {
            let connection = state.connections.get(name);
            let connection = connection.ok_or_else(|| {
                Refusal::late_illegal(format!("Connection '{name}' does not exist")).of_absent()
            })?;
            let mut info = json!({
                "type": connection["type"], "credentialsMode": connection["credentialsMode"],
                "params": connection["params"], "resolvedParams": connection["params"]
            });
            if connection["type"] == "EC2"
                && let Ok((access_key, secret_key)) = self.s3_keys(connection)
            {
                info["resolvedAWSCredential"] =
                    json!({"accessKey": access_key, "secretKey": secret_key, "sessionToken": null});
            }
            ok(info)
        })
    }

    /// The params that survive, secrets wrapped.
    fn params(&self, kind: &str, sent: &Value) -> Value {
        let mut spelled_here = json!({"params": sent});
        if let Some(kind) = spelled(&Value::from(kind)) {
            let spellings = self.behaviour().spellings;
            spelling::inward(&spellings, Document::Connection(kind), &mut spelled_here);
        }
        let sent = &spelled_here["params"];
        let mut kept = match kind {
            "EC2" => self.keep(sent, S3_PARAMS),
            "Athena" => self.keep(sent, unverified::ATHENA_PARAMS),
            _ => sent.as_object().cloned().unwrap_or_default(),
        };
        if let Some(mode) = kept.get("metastoreSynchronizationMode").and_then(Value::as_str)
            && ![unverified::S3_SYNC_MODE, "NO_SYNC"].contains(&mode)
        {
            kept.remove("metastoreSynchronizationMode");
        }
        for secret in SECRETS {
            if let Some(Value::String(text)) = kept.get_mut(*secret) {
                *text = self.vault().wrap(text);
            }
        }
        Value::Object(kept)
    }

    /// Access key and secret key of an S3 connection; both empty with a role.
    pub(super) fn s3_keys(&self, connection: &Value) -> Result<(String, String), String> {
        let params = &connection["params"];
        match params["credentialsMode"].as_str() {
            Some("STS_ASSUME_ROLE")
                if params["stsRoleToAssume"].as_str().is_some_and(|role| role.starts_with("arn:")) =>
            {
                Ok((String::new(), String::new()))
            }
            Some("KEYPAIR") => {
                let access_key = params["accessKey"].as_str().unwrap_or_default();
                let secret_key =
                    params["secretKey"].as_str().and_then(|wrapped| self.vault().unwrap(wrapped));
                match secret_key {
                    Some(secret)
                        if !access_key.is_empty() && !secret.is_empty() && !secret.starts_with(WRAPPED) =>
                    {
                        Ok((access_key.to_owned(), secret))
                    }
                    _ => Err("The AWS Access Key Id or the secret key is not valid (InvalidAccessKeyId)"
                        .to_owned()),
                }
            }
            Some("ENVIRONMENT") => Ok((String::new(), String::new())),
            _ => Err("No usable AWS credentials on the connection".to_owned()),
        }
    }

    /// A query as an Athena connection would send it, or why it cannot.
    pub(super) fn athena_query(&self, state: &State, name: &str, sql: String) -> Result<QuerySpec, String> {
        let connection =
            state.connections.get(name).ok_or_else(|| format!("Connection '{name}' does not exist"))?;
        let params = &connection["params"];
        let text = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
        if connection["type"] != "Athena" {
            return Err(format!("Connection '{name}' is not a SQL connection the sandbox can query"));
        }
        if text("driverJarsDirectory").is_empty() {
            return Err("Failed to load the Athena JDBC driver: no driver jars directory".to_owned());
        }
        if params["credentialsMode"] != unverified::ATHENA_CREDENTIALS_MODE {
            return Err("The Athena connection has no credentials".to_owned());
        }
        let pair = text(unverified::ATHENA_S3_CONNECTION);
        let source = state.connections.get(&pair).filter(|source| source["type"] == "EC2");
        let source = source.ok_or_else(|| format!("S3 connection '{pair}' does not exist"))?;
        if source["params"]["credentialsMode"] == "ENVIRONMENT" {
            return Err(format!(
                "S3 connection '{pair}' takes its credentials from the environment: Athena cannot use them"
            ));
        }
        let (access_key, secret_key) = self.s3_keys(source)?;
        Ok(QuerySpec {
            sql,
            connection: name.to_owned(),
            database: text("database"),
            workgroup: text("workgroup"),
            output_location: text("s3OutputLocation"),
            region: text("region"),
            access_key,
            secret_key,
        })
    }
}

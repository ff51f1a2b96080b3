//! An AWS in memory that is as unkind as the real one, which emulators are not: Glue answers in pages, insists on the
//! version of a table, refuses single partitions within an answer that says 200, leaves keys unprocessed, and throttles; S3
//! lists in pages. Others work on its tables at the same moment, when a test says so.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// The account everything is in.
pub(crate) const ACCOUNT: &str = "123456789012";
/// One in so many calls is throttled.
const THROTTLED: u64 = 41;
/// One in so many batches has a partition that is refused.
const REFUSED: u64 = 7;
/// One in so many updates meets somebody else's.
const CONCURRENT: u64 = 5;
/// One in so many looks at several partitions leaves the last of them unprocessed.
const UNPROCESSED: u64 = 2;

/// A table with what it was changed to so often.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) input: Value,
    pub(crate) version: u64,
    pub(crate) partitions: BTreeMap<Vec<String>, Value>,
}

/// What is there, and what was asked.
#[derive(Default)]
pub(crate) struct Cloud {
    pub(crate) tables: BTreeMap<String, Kept>,
    /// Directories with files, below the bucket.
    pub(crate) directories: BTreeMap<String, Vec<String>>,
    pub(crate) calls: BTreeMap<String, u64>,
    pub(crate) largest_batch: usize,
    /// The partitions of each call that was to make or change some.
    pub(crate) sent: Vec<(&'static str, Vec<Vec<String>>)>,
    /// What somebody else makes of a partition at the moment in which it is made or changed: then the call is refused for
    /// it. None: he takes it out. Each happens once.
    pub(crate) rivals: BTreeMap<Vec<String>, Option<Value>>,
    /// What somebody else does once, when a table has just been deleted.
    pub(crate) after_delete: Option<Box<dyn FnOnce() + Send>>,
    asked: u64,
    under_way: u64,
    pub(crate) most_at_once: u64,
}

/// The world, shared with its server.
#[derive(Clone, Default)]
pub(crate) struct Aws(Arc<Mutex<Cloud>>);

type Refusal = (u16, &'static str);

impl Aws {
    pub(crate) fn cloud(&self) -> MutexGuard<'_, Cloud> {
        self.0.lock().expect("nobody panics here")
    }

    /// How often these were called.
    pub(crate) fn called(&self, op: &str) -> u64 {
        self.cloud().calls.get(op).copied().unwrap_or_default()
    }

    /// Calls that changed something.
    pub(crate) fn mutating(&self) -> u64 {
        let cloud = self.cloud();
        let changes = |op: &str| ["Create", "Update", "Delete"].iter().any(|word| op.contains(word));
        cloud.calls.iter().filter(|(op, _)| changes(op)).map(|(_, n)| n).sum()
    }

    pub(crate) fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }
}

async fn answer(State(aws): State<Aws>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|t| t.to_str().ok()).unwrap_or_default();
    if let Some(op) = target.strip_prefix("AWSGlue.") {
        {
            let mut cloud = aws.cloud();
            cloud.under_way += 1;
            cloud.most_at_once = cloud.most_at_once.max(cloud.under_way);
        }
        // As long as a call takes, others may be under way.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut cloud = aws.cloud();
        cloud.under_way -= 1;
        let (status, answer) = match cloud.glue(op, &body) {
            Ok(answer) => (StatusCode::OK, answer),
            Err((status, code)) => (
                StatusCode::from_u16(status).expect("a status"),
                json!({"__type": code, "Message": format!("{op}: {code}")}),
            ),
        };
        return (status, [("content-type", "application/x-amz-json-1.1")], answer.to_string())
            .into_response();
    }
    let text = String::from_utf8_lossy(&body);
    if text.contains("Action=GetCallerIdentity") {
        let xml = format!(
            "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::{ACCOUNT}:user/ops</Arn>\
             <UserId>AIDA</UserId><Account>{ACCOUNT}</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
        );
        return (StatusCode::OK, [("content-type", "text/xml")], xml).into_response();
    }
    if uri.query().is_some_and(|query| query.contains("list-type=2")) {
        let xml = aws.cloud().list(uri.query().unwrap_or_default());
        return (StatusCode::OK, [("content-type", "application/xml")], xml).into_response();
    }
    let xml = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>";
    (StatusCode::FORBIDDEN, [("content-type", "text/xml")], xml).into_response()
}

fn values(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A page of a list: from the token on, and the token of the next.
fn page(body: &Value, all: &[Value], most: usize) -> (Vec<Value>, Value) {
    let from: usize = body["NextToken"].as_str().and_then(|t| t.parse().ok()).unwrap_or_default();
    let most = body["MaxResults"].as_u64().map_or(most, |n| most.min(usize::try_from(n).unwrap_or(most)));
    let to = (from + most).min(all.len());
    (all[from..to].to_vec(), if to < all.len() { json!(to.to_string()) } else { Value::Null })
}

fn told(name: &str, kept: &Kept) -> Value {
    let mut table = kept.input.clone();
    table["Name"] = json!(name);
    table["VersionId"] = json!(kept.version.to_string());
    table
}

const MISSING: Refusal = (400, "EntityNotFoundException");

impl Cloud {
    fn glue(&mut self, op: &str, body: &Value) -> Result<Value, Refusal> {
        self.asked += 1;
        if self.asked.is_multiple_of(THROTTLED) {
            return Err((400, "ThrottlingException"));
        }
        *self.calls.entry(op.to_owned()).or_default() += 1;
        let calls = self.calls[op];
        let name = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        match op {
            "GetTables" => {
                let all: Vec<Value> = self.tables.iter().map(|(name, kept)| told(name, kept)).collect();
                let (tables, next) = page(body, &all, 100);
                Ok(json!({"TableList": tables, "NextToken": next}))
            }
            "GetTable" => {
                let kept = self.tables.get(&name("Name")).ok_or(MISSING)?;
                Ok(json!({"Table": told(&name("Name"), kept)}))
            }
            "CreateTable" => {
                let name = body["TableInput"]["Name"].as_str().unwrap_or_default().to_owned();
                if self.tables.contains_key(&name) {
                    return Err((400, "AlreadyExistsException"));
                }
                self.tables.insert(name, Kept { input: body["TableInput"].clone(), ..Kept::default() });
                Ok(json!({}))
            }
            "UpdateTable" => {
                let name = body["TableInput"]["Name"].as_str().unwrap_or_default();
                let kept = self.tables.get_mut(name).ok_or(MISSING)?;
                if calls.is_multiple_of(CONCURRENT) {
                    // Somebody else was faster, and the version is another now.
                    kept.version += 1;
                }
                if body["VersionId"] != json!(kept.version.to_string()) {
                    return Err((400, "ConcurrentModificationException"));
                }
                kept.input = body["TableInput"].clone();
                kept.version += 1;
                Ok(json!({}))
            }
            "GetPartitions" => {
                let kept = self.tables.get(&name("TableName")).ok_or(MISSING)?;
                let all: Vec<Value> = kept.partitions.values().cloned().collect();
                let (partitions, next) = page(body, &all, 400);
                Ok(json!({"Partitions": partitions, "NextToken": next}))
            }
            "BatchGetPartition" => {
                let kept = self.tables.get(&name("TableName")).ok_or(MISSING)?;
                let asked = body["PartitionsToGet"].as_array().into_iter().flatten();
                let mut asked: Vec<Vec<String>> = asked.map(|list| values(&list["Values"])).collect();
                let hurried = calls.is_multiple_of(UNPROCESSED) && asked.len() > 1;
                let left: Vec<Value> =
                    asked.pop_if(|_| hurried).into_iter().map(|which| json!({"Values": which})).collect();
                let found: Vec<&Value> =
                    asked.iter().filter_map(|which| kept.partitions.get(which)).collect();
                Ok(json!({"Partitions": found, "UnprocessedKeys": left}))
            }
            "BatchCreatePartition" => self.create(body, calls),
            "BatchUpdatePartition" => self.update(body),
            "BatchDeletePartition" => {
                let kept = self.tables.get_mut(&name("TableName")).ok_or(MISSING)?;
                for gone in body["PartitionsToDelete"].as_array().into_iter().flatten() {
                    kept.partitions.remove(&values(&gone["Values"]));
                }
                Ok(json!({"Errors": []}))
            }
            "DeleteTable" => {
                self.tables.remove(&name("Name")).ok_or(MISSING)?;
                if let Some(then) = self.after_delete.take() {
                    then();
                }
                Ok(json!({}))
            }
            _ => Err((400, "AccessDeniedException")),
        }
    }

    fn create(&mut self, body: &Value, calls: u64) -> Result<Value, Refusal> {
        let list = body["PartitionInputList"].as_array().cloned().unwrap_or_default();
        self.largest_batch = self.largest_batch.max(list.len());
        if list.len() > 100 {
            return Err((400, "InvalidInputException"));
        }
        self.sent.push(("create", list.iter().map(|partition| values(&partition["Values"])).collect()));
        let kept = self.tables.get_mut(body["TableName"].as_str().unwrap_or_default()).ok_or(MISSING)?;
        let mut errors = Vec::new();
        for (n, partition) in list.iter().enumerate() {
            let which = values(&partition["Values"]);
            let shown = json!(which);
            let refused = |code: &str| json!({"PartitionValues": shown, "ErrorDetail": {"ErrorCode": code, "ErrorMessage": code}});
            if n == 3 && calls.is_multiple_of(REFUSED) {
                errors.push(refused("InternalServiceException"));
                continue;
            }
            if let Some(theirs) = self.rivals.remove(&which).flatten() {
                kept.partitions.insert(which, theirs);
                errors.push(refused("AlreadyExistsException"));
                continue;
            }
            let Entry::Vacant(place) = kept.partitions.entry(which) else {
                errors.push(refused("AlreadyExistsException"));
                continue;
            };
            place.insert(partition.clone());
            if n == 5 && calls.is_multiple_of(REFUSED) {
                // Another made it at the same moment.
                errors.push(refused("AlreadyExistsException"));
            }
        }
        Ok(json!({"Errors": errors}))
    }

    fn update(&mut self, body: &Value) -> Result<Value, Refusal> {
        let list = body["Entries"].as_array().cloned().unwrap_or_default();
        self.largest_batch = self.largest_batch.max(list.len());
        self.sent.push(("update", list.iter().map(|entry| values(&entry["PartitionValueList"])).collect()));
        let kept = self.tables.get_mut(body["TableName"].as_str().unwrap_or_default()).ok_or(MISSING)?;
        let mut errors = Vec::new();
        for entry in &list {
            let which = values(&entry["PartitionValueList"]);
            let shown = json!(which);
            let code = match self.rivals.remove(&which) {
                Some(Some(theirs)) => {
                    kept.partitions.insert(which, theirs);
                    "ConcurrentModificationException"
                }
                Some(None) => {
                    kept.partitions.remove(&which);
                    "EntityNotFoundException"
                }
                None => match kept.partitions.get_mut(&which) {
                    Some(partition) => {
                        *partition = entry["PartitionInput"].clone();
                        continue;
                    }
                    None => "EntityNotFoundException",
                },
            };
            let why = json!({"ErrorCode": code, "ErrorMessage": code});
            errors.push(json!({"PartitionValueList": shown, "ErrorDetail": why}));
        }
        Ok(json!({"Errors": errors}))
    }

    /// A page of directories, or the one file in a directory of the last level.
    fn list(&self, query: &str) -> String {
        let value = |key: &str| {
            let found = query.split('&').find_map(|part| part.strip_prefix(&format!("{key}=")));
            found.unwrap_or_default().replace("%2F", "/").replace("%3D", "=")
        };
        let prefix = value("prefix");
        let root = prefix.trim_end_matches('/');
        let mut xml = String::from("<ListBucketResult>");
        if let Some(names) = self.directories.get(root) {
            let from: usize = value("continuation-token").parse().unwrap_or_default();
            let to = (from + 1000).min(names.len());
            for name in &names[from..to] {
                let _written =
                    write!(xml, "<CommonPrefixes><Prefix>{root}/{name}/</Prefix></CommonPrefixes>");
            }
            let more = to < names.len();
            let _written = write!(xml, "<IsTruncated>{more}</IsTruncated>");
            if more {
                let _written = write!(xml, "<NextContinuationToken>{to}</NextContinuationToken>");
            }
        } else {
            let _written = write!(
                xml,
                "<IsTruncated>false</IsTruncated><Contents><Key>{root}/part-0.parquet</Key><Size>4</Size></Contents>"
            );
        }
        xml.push_str("</ListBucketResult>");
        xml
    }
}

//! Which operation of which service a request is, from what is on the wire.
//!
//! The service stands in the credential scope of the signature; the operation in `x-amz-target` (JSON protocol), in the
//! form's `Action` (query protocol), or in the method and path (EKS, S3). Nothing is verified.

use axum::http::{HeaderMap, Method, Uri};
use serde_json::Value;

/// A recognised call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Signing name, for example `eks`; empty when the request is not signed.
    pub(crate) service: String,
    /// Operation, for example `CreateCluster`.
    pub(crate) operation: String,
    /// Access key id of the caller.
    pub(crate) access_key: String,
    /// Decoded segments of the path.
    pub(crate) path: Vec<String>,
    /// Whether it changes something if it succeeds.
    pub(crate) mutating: bool,
    /// The client token, if the call has one that the service honours.
    pub(crate) token: Option<String>,
}

impl Call {
    /// `service:Operation`, the form used in faults and records.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.service, self.operation)
    }
}

/// Reads a request.
pub(crate) fn recognise(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Call {
    let (access_key, service) = scope(uri, headers);
    let path: Vec<String> = uri.path().split('/').filter(|part| !part.is_empty()).map(decode).collect();
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let form = match target {
        None if is_form(headers) => parse_form(&String::from_utf8_lossy(body)),
        _ => Vec::new(),
    };
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let (operation, token) = match service.as_str() {
        "eks" => {
            let token = json_text(body, "clientRequestToken");
            (eks_operation(method, &path, uri.query()), token)
        }
        "lakeformation" => (path.first().cloned().unwrap_or_default(), None),
        "s3" => (s3_operation(method, &path, uri.query(), headers), None),
        _ => {
            if let Some(target) = target {
                let operation = target.rsplit('.').next().unwrap_or(target).to_owned();
                let token = (service == "athena").then(|| json_text(body, "ClientRequestToken")).flatten();
                (operation, token)
            } else {
                let operation = field("Action").or_else(|| query_value(uri, "Action"));
                let token = (service == "ec2").then(|| field("ClientToken")).flatten();
                (operation.unwrap_or_else(|| "Unknown".to_owned()), token)
            }
        }
    };
    let dry_run = field("DryRun").is_some_and(|value| value == "true");
    let mutating = !dry_run && changes(&service, &operation);
    let token = token.filter(|token| mutating && !token.is_empty());
    Call { service, operation, access_key, path, mutating, token }
}

/// The token of a call whose service does not have it replayed here; none of a call that only looks.
pub(crate) fn other_token(call: &Call, body: &[u8]) -> Option<String> {
    const FIELD: &str = "ClientRequestToken";
    let of_form = || {
        let form = parse_form(&String::from_utf8_lossy(body));
        form.into_iter().find(|(key, _)| key == FIELD).map(|(_, value)| value)
    };
    match call.service.as_str() {
        "cloudformation" => of_form(),
        "secretsmanager" => json_text(body, FIELD),
        _ => None,
    }
    .filter(|_| call.mutating)
}

/// Whether a request carries every mark by which its maker can be told later. Looks at the text only: the marks stand in
/// it as keys, in a form with its signs encoded.
pub(crate) fn is_marked(body: &[u8]) -> bool {
    let text = decode(&String::from_utf8_lossy(body));
    ["store", "site", "run", "step", "generation"]
        .iter()
        .all(|mark| text.contains(&format!("dssflow:{mark}")))
}

fn scope(uri: &Uri, headers: &HeaderMap) -> (String, String) {
    let header = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let credential = header
        .split_once("Credential=")
        .map(|(_, rest)| rest.split([',', ' ']).next().unwrap_or_default().to_owned())
        .or_else(|| query_value(uri, "X-Amz-Credential"))
        .unwrap_or_default();
    let mut parts = credential.split('/');
    let access_key = parts.next().unwrap_or_default().to_owned();
    (access_key, parts.nth(2).unwrap_or_default().to_owned())
}

fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"))
}

/// The fields of a form or query string, decoded.
pub(crate) fn parse_form(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
        })
        .collect()
}

pub(crate) fn query_value(uri: &Uri, name: &str) -> Option<String> {
    parse_form(uri.query()?).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Undoes percent-encoding; what is no valid escape stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(byte) = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn json_text(body: &[u8], field: &str) -> Option<String> {
    serde_json::from_slice::<Value>(body).ok()?.get(field)?.as_str().map(str::to_owned)
}

fn eks_operation(method: &Method, path: &[String], query: Option<&str>) -> String {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let verb = method.as_str();
    let name = match (verb, parts.as_slice()) {
        ("POST", ["clusters"]) => "CreateCluster",
        ("GET", ["clusters"]) => "ListClusters",
        ("GET", ["clusters", _]) => "DescribeCluster",
        ("DELETE", ["clusters", _]) => "DeleteCluster",
        ("POST", ["clusters", _, "update-config"]) => "UpdateClusterConfig",
        ("POST", ["clusters", _, "updates"]) => "UpdateClusterVersion",
        ("GET", ["clusters", _, "updates"]) => "ListUpdates",
        ("GET", ["clusters", _, "updates", _]) => "DescribeUpdate",
        ("POST", ["clusters", _, "node-groups"]) => "CreateNodegroup",
        ("GET", ["clusters", _, "node-groups"]) => "ListNodegroups",
        ("GET", ["clusters", _, "node-groups", _]) => "DescribeNodegroup",
        ("DELETE", ["clusters", _, "node-groups", _]) => "DeleteNodegroup",
        ("POST", ["clusters", _, "node-groups", _, "update-config"]) => "UpdateNodegroupConfig",
        ("POST", ["clusters", _, "node-groups", _, "update-version"]) => "UpdateNodegroupVersion",
        ("POST", ["clusters", _, "access-entries"]) => "CreateAccessEntry",
        ("GET", ["clusters", _, "access-entries"]) => "ListAccessEntries",
        ("GET", ["clusters", _, "access-entries", _]) => "DescribeAccessEntry",
        ("POST", ["clusters", _, "access-entries", _]) => "UpdateAccessEntry",
        ("DELETE", ["clusters", _, "access-entries", _]) => "DeleteAccessEntry",
        ("POST", ["clusters", _, "access-entries", _, "access-policies"]) => "AssociateAccessPolicy",
        ("GET", ["clusters", _, "access-entries", _, "access-policies"]) => "ListAssociatedAccessPolicies",
        ("DELETE", ["clusters", _, "access-entries", _, "access-policies", _]) => "DisassociateAccessPolicy",
        ("GET", ["access-policies"]) => "ListAccessPolicies",
        ("POST", ["clusters", _, "addons"]) => "CreateAddon",
        ("GET", ["clusters", _, "addons"]) => "ListAddons",
        ("GET", ["clusters", _, "addons", _]) => "DescribeAddon",
        ("DELETE", ["clusters", _, "addons", _]) => "DeleteAddon",
        ("POST", ["clusters", _, "addons", _, "update"]) => "UpdateAddon",
        ("GET", ["addons", "supported-versions"]) => "DescribeAddonVersions",
        ("GET", ["cluster-versions"]) => "DescribeClusterVersions",
        ("GET", ["tags", ..]) => "ListTagsForResource",
        ("POST", ["tags", ..]) => "TagResource",
        ("DELETE", ["tags", ..]) => "UntagResource",
        _ => "",
    };
    if name.is_empty() {
        return format!("{verb} /{}{}", parts.join("/"), query.map(|q| format!("?{q}")).unwrap_or_default());
    }
    name.to_owned()
}

fn s3_operation(method: &Method, path: &[String], query: Option<&str>, headers: &HeaderMap) -> String {
    let query = query.unwrap_or_default();
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let part = [
        ("tagging", "Tagging"),
        ("policy", "Policy"),
        ("versioning", "Versioning"),
        ("encryption", "Encryption"),
        ("location", "Location"),
        ("lifecycle", "LifecycleConfiguration"),
        ("publicAccessBlock", "PublicAccessBlock"),
        ("acl", "Acl"),
    ]
    .into_iter()
    .find(|(name, _)| has(name))
    .map(|(_, operation)| operation);
    let kind = match path.len() {
        0 => return "ListBuckets".to_owned(),
        1 => "Bucket",
        _ => "Object",
    };
    if let Some(part) = part {
        let verb = match *method {
            Method::GET | Method::HEAD => "Get",
            Method::DELETE => "Delete",
            _ => "Put",
        };
        return format!("{verb}{kind}{part}");
    }
    match (method.as_str(), kind) {
        ("HEAD", "Bucket") => "HeadBucket",
        ("HEAD", _) => "HeadObject",
        ("GET", "Bucket") => "ListObjects",
        ("GET", _) => "GetObject",
        ("PUT", "Bucket") => "CreateBucket",
        ("PUT", _) if headers.contains_key("x-amz-copy-source") => "CopyObject",
        ("PUT", _) => "PutObject",
        ("POST", "Bucket") => "DeleteObjects",
        ("POST", _) => "PostObject",
        ("DELETE", "Bucket") => "DeleteBucket",
        _ => "DeleteObject",
    }
    .to_owned()
}

/// Whether an operation is of a kind that changes something.
pub(crate) fn changes(service: &str, operation: &str) -> bool {
    const READING: [&str; 12] = [
        "Describe",
        "Get",
        "List",
        "Head",
        "BatchGet",
        "BatchCheck",
        "Lookup",
        "Simulate",
        "Search",
        "Query",
        "Validate",
        "Estimate",
    ];
    service != "sts" && !READING.iter().any(|verb| operation.starts_with(verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Call {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = axum::http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            map.insert(name, value.parse().expect("a header value"));
        }
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        recognise(&method, &uri.parse().expect("a uri"), &map, body.as_bytes())
    }

    #[test]
    fn marks_are_seen_in_forms_and_in_json() {
        let keys = ["store", "site", "run", "step", "generation"];
        let json = keys.map(|k| format!("\"dssflow:{k}\":\"x\"")).join(",");
        assert!(is_marked(json.as_bytes()));
        let form = keys.map(|k| format!("Tag.1.Key=dssflow%3A{k}&Tag.1.Value=x")).join("&");
        assert!(is_marked(form.as_bytes()));
        assert!(!is_marked(json.replace("dssflow:step", "step").as_bytes()), "one is missing");
    }

    #[test]
    fn each_protocol_is_told() {
        let auth = |service: &str| {
            format!("AWS4-HMAC-SHA256 Credential=AK1/20260101/eu-west-1/{service}/aws4_request, Signature=0")
        };
        let form = ("content-type", "application/x-www-form-urlencoded");
        let ec2 = call(
            "POST",
            "/",
            &[("authorization", &auth("ec2")), form],
            "Action=RunInstances&ClientToken=t%2B1",
        );
        assert_eq!(
            (ec2.name().as_str(), ec2.mutating, ec2.token.as_deref()),
            ("ec2:RunInstances", true, Some("t+1"))
        );
        assert_eq!(ec2.access_key, "AK1");
        let dry =
            call("POST", "/", &[("authorization", &auth("ec2")), form], "Action=RunInstances&DryRun=true");
        assert!(!dry.mutating);
        let ecr = call(
            "POST",
            "/",
            &[
                ("authorization", &auth("ecr")),
                ("x-amz-target", "AmazonEC2ContainerRegistry_V20150921.BatchGetImage"),
            ],
            "{}",
        );
        assert_eq!((ecr.name().as_str(), ecr.mutating), ("ecr:BatchGetImage", false));
        let eks = call(
            "POST",
            "/clusters/a/access-entries/arn%3Aaws%3Aiam%3A%3A1%3Auser%2Fx/access-policies",
            &[("authorization", &auth("eks"))],
            "{}",
        );
        assert_eq!(eks.name(), "eks:AssociateAccessPolicy");
        assert_eq!(eks.path[3], "arn:aws:iam::1:user/x");
        let s3 = call("PUT", "/bucket?tagging", &[("authorization", &auth("s3"))], "");
        assert_eq!((s3.name().as_str(), s3.mutating), ("s3:PutBucketTagging", true));
        assert!(!call("HEAD", "/bucket", &[("authorization", &auth("s3"))], "").mutating);
    }
}

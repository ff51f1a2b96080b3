//! The instance-metadata service, version 2 only: a token first, then what the product and the AWS tools ask for.
//!
//! Its answers come from the emulator at the moment of asking, so that a changed security group shows. There is no
//! role on the instance, hence no credentials.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::{Value, json};

use crate::aws::{ACCOUNT, Aws, REGION};
use crate::xml::list;

#[derive(Debug, Clone)]
struct Imds {
    aws: Aws,
    instance: String,
    tokens: Arc<Mutex<BTreeSet<String>>>,
}

/// The routes for one instance of the emulator.
pub(crate) fn router(aws: Aws, instance: &str) -> Router {
    let imds = Imds { aws, instance: instance.to_owned(), tokens: Arc::default() };
    Router::new()
        .route("/latest/api/token", put(token))
        .route("/latest/meta-data/{*path}", get(meta_data))
        .route("/latest/dynamic/instance-identity/document", get(identity))
        .with_state(imds)
}

async fn token(State(imds): State<Imds>, headers: HeaderMap) -> Response {
    let seconds = headers
        .get("x-aws-ec2-metadata-token-ttl-seconds")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u32>().ok())
        .filter(|seconds| (1..=21600).contains(seconds));
    let Some(seconds) = seconds else { return StatusCode::BAD_REQUEST.into_response() };
    let token = hex::encode(rand::random::<[u8; 16]>());
    imds.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone());
    ([("x-aws-ec2-metadata-token-ttl-seconds", seconds.to_string())], token).into_response()
}

impl Imds {
    fn allowed(&self, headers: &HeaderMap) -> bool {
        let token = headers.get("x-aws-ec2-metadata-token").and_then(|value| value.to_str().ok());
        token.is_some_and(|token| self.tokens.lock().unwrap_or_else(PoisonError::into_inner).contains(token))
    }

    async fn instance(&self) -> Option<Value> {
        let params = [("InstanceId.1", self.instance.as_str())];
        let found = self.aws.query("ec2", "DescribeInstances", &params).await.ok()?;
        let reservations = list(&found, &["reservationSet"]);
        let instances = list(reservations.first()?, &["instancesSet"]);
        instances.first().map(|instance| (*instance).clone())
    }
}

async fn meta_data(State(imds): State<Imds>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    if !imds.allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Some(instance) = imds.instance().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let text = |key: &str| instance[key].as_str().unwrap_or_default().to_owned();
    let groups = |key: &str| {
        let names: Vec<&str> =
            list(&instance, &["groupSet"]).iter().filter_map(|group| group[key].as_str()).collect();
        names.join("\n")
    };
    let mac =
        instance["networkInterfaceSet"][0]["macAddress"].as_str().unwrap_or("02:00:00:00:00:01").to_owned();
    let zone = instance["placement"]["availabilityZone"].as_str().unwrap_or_default().to_owned();
    let path = path.trim_end_matches('/');
    let interface = format!("network/interfaces/macs/{mac}");
    let answer = match path.strip_prefix(&format!("{interface}/")).unwrap_or(path) {
        "network/interfaces/macs" => format!("{mac}/"),
        "instance-id" => imds.instance.clone(),
        "ami-id" => text("imageId"),
        "instance-type" => text("instanceType"),
        "placement/region" => REGION.to_owned(),
        "placement/availability-zone" => zone,
        "local-ipv4" | "local-ipv4s" => text("privateIpAddress"),
        "public-ipv4" => text("ipAddress"),
        "hostname" | "local-hostname" => text("privateDnsName"),
        "mac" => mac,
        "vpc-id" => text("vpcId"),
        "subnet-id" => text("subnetId"),
        "owner-id" => ACCOUNT.to_owned(),
        "interface-id" => {
            instance["networkInterfaceSet"][0]["networkInterfaceId"].as_str().unwrap_or_default().to_owned()
        }
        "security-groups" => groups("groupName"),
        "security-group-ids" => groups("groupId"),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    answer.into_response()
}

async fn identity(State(imds): State<Imds>, headers: HeaderMap) -> Response {
    if !imds.allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Some(instance) = imds.instance().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    axum::Json(json!({
        "accountId": ACCOUNT, "architecture": "x86_64", "availabilityZone": instance["placement"]["availabilityZone"],
        "imageId": instance["imageId"], "instanceId": imds.instance, "instanceType": instance["instanceType"],
        "privateIp": instance["privateIpAddress"], "region": REGION, "version": "2017-09-30",
    }))
    .into_response()
}
